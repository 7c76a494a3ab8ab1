// `connect` against the real binary.
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { test } from 'node:test'
import WebSocket from 'ws'
import { applied, connect, Connection, seqOf, SidestreamError } from 'sidestream-client'
import { openai, words } from './answers.mjs'
import { until } from './scripted.mjs'
import { staged, streaming } from './stage.mjs'

/** Follows a session, and keeps what came. */
function follow(stage, url, options) {
  const session = connect(`${url}/chat`, { WebSocket, ...options })
  stage.later(() => session.connection.close())
  const told = { entries: [], gaps: [], broken: [], log: [] }
  session.on('entry', entry => told.entries.push(entry))
  session.on('gap', gap => told.gaps.push(gap))
  session.on('broken', broken => told.broken.push(broken))
  session.on('item', item => (told.log = applied(told.log, item)))
  const ended = run => told.entries.some(entry => entry.type === 'run' && entry.run === run && /completed|failed|cancelled|interrupted/.test(entry.state))
  return { session, told, ended }
}

const offsets = entries => entries.map(entry => entry.offset)
const text = entries => entries.filter(entry => entry.type === 'event').map(entry => entry.json?.choices?.[0]?.delta?.content ?? '').join('')

/** The log itself. */
async function logOf(url, session, after = 'start') {
  const answer = await fetch(`${url}/_sidestream/v1/sessions/${session}/events?limit=1000&after=${after}`, { headers: { accept: 'application/json' } })
  const { entries, next } = await answer.json()
  return next ? [...entries, ...(await logOf(url, session, next))] : entries
}

test('20 cuts during an answer: every entry once, in order', staged(async stage => {
  const said = words(1200)
  const backend = await stage.backend(streaming(openai(said), { pauseMs: 5 }))
  const sidecar = await stage.sidecar(backend.url)
  const line = await stage.line(sidecar.url)
  const { session, told, ended } = follow(stage, line.url, { session: 's' })
  const { run, outcome } = await session.send({ q: 1 })
  assert.equal(outcome, 'started')
  while (line.cuts < 20 && !ended(run)) {
    const seen = told.entries.length
    await until(() => (told.entries.length > seen + 2 && session.state === 'live') || ended(run))
    line.cut()
  }
  assert.equal(line.cuts, 20)
  await until(() => ended(run) && session.state === 'live')
  assert.deepEqual(offsets(told.entries), offsets(await logOf(sidecar.url, 's')))
  assert.deepEqual(told.entries.map(entry => seqOf(entry.offset)), told.entries.map((_, i) => i + 1))
  assert.equal(text(told.entries), said.join(''))
  assert.deepEqual([told.gaps, told.broken], [[], []])
  assert.equal(backend.asked.length, 1)
}))

test('merged histories and rolled-up live deltas, under cuts: the same text', staged(async stage => {
  const said = words(600)
  const backend = await stage.backend(streaming(openai(said), { pauseMs: 3 }))
  const sidecar = await stage.sidecar(backend.url)
  const line = await stage.line(sidecar.url)
  const { session, told, ended } = follow(stage, line.url, { session: 's', replay: 'compact', rollupMs: 40 })
  const { run } = await session.send({ q: 1 })
  while (line.cuts < 8 && !ended(run)) {
    const seen = told.entries.length
    await until(() => told.entries.length > seen || ended(run))
    line.cut()
  }
  assert.equal(line.cuts, 8)
  await until(() => ended(run))
  assert.equal(text(told.entries), said.join(''))
  assert.deepEqual([told.gaps, told.broken], [[], []])
  assert.ok(told.entries.length < 400, `${told.entries.length} records`)
}))

test('two agents at once, filtered and merged: each text whole', staged(async stage => {
  const said = words(500)
  const backend = await stage.backend(streaming(openai(said), { pauseMs: 3 }))
  const sidecar = await stage.sidecar(backend.url)
  const line = await stage.line(sidecar.url)
  const all = follow(stage, line.url, { session: 's', replay: 'compact', rollupMs: 50 })
  const [a, b] = await Promise.all(['a', 'b'].map(source => all.session.send({ source }, { onBusy: 'parallel', source })))
  const one = follow(stage, line.url, { session: 's', runs: [a.run], replay: 'compact', rollupMs: 50 })
  while (line.cuts < 5 && !all.ended(a.run)) {
    const seen = all.told.entries.length
    await until(() => all.told.entries.length > seen || all.ended(a.run))
    line.cut()
  }
  assert.equal(line.cuts, 5)
  await until(() => all.ended(a.run) && all.ended(b.run) && one.ended(a.run))
  const of = (told, run) => text(told.entries.filter(entry => entry.run === run))
  for (const { run } of [a, b]) assert.equal(of(all.told, run), said.join(''))
  assert.equal(of(one.told, a.run), said.join(''))
  assert.ok(one.told.entries.every(entry => entry.run === a.run))
  assert.deepEqual([all.told.broken, one.told.broken, all.told.gaps, one.told.gaps], [[], [], [], []])
}))

