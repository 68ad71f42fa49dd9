// Sequelize: version, timestamps and paranoid in camelCase. It has no
// migrations of its own; the calls run through its query().
//
// Customers are paranoid (flag), tickets are destroyed (trash). Connected by
// PGHOST and its like.
import { DataTypes, DatabaseError, OptimisticLockError, QueryTypes, Sequelize } from 'sequelize'
import { calls } from './calls.js'
import { done, ok, raises, same, story } from './tap.js'

const sequelize = new Sequelize(process.env.PGDATABASE, process.env.PGUSER, '',
  { dialect: 'postgres', host: process.env.PGHOST, logging: false, define: { createdAt: false } })

const versioned = { name: { type: DataTypes.TEXT, allowNull: false } }
const Customer = sequelize.define('Customer', versioned, { tableName: 'customers', version: true, paranoid: true })
const Order = sequelize.define('Order', {}, { tableName: 'orders', paranoid: true, updatedAt: false })
const Ticket = sequelize.define('Ticket', versioned, { tableName: 'tickets', version: true })
const Message = sequelize.define('Message', {}, { tableName: 'messages', timestamps: false })
for (const [parent, child] of [[Customer, Order], [Ticket, Message]]) {
  child.belongsTo(parent, { foreignKey: { name: 'parentId', allowNull: false }, onDelete: 'CASCADE' })
}

// The view of the live rows, for DELETE. Not made by sync().
const ActiveCustomer = () => sequelize.define('ActiveCustomer', versioned, { tableName: 'active_customers', version: true })

// One transaction of this user.
function acting (user, work) {
  return sequelize.transaction(async transaction => {
    await sequelize.query("SELECT set_config('app.user_id', $1, true)", { bind: [user], transaction })
    return work(transaction)
  })
}

const rows = (sql, bind, transaction) => sequelize.query(sql, { bind, transaction, type: QueryTypes.SELECT })

const history = async (table, key) =>
  (await rows('SELECT action, actor FROM rowkeeper.audit_history($1, $2)', [table, key])).map(row => [row.action, row.actor])

function add (parent, name, child, children = 0) {
  return acting('ann', async transaction => {
    const row = await parent.create({ name }, { transaction })
    for (let i = 0; i < children; i++) await child.create({ parentId: row.id }, { transaction })
    return row
  })
}

const restore = (table, key) => acting('eve', transaction =>
  rows('SELECT * FROM rowkeeper.soft_delete_restore($1, $2)', [table, key], transaction))

await story(async function migrations () {
  await sequelize.sync()
  await sequelize.query(calls)
  const before = await rows('SELECT catalog_state()')
  await sequelize.query(calls)
  same(await rows('SELECT catalog_state()'), before, 'the calls run again: nothing is touched')
  same((await rows('SELECT DISTINCT feature FROM rowkeeper.features ORDER BY 1')).map(row => row.feature),
    ['audit', 'soft_delete', 'stamp'], 'and the features are on')
})

await story(async function stamps () {
  const ann = await add(Customer, 'Ann')
  same(ann.version, 0, 'insert: the object has version 0')
  same((await Customer.findByPk(ann.id)).version, 0, 'so has the row')
  const insertedAt = (await ann.reload()).updatedAt

  ann.name = 'Ann B.'
  await ann.save()
  same(ann.version, 1, 'save(): the object has version 1')
  same((await Customer.findByPk(ann.id)).version, 1, 'so has the row, bumped once')
  await ann.reload()
  ok(ann.updatedAt > insertedAt, 'updatedAt went on')

  const [mine, theirs] = [await Customer.findByPk(ann.id), await Customer.findByPk(ann.id)]
  await theirs.update({ name: 'Bob' })
  await raises(e => e instanceof OptimisticLockError, 'stale save(): OptimisticLockError', () => mine.update({ name: 'Carol' }))
  await ann.reload()
  same([ann.name, ann.version], ['Bob', 2], 'stale save(): nothing written')

  const error = await raises(e => e instanceof DatabaseError, "a version sent without a look, stale => 'error': DatabaseError",
    () => sequelize.query('UPDATE customers SET name = $1, version = $2 WHERE id = $3', { bind: ['Dora', 2, ann.id] }))
  same(error?.original.code, '40001', 'is 40001')
  const ticket = await add(Ticket, 'printer')
  const blind = version => sequelize.query('UPDATE tickets SET name = $1, version = $2 WHERE id = $3',
    { bind: ['blind', version, ticket.id], type: QueryTypes.UPDATE })
  same((await blind(0))[1], 0, "with stale => 'skip': 0 rows")
  same((await blind(1))[1], 1, 'with the next version: 1 row')
  await raises(e => e instanceof OptimisticLockError, "stale save(), stale => 'skip': OptimisticLockError", () => ticket.update({ name: 'disk' }))
})

