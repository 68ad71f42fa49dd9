// node-pg and knex, and the migrations of knex and of node-pg-migrate.
//
// customers are read and deleted by the view of the live rows (flag), tickets
// by the table itself (trash). Connected by PGHOST and its like.
import knex from 'knex'
import migrate from 'node-pg-migrate'
import pg from 'pg'
import { fileURLToPath } from 'node:url'
import { done, ok, raises, same, story } from './tap.js'

const folder = name => fileURLToPath(new URL(name, import.meta.url))
const database = knex({
  client: 'pg',
  connection: { host: process.env.PGHOST, user: process.env.PGUSER, database: process.env.PGDATABASE },
  migrations: { directory: folder('knex') }
})
const client = new pg.Client()
await client.connect()

// One transaction of this user.
function acting (user, work) {
  return database.transaction(async trx => {
    await trx.raw("SELECT set_config('app.user_id', ?, true)", [user])
    return work(trx)
  })
}

async function rows (sql, parameters) {
  return (await client.query({ text: sql, values: parameters, rowMode: 'array' })).rows
}

function history (table, key) {
  return rows('SELECT action, actor FROM rowkeeper.audit_history($1, $2)', [table, key])
}

async function add (parent, name, child, children) {
  return acting('ann', async trx => {
    const [row] = await trx(parent).insert({ name }).returning('*')
    for (let i = 0; i < children; i++) await trx(child).insert({ parent_id: row.id })
    return row
  })
}

await story(async function migrations () {
  await database.migrate.latest()
  const before = await rows('SELECT catalog_state()')
  await database.migrate.down({ name: '2_rowkeeper.js' })
  await database.migrate.latest()
  same(await rows('SELECT catalog_state()'), before, 'knex: run again, it has touched nothing')
  same(await rows('SELECT DISTINCT feature FROM rowkeeper.features ORDER BY 1'),
    [['audit'], ['soft_delete'], ['stamp']], 'and the features are on')

  const options = { dbClient: client, dir: folder('node-pg-migrate'), migrationsTable: 'pgmigrations', logger: { ...console, info () {} } }
  await client.query('CREATE TABLE pgmigrations (id serial PRIMARY KEY, name varchar NOT NULL, run_on timestamp NOT NULL)')
  const withTable = await rows('SELECT catalog_state()')
  same((await migrate.default({ ...options, direction: 'up' })).length, 1, 'node-pg-migrate: the same calls run')
  same(await rows('SELECT catalog_state()'), withTable, 'and have touched nothing')
})

await story(async function stamps () {
  const ann = await add('active_customers', 'Ann')
  same(ann.version, 1, 'insert: version 1, by RETURNING')
  ok(ann.updated_at instanceof Date, 'insert: updated_at, by RETURNING')

  let changed = await database('active_customers').where({ id: ann.id }).update({ name: 'Ann B.' }).returning('*')
  same(changed.map(row => [row.name, row.version]), [['Ann B.', 2]], 'update: RETURNING has version 2')
  ok(changed[0].updated_at > ann.updated_at, 'and the new updated_at')
  changed = await database('active_customers').where({ id: ann.id }).update({ name: 'Bob', version: 2 }).returning('version')
  same(changed, [{ version: 3 }], 'the version that was read is sent: bumped once')

  const error = await raises(e => e instanceof pg.DatabaseError, "stale update, stale => 'error': node-pg's DatabaseError",
    () => database('active_customers').where({ id: ann.id }).update({ name: 'Carol', version: 2 }))
  same(error?.code, 'PT409', 'with the SQLSTATE asked for')
  same(await database('active_customers').where({ id: ann.id, version: 2 }).update({ name: 'Carol' }), 0,
    'WHERE has the old version: 0 rows')

  const ticket = await add('tickets', 'printer')
  same(await database('tickets').where({ id: ticket.id }).update({ name: 'scanner', version: 1 }), 1,
    "stale => 'skip': 1 row for the version that was read")
  same(await database('tickets').where({ id: ticket.id }).update({ name: 'disk', version: 1 }), 0,
    'and 0 rows for an old one')
  const skipped = await client.query('UPDATE tickets SET name = $1, version = $2 WHERE id = $3 RETURNING *', ['disk', 1, ticket.id])
  same([skipped.rowCount, skipped.rows], [0, []], 'node-pg: 0 rows, nothing returned')
  const again = await client.query(
    'INSERT INTO tickets (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name RETURNING name, version',
    [ticket.id, 'disk'])
  same([again.rowCount, again.rows], [1, [{ name: 'disk', version: 3 }]], 'node-pg: an upsert: 1 row, version bumped')
})

