import assert from 'node:assert/strict'
import { test } from 'node:test'
import { durable } from 'sidestream-client'
import { until } from './scripted.mjs'
import { staged, streaming } from './stage.mjs'

const events = Array.from({ length: 400 }, (_, i) => `data: {"n":${i + 1},"text":"${'x'.repeat(i % 50)}"}\n\n`)
const post = (body = '{}', more = {}) => ({ method: 'POST', body, headers: { 'content-type': 'application/json' }, ...more })

/** What an SSE or line reader makes of it. */
const dispatched = text => text.split(/\r?\n\r?\n/).map(block => block.split(/\r?\n/).filter(line => line.startsWith('data')).join('\n')).filter(Boolean)

test('a body gives the same through 20 cuts as through none', staged(async stage => {
  const backend = await stage.backend(streaming(events, { pauseMs: 1 }))
  const sidecar = await stage.sidecar(backend.url)
  const line = await stage.line(sidecar.url)
  // Each connection carries a little more than the one before, for what was given is replayed and left out.
  line.limit = n => (n <= 20 ? 900 + n * 700 : Infinity)
  const resumed = []
  const response = await durable({ onResume: told => resumed.push(told.events) })(`${line.url}/chat`, post())
  assert.equal(response.url, `${line.url}/chat`)
  assert.equal(await response.text(), events.join(''))
  assert.ok(line.cuts >= 20, `${line.cuts} cuts`)
  assert.ok(resumed.length >= 10)
  assert.equal(backend.asked.length, 1)
}))

test('whatever the upstream writes between events, the events are the same', staged(async stage => {
  const odd = events.slice(0, 120).flatMap((event, i) => [[': comment\n\n', 'id: 5\r\n\r\n', ': lone\n', 'retry: 3\n\n'][i % 4], i % 3 ? event : event.replaceAll('\n', '\r\n')])
  const backend = await stage.backend(streaming(odd, { pauseMs: 1 }))
  const sidecar = await stage.sidecar(backend.url)
  const line = await stage.line(sidecar.url)
  line.limit = n => (n <= 8 ? 500 + n * 500 : Infinity)
  const response = await durable()(`${line.url}/chat`, post())
  assert.deepEqual(dispatched(await response.text()), dispatched(odd.join('')))
  assert.ok(line.cuts >= 8)
}))

test('lines are resumed as lines', staged(async stage => {
  const lines = Array.from({ length: 200 }, (_, i) => `{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"${i} "},"done":${i === 199}}\n`)
  const backend = await stage.backend(streaming(lines, { pauseMs: 1, type: 'application/x-ndjson' }))
  const { writeFile } = await import('node:fs/promises')
  const config = `${(await import('node:os')).tmpdir()}/sidestream-client-${process.pid}.toml`
  await writeFile(config, '[[route]]\nmatch = "POST /chat"\ndialect = "ollama"\n')
  stage.later(() => import('node:fs/promises').then(fs => fs.rm(config)))
  const sidecar = await stage.sidecar(backend.url, { args: ['--config', config] })
  const line = await stage.line(sidecar.url)
  line.limit = n => (n <= 6 ? 900 + n * 2000 : Infinity)
  const response = await durable()(`${line.url}/chat`, post())
  assert.ok(response.headers.get('sidestream-run'))
  assert.equal(await response.text(), lines.join(''))
  assert.ok(line.cuts >= 6)
}))

test('what is not recorded passes through as it is', staged(async stage => {
  const backend = await stage.backend((_, response) => response.writeHead(418, { 'content-type': 'application/json' }).end('{"a":1}'))
  const sidecar = await stage.sidecar(backend.url)
  const response = await durable()(`${sidecar.url}/x`, post())
  assert.equal(response.status, 418)
  assert.deepEqual(await response.json(), { a: 1 })
}))

test('an abort ends the run: the upstream is closed, and the body fails with the reason', staged(async stage => {
  const backend = await stage.backend(streaming(function* () { for (;;) yield 'data: 1\n\n' }, { pauseMs: 5 }))
  const sidecar = await stage.sidecar(backend.url)
  const cancelled = []
  const abort = new AbortController()
  const response = await durable({ onCancel: told => cancelled.push(told) })(`${sidecar.url}/chat`, post('{}', { signal: abort.signal }))
  const reader = response.body.getReader()
  await reader.read()
  abort.abort()
  await assert.rejects(async () => { for (;;) await reader.read() }, { name: 'AbortError' })
  await until(() => backend.asked[0].closed)
  await until(() => cancelled.length)
  assert.equal(cancelled[0].outcome, 'cancelled')
  const run = response.headers.get('sidestream-run')
  assert.equal((await (await fetch(`${sidecar.url}/_sidestream/v1/runs/${run}`)).json()).state, 'cancelled')
}))