await story(async function flag () {
  const ann = await add(Customer, 'Ann', Order, 2)
  const liveOrders = id => Order.count({ where: { parentId: id } })

  await acting('ann', transaction => ann.destroy({ transaction }))
  same(await Customer.findByPk(ann.id), null, 'destroy(): Sequelize finds it no more')
  same(await liveOrders(ann.id), 0, 'its orders are deleted with it')
  const deleted = await Customer.findByPk(ann.id, { paranoid: false })
  same(deleted.version, 1, 'its version counts the delete, once')
  same(ann.version, 1, 'and the object has it')

  same((await restore('customers', ann.id)).map(row => row.table_name).sort(), ['customers', 'orders', 'orders'],
    'restored: the row and its two orders')
  same(await liveOrders(ann.id), 2, 'Sequelize finds them again')
  same(await history('customers', ann.id), [['INSERT', 'ann'], ['SOFT DELETE', 'ann'], ['RESTORE', 'eve']], 'audit: what, and by whom')

  same(await acting('eve', transaction => Customer.destroy({ where: { id: ann.id }, transaction })), 1, 'Model.destroy(): 1 row')
  same((await history('customers', ann.id)).at(-1), ['SOFT DELETE', 'eve'], 'audit: a soft delete')
  const again = await Customer.findByPk(ann.id, { paranoid: false })
  await acting('ann', transaction => again.restore({ transaction }))
  same((await history('customers', ann.id)).at(-1), ['RESTORE', 'ann'], 'restore(): audit: a restore')
  same((await Customer.findByPk(ann.id)).name, 'Ann', 'Sequelize finds it again')

  const mine = await Customer.findByPk(ann.id)
  await (await Customer.findByPk(ann.id)).update({ name: 'Ann C.' })
  await raises(e => e instanceof OptimisticLockError, 'destroy() of a stale object: OptimisticLockError', () => mine.destroy())

  const Active = ActiveCustomer()
  same(await Active.destroy({ where: { id: ann.id } }), 1, 'destroy() through the view: 1 row')
  same(await Active.destroy({ where: { id: ann.id } }), 0, 'once more: 0 rows')
  const other = await add(Customer, 'other', Order, 1)
  same(await rows('DELETE FROM active_customers WHERE id = $1 RETURNING id, name', [other.id]), [{ id: other.id, name: 'other' }],
    'RETURNING has the row')
  same(await liveOrders(other.id), 0, 'its orders are deleted with it')

  await raises(e => e instanceof DatabaseError, 'destroy({ force: true }) on the table itself is refused',
    () => Customer.destroy({ where: { id: ann.id }, force: true }))
})

await story(async function trash () {
  const ticket = await add(Ticket, 'disk', Message, 2)
  const messages = () => Message.count({ where: { parentId: ticket.id } })
  same(await acting('ann', transaction => Ticket.destroy({ where: { id: ticket.id }, transaction })), 1, 'trash: destroy(): 1 row')
  same(await messages(), 0, 'trash: its messages went with it')
  same((await restore('tickets', ticket.id)).length, 3, 'trash: restored: the row and its two messages')
  const back = await Ticket.findByPk(ticket.id)
  same([back.name, back.version, await messages()], ['disk', 0, 2], 'trash: as they were')
  same(await history('tickets', ticket.id), [['INSERT', 'ann'], ['SOFT DELETE', 'ann'], ['RESTORE', 'eve']], 'trash: audit: what, and by whom')
  await back.destroy()
  same(await Ticket.findByPk(ticket.id), null, 'trash: destroy() of the object')
})

done()
await sequelize.close()
