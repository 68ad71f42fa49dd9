// TypeORM: version, updateDate and deleteDate columns (what @VersionColumn and
// its like make) in camelCase, and its migrations.
//
// Customers have the application's own deletedAt (flag), tickets are deleted
// by remove() (trash). Connected by PGHOST and its like.
import typeorm from 'typeorm'
import { calls } from './calls.js'
import { done, ok, raises, same, story } from './tap.js'

const { DataSource, EntitySchema, OptimisticLockVersionMismatchError, QueryFailedError } = typeorm

const versioned = {
  id: { type: 'int', primary: true, generated: true },
  name: { type: 'text' },
  version: { type: 'int', version: true },
  updatedAt: { type: 'timestamptz', updateDate: true }
}
const deletedAt = { type: 'timestamptz', deleteDate: true, nullable: true }

function child (name, tableName, parent, columns) {
  return new EntitySchema({
    name,
    tableName,
    columns: { id: { type: 'int', primary: true, generated: true }, ...columns },
    relations: { parent: { type: 'many-to-one', target: parent, onDelete: 'CASCADE', nullable: false, joinColumn: { name: 'parentId' } } }
  })
}

const Customer = new EntitySchema({ name: 'Customer', tableName: 'customers', columns: { ...versioned, deletedAt } })
const Order = child('Order', 'orders', 'Customer', { deletedAt })
const Ticket = new EntitySchema({ name: 'Ticket', tableName: 'tickets', columns: versioned })
const Message = child('Message', 'messages', 'Ticket')

// The view of the live rows, for DELETE.
const ActiveCustomer = new EntitySchema({ name: 'ActiveCustomer', tableName: 'active_customers', columns: versioned, synchronize: false })

class Rowkeeper1700000000000 {
  up (runner) { return runner.query(calls) }
  down () {}
}

const source = new DataSource({
  type: 'postgres',
  host: process.env.PGHOST,
  username: process.env.PGUSER,
  database: process.env.PGDATABASE,
  entities: [Customer, Order, Ticket, Message, ActiveCustomer],
  migrations: [Rowkeeper1700000000000]
})
await source.initialize()
const { manager } = source

// One transaction of this user.
function acting (user, work) {
  return manager.transaction(async trx => {
    await trx.query("SELECT set_config('app.user_id', $1, true)", [user])
    return work(trx)
  })
}

const history = async (table, key) =>
  (await manager.query('SELECT action, actor FROM rowkeeper.audit_history($1, $2)', [table, key])).map(row => [row.action, row.actor])

const find = (entity, id, withDeleted = false) => manager.findOne(entity, { where: { id }, withDeleted })

function add (parent, name, child, children = 0) {
  return acting('ann', async trx => {
    const row = await trx.save(parent, { name })
    for (let i = 0; i < children; i++) await trx.save(child, { parent: row })
    return row
  })
}

const restore = (table, key) => acting('eve', trx => trx.query('SELECT * FROM rowkeeper.soft_delete_restore($1, $2)', [table, key]))

await story(async function migrations () {
  await source.synchronize()
  await source.runMigrations()
  const before = await manager.query('SELECT catalog_state()')
  await source.undoLastMigration()
  await source.runMigrations()
  same(await manager.query('SELECT catalog_state()'), before, 'migration: run again, it has touched nothing')
  same((await manager.query('SELECT DISTINCT feature FROM rowkeeper.features ORDER BY 1')).map(row => row.feature),
    ['audit', 'soft_delete', 'stamp'], 'and the features are on')
})

