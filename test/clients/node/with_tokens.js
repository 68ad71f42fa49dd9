// Tokens that an application makes with jsonwebtoken, by the line in the
// README. Connected by PGHOST and its like.
import jsonwebtoken from 'jsonwebtoken'
import pg from 'pg'
import { done, raises, same, story } from './tap.js'

const secret = 's'.repeat(32)
const client = new pg.Client()
await client.connect()

async function claims (token) {
  await client.query('BEGIN')
  try {
    await client.query('SELECT rowkeeper.tenant_set_signed($1)', [token])
    const { rows } = await client.query({
      text: 'SELECT rowkeeper.tenant_text(), rowkeeper.user_text(), (SELECT array_agg(item) FROM notes)',
      rowMode: 'array'
    })
    return rows[0]
  } finally {
    await client.query('ROLLBACK')
  }
}

function make (options) {
  return jsonwebtoken.sign({ tenant: '42', sub: 'alice' }, secret,
    { algorithm: 'HS256', keyid: '2026-11', audience: 'node_tokens', expiresIn: '5m', ...options })
}

await story(async function tokens () {
  same(await claims(make({})), ['42', 'alice', ['of 42']], 'jsonwebtoken: a token names tenant and user')
  const refused = error => error.code === '28000'
  await raises(refused, 'refused: another algorithm', () => claims(make({ algorithm: 'HS512' })))
  await raises(refused, 'refused: expired', () => claims(make({ expiresIn: -1 })))
  await raises(refused, 'refused: another database', () => claims(make({ audience: 'shop' })))
  await raises(refused, 'refused: a key that is not known', () => claims(make({ keyid: 'other' })))
})

await client.end()
done()