test('an abort before the answer begins ends the run, too', staged(async stage => {
  let answer
  const backend = await stage.backend((_, response) => { answer = response })
  const sidecar = await stage.sidecar(backend.url)
  const cancelled = []
  const abort = new AbortController()
  const asked = durable({ onCancel: told => cancelled.push(told) })(`${sidecar.url}/chat`, post('{}', { signal: abort.signal }))
  await until(() => answer)
  abort.abort()
  await assert.rejects(asked, { name: 'AbortError' })
  answer.writeHead(200, { 'content-type': 'text/event-stream' })
  answer.write('data: 1\n\n')
  await until(() => cancelled.length)
  assert.equal(cancelled[0].outcome, 'cancelled')
  await until(() => backend.asked[0].closed)
}))

test('who stops reading has only left: the run goes on', staged(async stage => {
  const backend = await stage.backend(streaming(events.slice(0, 100), { pauseMs: 3 }))
  const sidecar = await stage.sidecar(backend.url)
  const response = await durable()(`${sidecar.url}/chat`, post())
  const reader = response.body.getReader()
  await reader.read()
  await reader.cancel()
  const run = response.headers.get('sidestream-run')
  await until(async () => (await (await fetch(`${sidecar.url}/_sidestream/v1/runs/${run}`)).json()).state === 'completed')
}))

test('a run that fails is not taken for whole, and is not asked for without end', staged(async stage => {
  const backend = await stage.backend(async (_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const event of events.slice(0, 10)) response.write(event)
    await new Promise(resolve => setTimeout(resolve, 30))
    response.destroy()
  })
  const sidecar = await stage.sidecar(backend.url)
  const response = await durable()(`${sidecar.url}/chat`, post())
  const read = []
  await assert.rejects(async () => { for await (const chunk of response.body) read.push(Buffer.from(chunk)) }, { name: 'SidestreamError', code: 'failed' })
  assert.equal(Buffer.concat(read).toString(), events.slice(0, 10).join(''))
}))

test('a server that is gone for a while is waited for; a run that it has lost is an error', staged(async stage => {
  const backend = await stage.backend(streaming(events, { pauseMs: 5 }))
  const sidecar = await stage.sidecar(backend.url)
  const response = await durable()(`${sidecar.url}/chat`, post())
  const reader = response.body.getReader()
  await reader.read()
  await sidecar.kill()
  await sidecar.again()
  await assert.rejects(async () => { for (;;) await reader.read() }, { name: 'SidestreamError', code: 'not_found' })
}))

test('a line that is dead without a word is left for another one', staged(async stage => {
  const backend = await stage.backend(streaming(events.slice(0, 200), { pauseMs: 2 }))
  const sidecar = await stage.sidecar(backend.url)
  const real = fetch
  let direct = true
  const stuck = async (...args) => {
    const response = await real(...args)
    if (!direct) return response
    direct = false
    const reader = response.body.getReader()
    let chunks = 0
    return new Response(new ReadableStream({ pull: async c => (chunks++ < 5 ? c.enqueue((await reader.read()).value) : new Promise(() => {})) }), response)
  }
  const response = await durable({ fetch: async (...args) => Object.defineProperty(await stuck(...args), 'url', { value: String(args[0]) }), idleMs: 60 })(`${sidecar.url}/chat`, post())
  assert.equal(await response.text(), events.slice(0, 200).join(''))
}))

test('a request with a key is repeated when the line breaks before the answer', staged(async stage => {
  let answer
  const backend = await stage.backend((_, response) => { answer = response })
  const sidecar = await stage.sidecar(backend.url)
  const line = await stage.line(sidecar.url)
  const asked = durable()(`${line.url}/chat`, post('{}', { headers: { 'idempotency-key': 'k1', 'content-type': 'application/json' } }))
  await until(() => answer)
  line.cut()
  answer.writeHead(200, { 'content-type': 'text/event-stream' })
  answer.end(events.join(''))
  assert.equal(await (await asked).text(), events.join(''))
  assert.equal(backend.asked.length, 1)
}))
