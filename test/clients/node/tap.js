// What the Node clients share: one line of TAP for each thing shown.
import { isDeepStrictEqual, inspect } from 'node:util'

let shown = 0

export function ok (condition, name) {
  console.log(`${condition ? 'ok' : 'not ok'} ${++shown} - ${name}`)
}

export function same (got, expected, name) {
  const good = isDeepStrictEqual(got, expected)
  ok(good, name)
  if (!good) comment(`expected ${inspect(expected)}\n     got ${inspect(got)}`)
}

// The call fails with the client's own error, which is returned.
export async function raises (matches, name, call) {
  try {
    await call()
  } catch (error) {
    ok(matches(error), name)
    if (!matches(error)) comment(error.stack)
    return error
  }
  ok(false, `${name} (nothing was raised)`)
}

// Run a story; one that dies is a failure, and the next ones are told.
export async function story (tell) {
  try {
    await tell()
  } catch (error) {
    ok(false, `${tell.name} went to its end`)
    comment(error.stack)
  }
}

export function done () {
  console.log(`1..${shown}`)
}

function comment (text) {
  console.log(String(text).replace(/^/gm, '# '))
}