await story(async function stamps () {
  const ann = await add(Customer, 'Ann')
  same(ann.version, 1, 'insert: the object has version 1')
  ok(ann.updatedAt instanceof Date, 'and updatedAt')
  const insertedAt = ann.updatedAt

  ann.name = 'Ann B.'
  await manager.save(Customer, ann)
  same(ann.version, 2, 'save(): the object has version 2')
  const row = await find(Customer, ann.id)
  same([row.name, row.version], ['Ann B.', 2], 'so has the row, bumped once')
  same(ann.updatedAt, row.updatedAt, 'updatedAt is read back')
  ok(ann.updatedAt >= insertedAt, 'and went on')

  await raises(e => e instanceof OptimisticLockVersionMismatchError, 'stale read: OptimisticLockVersionMismatchError',
    () => manager.findOne(Customer, { where: { id: ann.id }, lock: { mode: 'optimistic', version: 1 } }))
  same((await manager.update(Customer, { id: ann.id, version: 1 }, { name: 'Carol' })).affected, 0,
    'update() of the old version: affected 0')
  same((await manager.update(Customer, { id: ann.id, version: 2 }, { name: 'Bob' })).affected, 1, 'of the last one: affected 1')
  same((await find(Customer, ann.id)).version, 3, 'version bumped once')

  const blind = (table, version) => manager.query(`UPDATE ${table} SET name = $1, version = $2 WHERE name IN ('Bob', 'printer')`, ['blind', version])
  const error = await raises(e => e instanceof QueryFailedError, "a version sent without a look, stale => 'error': QueryFailedError",
    () => blind('customers', 3))
  same(error?.code, '40001', 'is 40001')
  const ticket = await add(Ticket, 'printer')
  same((await blind('tickets', 1))[1], 0, "with stale => 'skip': 0 rows")
  same((await blind('tickets', 2))[1], 1, 'with the next version: 1 row')
  same((await find(Ticket, ticket.id)).version, 2, 'version bumped once')
})

await story(async function flag () {
  const ann = await add(Customer, 'Ann', Order, 2)
  const liveOrders = id => manager.count(Order, { where: { parent: { id } } })

  await acting('ann', trx => trx.softRemove(Customer, ann))
  ok(ann.deletedAt instanceof Date, 'softRemove(): deletedAt is read back')
  same(await find(Customer, ann.id), null, 'TypeORM finds it no more')
  same(await liveOrders(ann.id), 0, 'its orders are deleted with it')
  same((await find(Customer, ann.id, true)).version, 2, 'its version counts the delete, once')
  same(ann.version, 2, 'and the object has it')

  same((await restore('customers', ann.id)).map(row => row.table_name).sort(), ['customers', 'orders', 'orders'],
    'restored: the row and its two orders')
  same(await liveOrders(ann.id), 2, 'TypeORM finds them again')
  same(await history('customers', ann.id), [['INSERT', 'ann'], ['SOFT DELETE', 'ann'], ['RESTORE', 'eve']], 'audit: what, and by whom')

  same((await acting('eve', trx => trx.softDelete(Customer, { id: ann.id }))).affected, 1, 'softDelete(): affected 1')
  same((await history('customers', ann.id)).at(-1), ['SOFT DELETE', 'eve'], 'audit: a soft delete')
  same((await acting('ann', trx => trx.restore(Customer, { id: ann.id }))).affected, 1, 'restore(): affected 1')
  same((await history('customers', ann.id)).at(-1), ['RESTORE', 'ann'], 'audit: a restore')
  same((await find(Customer, ann.id)).name, 'Ann', 'TypeORM finds it again')

  const other = await add(Customer, 'other', Order, 1)
  const result = await manager.createQueryBuilder().delete().from(ActiveCustomer).where({ id: other.id }).returning('id, name').execute()
  same([result.affected, result.raw], [1, [{ id: other.id, name: 'other' }]], 'delete() through the view: affected 1, RETURNING has the row')
  same(await liveOrders(other.id), 0, 'its orders are deleted with it')
  same((await manager.delete(ActiveCustomer, { id: other.id })).affected, 0, 'once more: affected 0')

  await raises(e => e instanceof QueryFailedError, 'remove() from the table itself is refused', () => manager.delete(Customer, { id: ann.id }))
})

await story(async function trash () {
  const ticket = await add(Ticket, 'disk', Message, 2)
  const messages = () => manager.count(Message, { where: { parent: { id: ticket.id } } })
  await acting('ann', async trx => trx.remove(Ticket, await trx.findOneBy(Ticket, { id: ticket.id })))
  same([await find(Ticket, ticket.id), await messages()], [null, 0], 'trash: remove(): it is gone, its messages too')
  same((await restore('tickets', ticket.id)).length, 3, 'trash: restored: the row and its two messages')
  const back = await find(Ticket, ticket.id)
  same([back.name, back.version, await messages()], ['disk', 1, 2], 'trash: as they were')
  same(await history('tickets', ticket.id), [['INSERT', 'ann'], ['SOFT DELETE', 'ann'], ['RESTORE', 'eve']], 'trash: audit: what, and by whom')
  const result = await manager.createQueryBuilder().delete().from(Ticket).where({ id: ticket.id }).returning('name').execute()
  same([result.affected, result.raw], [1, [{ name: 'disk' }]], 'trash: delete(): affected 1, RETURNING has the row')
})

done()
await source.destroy()