test('a sidecar that is killed and comes back with an empty store: what is gone is discarded, what follows is shown', staged(async stage => {
  const backend = await stage.backend(streaming(openai(words(50)), { pauseMs: 5 }))
  const sidecar = await stage.sidecar(backend.url)
  const { session, told, ended } = follow(stage, sidecar.url, { session: 's' })
  await session.send({ q: 1 })
  await until(() => told.entries.length > 10)
  await sidecar.kill()
  await sidecar.again()
  await until(() => told.gaps.length)
  assert.equal(told.gaps[0].reason, 'rolled_back')
  assert.equal(told.gaps[0].to, '0-0')
  await until(() => session.state === 'live')
  assert.deepEqual(told.log, [])
  const { run } = await session.send({ q: 2 })
  await until(() => ended(run))
  assert.deepEqual(offsets(told.log), offsets(await logOf(sidecar.url, 's')))
  assert.deepEqual(told.broken, [])
}))

test('a sidecar that is killed and keeps its store: the client goes on exactly where it was', staged(async stage => {
  const store = await mkdtemp(`${tmpdir()}/sidestream-client-`)
  stage.later(() => rm(store, { recursive: true }))
  const backend = await stage.backend(streaming(openai(words(2000)), { pauseMs: 5 }))
  const sidecar = await stage.sidecar(backend.url, { store: `file:${store}` })
  const { session, told, ended } = follow(stage, sidecar.url, { session: 's' })
  const { run } = await session.send({ q: 1 })
  await until(() => told.entries.length > 20)
  await sidecar.kill()
  await sidecar.again()
  await until(() => ended(run))
  assert.equal(told.entries.at(-1).state, 'interrupted')
  assert.deepEqual(offsets(told.entries), offsets(await logOf(sidecar.url, 's')))
  assert.deepEqual([told.gaps, told.broken], [[], []])
}))

test('a send whose acknowledgement is lost is repeated, and begins one run', staged(async stage => {
  const backend = await stage.backend(streaming(openai(words(20)), { pauseMs: 2 }))
  const sidecar = await stage.sidecar(backend.url)
  const line = await stage.line(sidecar.url)
  const { session } = follow(stage, line.url, { session: 's' })
  for (let i = 0; i < 10; i++) {
    await until(() => session.state === 'live')
    const asked = session.send({ i })
    setTimeout(() => line.cut(), i)
    assert.ok((await asked).run)
  }
  await until(async () => (await session.queue()).items.length === 0 && session.runs.size === 0)
  assert.equal(backend.asked.length, 10)
}))

test('cancel, queue, withdraw, publish, presence and read, between two devices', staged(async stage => {
  const backend = await stage.backend(streaming(function* () { for (;;) yield openai(['x'])[0] }, { pauseMs: 5 }))
  const sidecar = await stage.sidecar(backend.url)
  const one = follow(stage, sidecar.url, { session: 's', client: 'phone' })
  const two = follow(stage, sidecar.url, { session: 's', client: 'laptop' })
  await until(() => one.session.state === 'live' && two.session.state === 'live')
  const { run } = await one.session.send({ q: 1 })
  const waiting = await two.session.send({ q: 2 }, { key: 'second' })
  assert.equal(waiting.outcome, 'queued')
  assert.deepEqual((await one.session.queue()).items.map(item => item.key), ['second'])
  assert.equal((await one.session.cancel({ key: 'second' })).runs[0].outcome, 'withdrawn')
  const stopped = await two.session.cancel(run)
  assert.equal(stopped.outcome, 'cancelled')
  assert.equal(stopped.upstream, 'closed')
  await until(() => one.ended(run) && one.session.runs.size === 0)
  await one.session.presence({ typing: true })
  await until(() => two.session.present.some(who => who.client === 'phone' && who.state.typing))
  const heard = new Promise(resolve => two.session.on('said', resolve))
  await one.session.publish({ x: 1 }, { event: 'cursor', ephemeral: true })
  assert.deepEqual((await heard).json, { x: 1 })
  const { offset } = await one.session.publish({ kept: true }, { event: 'note' })
  await until(() => two.told.entries.some(entry => entry.offset === offset && entry.json.kept))
  assert.equal((await two.session.read(offset)).offset, offset)
  await assert.rejects(one.session.steer({ more: 1 }), error => error instanceof SidestreamError && error.code === 'conflict')
}))

test('a token does no harm where the server knows none', staged(async stage => {
  const backend = await stage.backend(streaming(openai(['x'])))
  const sidecar = await stage.sidecar(backend.url)
  const { session } = follow(stage, sidecar.url, { session: 's', token: 'anything' })
  await until(() => session.state === 'live')
}))

test('a loop reads a session that was there before, then what is live', staged(async stage => {
  const said = words(3000)
  const backend = await stage.backend(streaming([openai(said).join('')]))
  const sidecar = await stage.sidecar(backend.url)
  await (await fetch(`${sidecar.url}/chat`, { method: 'POST', body: '{}', headers: { 'sidestream-session': 's' } })).text()
  const connection = new Connection(`${sidecar.url}/chat`, { WebSocket })
  stage.later(() => connection.close())
  const read = []
  for await (const item of connection.attach('s')) {
    if (item.type === 'live') break
    read.push(item)
    // Slower than the network.
    if (read.length % 100 === 0) await new Promise(setImmediate)
  }
  assert.equal(text(read), said.join(''))
  assert.deepEqual(read.map(entry => seqOf(entry.offset)), read.map((_, i) => i + 1))
}))