await story(async function flag () {
  const ann = await add('active_customers', 'Ann', 'active_orders', 2)
  const other = await add('active_customers', 'other', 'active_orders', 1)

  same(await acting('ann', trx => trx('active_customers').where({ id: ann.id }).del()), 1, 'del() through the view: 1 row')
  same(await database('active_customers').where({ id: ann.id }).del(), 0, 'once more: 0 rows')
  same(await rows('SELECT count(*)::int FROM active_orders WHERE parent_id = $1', [ann.id]), [[0]], 'its orders are deleted with it')
  same(await rows('SELECT count(*)::int FROM orders WHERE parent_id = $1', [ann.id]), [[2]], 'and still there')
  same(await rows('SELECT version FROM customers WHERE id = $1', [ann.id]), [[2]], 'its version counts the delete, once')

  const restored = await acting('eve', trx => trx.raw("SELECT * FROM rowkeeper.soft_delete_restore('customers', ?)", [ann.id]))
  same(restored.rows.map(row => row.table_name).sort(), ['customers', 'orders', 'orders'], 'restored: the row and its two orders')
  same(await history('customers', ann.id), [['INSERT', 'ann'], ['SOFT DELETE', 'ann'], ['RESTORE', 'eve']], 'audit: what, and by whom')

  const deleted = await database('active_customers').where({ id: ann.id }).del().returning(['id', 'name'])
  same(deleted, [{ id: ann.id, name: 'Ann' }], 'del().returning(): the row')
  const result = await client.query('DELETE FROM active_customers WHERE id = ANY ($1) RETURNING name', [[ann.id, other.id]])
  same([result.command, result.rowCount, result.rows], ['DELETE', 1, [{ name: 'other' }]], 'node-pg: DELETE 1, and the live one of two rows')
  await client.query("SELECT rowkeeper.soft_delete_restore('customers', $1)", [other.id])

  same(await acting('eve', trx => trx('customers').where({ id: other.id }).update({ deleted_at: trx.fn.now() })), 1,
    'deleted_at set by the application: 1 row')
  same(await rows('SELECT count(*)::int FROM active_orders WHERE parent_id = $1', [other.id]), [[0]], 'its orders are deleted with it')
  same((await history('customers', other.id)).at(-1), ['SOFT DELETE', 'eve'], 'audit: a soft delete all the same')
  await acting('ann', trx => trx('customers').where({ id: other.id }).update({ deleted_at: null }))
  same((await history('customers', other.id)).at(-1), ['RESTORE', 'ann'], 'deleted_at taken back: a restore')

  await raises(e => e instanceof pg.DatabaseError, 'del() on the table itself is refused', () => database('customers').del())
})

await story(async function trash () {
  const ticket = await add('tickets', 'disk', 'messages', 2)
  same(await acting('ann', trx => trx('tickets').where({ id: ticket.id }).del()), 1, 'trash: del(): 1 row')
  same(await rows('SELECT count(*)::int FROM messages WHERE parent_id = $1', [ticket.id]), [[0]], 'trash: its messages went with it')
  const restored = await acting('eve', trx => trx.raw("SELECT * FROM rowkeeper.soft_delete_restore('tickets', ?)", [ticket.id]))
  same(restored.rowCount, 3, 'trash: restored: the row and its two messages')
  same(await rows('SELECT count(*)::int FROM messages WHERE parent_id = $1', [ticket.id]), [[2]], 'trash: they are back')
  same(await history('tickets', ticket.id), [['INSERT', 'ann'], ['SOFT DELETE', 'ann'], ['RESTORE', 'eve']], 'trash: audit: what, and by whom')
  same(await database('tickets').where({ id: ticket.id }).del().returning('name'), [{ name: 'disk' }], 'trash: del().returning(): the row')
})

done()
await client.end()
await database.destroy()
