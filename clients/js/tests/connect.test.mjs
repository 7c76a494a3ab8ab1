import assert from 'node:assert/strict'
import { test } from 'node:test'
import WebSocket from 'ws'
import { connect, Connection, memory } from 'sidestream-client/connect'
import { logOf, scripted, until } from './scripted.mjs'

const offsets = entries => entries.map(entry => entry.offset)

/** Follows `s` of the server, and keeps what it was told. */
function follow(server, options = {}) {
  const session = connect(server.url, { session: 's', WebSocket, ...options })
  const told = { entries: [], gaps: [], broken: [], states: [] }
  session.on('entry', entry => told.entries.push(entry))
  session.on('gap', gap => told.gaps.push(gap))
  session.on('broken', broken => told.broken.push(broken))
  session.on('state', state => told.states.push(state))
  return { session, told }
}

/** Ends what a test has begun, whatever came of it. */
const with_ = async (server, act) => {
  const opened = []
  try {
    await act((options) => {
      const followed = follow(server, options)
      opened.push(followed.session)
      return followed
    })
  } finally {
    for (const session of opened) session.connection.close()
    await server.close()
  }
}

test('a connection that is cut again and again gives every entry once, in order', async () => {
  const log = logOf(200)
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') return
    log.attached(message, socket)
    for (const entry of log.after(message.after).slice(0, 7)) socket.say(entry)
    if (log.after(message.after).length > 7) socket.terminate()
    else socket.say({ type: 'live', session: 's', offset: log.offset(200) })
  })
  await with_(server, async follow => {
    const { session, told } = follow()
    await until(() => session.state === 'live')
    assert.deepEqual(offsets(told.entries), offsets(log.entries))
    assert.deepEqual(told.broken, [])
    assert.ok(server.connections >= 28)
  })
})

test('a frame that breaks contiguity is not handed on: the client says so and comes back at its own cursor', async () => {
  const log = logOf(6)
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') return
    log.attached(message, socket)
    const skip = socket.number === 1 ? 3 : 0
    for (const entry of log.after(message.after)) if (!skip || entry !== log.entries[skip]) socket.say(entry)
    socket.say({ type: 'live', session: 's', offset: log.offset(6) })
  })
  await with_(server, async follow => {
    const { session, told } = follow()
    await until(() => session.state === 'live')
    assert.deepEqual(offsets(told.entries), offsets(log.entries))
    assert.equal(told.broken.length, 1)
    assert.equal(told.broken[0].after, log.offset(3))
    assert.equal(told.broken[0].frame.offset, log.offset(5))
    assert.equal(server.heard.filter(message => message.type === 'attach')[1].after, log.offset(3))
  })
})

test('a history that ends before its end is noticed', async () => {
  const log = logOf(3)
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') return
    log.attached(message, socket)
    for (const entry of log.after(message.after).slice(0, socket.number === 1 ? 2 : 3)) socket.say(entry)
    socket.say({ type: 'live', session: 's', offset: log.offset(3) })
  })
  await with_(server, async follow => {
    const { session, told } = follow()
    await until(() => session.state === 'live')
    assert.equal(told.broken.length, 1)
    assert.deepEqual(offsets(told.entries), offsets(log.entries))
  })
})

test('unknown types of frames are ignored, pings are answered', async () => {
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') return
    logOf(0).attached(message, socket, { tail: '0-0' })
    socket.say({ type: 'weather', session: 's', offset: '9-9' })
    socket.say({ type: 'weather' })
    socket.say({ type: 'ping' })
    socket.say({ type: 'live', session: 's', offset: '0-0' })
  })
  await with_(server, async follow => {
    const { session, told } = follow()
    await until(() => server.heard.some(message => message.type === 'pong'))
    await until(() => session.state === 'live')
    assert.deepEqual(told.entries, [])
    assert.equal(server.connections, 1)
  })
})

test('gaps are told exactly, and reading goes on behind them', async () => {
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') return
    logOf(0).attached(message, socket)
    socket.say({ type: 'gap', session: 's', from: '0-0', to: '5-5', lost: 5, reason: 'trimmed' })
    for (const n of [6, 7, 8]) socket.say({ type: 'event', session: 's', offset: `5-${n}` })
    socket.say({ type: 'gap', session: 's', from: '5-8', to: '5-6', lost: 2, reason: 'rolled_back' })
    socket.say({ type: 'event', session: 's', offset: '9-7' })
    socket.say({ type: 'live', session: 's', offset: '9-7' })
  })
  await with_(server, async follow => {
    const { session, told } = follow()
    await until(() => session.state === 'live')
    assert.deepEqual(told.gaps.map(gap => [gap.reason, gap.to, gap.lost]), [['trimmed', '5-5', 5], ['rolled_back', '5-6', 2]])
    assert.deepEqual(offsets(told.entries), ['5-6', '5-7', '5-8', '9-7'])
    assert.deepEqual(told.broken, [])
  })
})

test('what was asked while the connection broke: with a key it is repeated, without one it is rejected', async () => {
  const server = await scripted((message, socket) => {
    if (message.type === 'attach') return logOf(0).attached(message, socket)
    if (socket.number === 1) return server.heard.filter(one => one.ref).length >= 4 && socket.terminate()
    socket.say({ type: 'ack', ref: message.ref, outcome: 'joined', run: 'r', key: message.key })
  })
  await with_(server, async follow => {
    const { session } = follow()
    await until(() => session.state === 'replaying')
    const [kept, lost, active] = await Promise.allSettled([session.send({ q: 1 }), session.send({ q: 2 }, { key: null }), session.cancel('active')])
    assert.equal(kept.value.outcome, 'joined')
    const sends = server.heard.filter(message => message.type === 'send' && message.key)
    assert.equal(sends.length, 2)
    assert.equal(sends[0].key, sends[1].key)
    assert.equal(lost.reason.code, 'disconnected')
    assert.match(lost.reason.message, /may have happened, or not/)
    assert.equal(active.reason.code, 'disconnected')
    assert.equal(server.heard.filter(message => message.type === 'cancel').length, 1)
  })
})

test('what is asked while there is no connection waits for the next one', async () => {
  const server = await scripted((message, socket) => {
    if (message.type === 'attach') return logOf(0).attached(message, socket)
    socket.say({ type: 'ack', ref: message.ref, offset: '1-1' })
  })
  await with_(server, async follow => {
    const { session } = follow()
    assert.equal((await session.publish({ a: 1 })).offset, '1-1')
    server.sockets[0].terminate()
    await new Promise(resolve => session.on('state', state => state === 'waiting' && resolve()))
    assert.equal((await session.publish({ a: 2 })).offset, '1-1')
    assert.equal((await session.presence('typing')).offset, '1-1')
    assert.equal(server.heard.filter(message => message.type === 'publish').length, 2)
  })
})

test('presence is said again after a reconnect', async () => {
  const server = await scripted((message, socket) => {
    if (message.type === 'attach') return logOf(0).attached(message, socket)
    socket.say({ type: 'ack', ref: message.ref })
  })
  await with_(server, async follow => {
    const { session } = follow()
    await session.presence({ typing: true })
    server.sockets[0].terminate()
    await until(() => server.heard.filter(message => message.type === 'presence').length === 2)
    assert.deepEqual(server.heard.filter(message => message.type === 'presence')[1].state, { typing: true })
  })
})

test('errors are rejections with their code', async () => {
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') socket.say({ type: 'error', ref: message.ref, code: 'busy', retryable: true, message: 'later' })
  })
  await with_(server, async follow => {
    const { session } = follow()
    await assert.rejects(session.send({}), { name: 'SidestreamError', code: 'busy', retryable: true, message: 'later' })
  })
})

test('more messages than may wait are refused, and so is one that is too long', async () => {
  const server = await scripted(() => {}, { welcome: { max_message_bytes: 1000 } })
  await with_(server, async follow => {
    const { session } = follow()
    await until(() => session.connection.state === 'open')
    await assert.rejects(session.send('x'.repeat(1000)), { code: 'too_large' })
    const asked = Array.from({ length: 48 }, () => session.queue().catch(error => error.code))
    await assert.rejects(session.queue(), { code: 'too_many', retryable: true })
    session.connection.close()
    assert.deepEqual(new Set(await Promise.all(asked)), new Set(['closed']))
  })
})

test('several sessions share one socket', async () => {
  const log = logOf(5)
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') return
    log.attached(message, socket)
    for (const entry of log.after(message.after)) socket.say({ ...entry, session: message.session })
    socket.say({ type: 'live', session: message.session, offset: log.offset(5) })
  })
  const connection = new Connection(server.url, { WebSocket })
  const seen = { a: 0, b: 0 }
  const [a, b] = ['a', 'b'].map(id => connection.attach(id))
  a.on('entry', () => seen.a++)
  b.on('entry', () => seen.b++)
  await until(() => a.state === 'live' && b.state === 'live')
  assert.deepEqual(seen, { a: 5, b: 5 })
  a.close()
  await until(() => server.heard.some(message => message.type === 'detach' && message.session === 'a'))
  assert.equal(connection.state, 'open')
  assert.equal(server.connections, 1)
  connection.close()
  await server.close()
})

test('a cursor store begins where the application was', async () => {
  const log = logOf(5)
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') return
    log.attached(message, socket)
    for (const entry of log.after(message.after)) socket.say(entry)
    socket.say({ type: 'live', session: 's', offset: log.offset(5) })
  })
  const store = memory()
  await with_(server, async follow => {
    const first = follow({ store }).session
    await until(() => first.state === 'live')
    first.close()
    const { session, told } = follow({ store })
    await until(() => session.state === 'live')
    assert.deepEqual(told.entries, [])
    assert.equal(server.heard.filter(message => message.type === 'attach')[1].after, log.offset(5))
  })
})

test('a loop that is slower than the session makes it wait, and misses nothing', async () => {
  const log = logOf(5000)
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') return
    log.attached(message, socket)
    const send = (entries) => {
      for (const entry of entries.slice(0, 100)) socket.say(entry)
      if (entries.length > 100) setImmediate(() => send(entries.slice(100)))
      else socket.say({ type: 'live', session: 's', offset: log.offset(5000) })
    }
    send(log.after(message.after))
  })
  await with_(server, async follow => {
    const { session } = follow()
    const loop = session[Symbol.asyncIterator]()
    await until(() => server.heard.some(message => message.type === 'detach'))
    const read = []
    for await (const item of loop) {
      if (item.type === 'live') break
      read.push(item.offset)
    }
    assert.deepEqual(read, offsets(log.entries))
    assert.ok(server.heard.filter(message => message.type === 'attach').length > 1)
  })
})

test('the stored cursor is that of what the loop has done with', async () => {
  const log = logOf(10)
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') return
    log.attached(message, socket)
    for (const entry of log.after(message.after)) socket.say(entry)
  })
  const kept = []
  const store = { load: () => null, save: (_, offset) => kept.push(offset) }
  await with_(server, async follow => {
    const { session } = follow({ store })
    for await (const item of session) if (item.offset === log.offset(3)) break
    assert.equal(kept.at(-1), log.offset(3))
  })
})

test('goaway is followed at the moment that it names', async () => {
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') return
    logOf(0).attached(message, socket)
    socket.say({ type: 'live', session: 's', offset: '0-0' })
    if (socket.number === 1) socket.say({ type: 'goaway', reason: 'draining', reconnect_after_ms: 80 })
  })
  await with_(server, async follow => {
    const begun = Date.now()
    const { session } = follow()
    await until(() => server.connections === 2 && session.state === 'live')
    assert.ok(Date.now() - begun >= 79)
  })
})

test('a socket that is silent for two heartbeats is dead', async () => {
  const server = await scripted((message, socket) => message.type === 'attach' && logOf(0).attached(message, socket), { welcome: { heartbeat_ms: 30 } })
  await with_(server, async follow => {
    follow()
    await until(() => server.connections >= 3)
  })
})

test('a token is sent first, and never in the URL', async () => {
  const server = await scripted((message, socket) => {
    if (message.type === 'auth') socket.say({ type: 'error', ref: message.ref, code: 'unknown_type', message: 'none wanted' })
    if (message.type === 'attach') logOf(0).attached(message, socket)
  })
  await with_(server, async follow => {
    const { session } = follow({ token: 'secret' })
    await until(() => session.state === 'replaying')
    assert.deepEqual(server.heard.map(message => message.type), ['auth', 'attach'])
    assert.equal(server.heard[0].token, 'secret')
    assert.ok(!session.connection.url.includes('secret'))
  })
})

test('an expired token is asked for anew where there is a hook', async () => {
  const server = await scripted((message, socket) => {
    if (message.type === 'auth' && message.token === 'old') socket.close(4401)
    else if (message.type === 'attach') logOf(0).attached(message, socket)
  })
  await with_(server, async follow => {
    const asked = []
    const { session } = follow({ token: why => (asked.push(why), why === 'expired' ? 'new' : 'old') })
    await until(() => session.state === 'replaying' && server.heard.at(-1).type === 'attach' && server.heard.some(message => message.token === 'new'))
    assert.deepEqual(asked, ['connect', 'expired'])
  })
})

test('an expired token without a hook fails, says why, and does not come back', async () => {
  const server = await scripted((message, socket) => message.type === 'auth' && socket.close(4401))
  await with_(server, async follow => {
    const { session } = follow({ token: 'old' })
    const asked = session.send({}).catch(error => error)
    await until(() => session.state === 'failed')
    assert.equal(session.error.code, 'expired')
    assert.equal((await asked).code, 'expired')
    await assert.rejects((async () => { for await (const _ of session); })(), { code: 'expired' })
    assert.equal(server.connections, 1)
  })
})

test('a session that does not exist is an error where it must not be made', async () => {
  const server = await scripted((message, socket) =>
    socket.say({ type: 'error', ref: message.ref, session: message.session, code: 'not_found', retryable: false, message: 'there is no such session' }))
  await with_(server, async follow => {
    const { session } = follow({ create: false })
    await until(() => session.state === 'failed')
    assert.equal(session.error.code, 'not_found')
    assert.equal(server.heard[0].create, false)
  })
})

test('waits grow, with full jitter, while nobody answers', async () => {
  const waits = []
  class Dead {
    constructor() {
      queueMicrotask(() => this.onclose({ code: 1006 }))
    }
    send() {}
    close() {}
  }
  const { random } = Math
  const { setTimeout } = globalThis
  Math.random = () => 0.5
  globalThis.setTimeout = (act, ms) => {
    // Not the limit for opening a connection.
    if (ms !== 10_000) waits.push(ms)
    return setTimeout(act, 0)
  }
  const session = connect('ws://127.0.0.1:1/', { session: 's', WebSocket: Dead })
  try {
    while (waits.length < 9) await new Promise(setImmediate)
  } finally {
    Object.assign(globalThis, { setTimeout })
    Math.random = random
    session.close()
  }
  assert.deepEqual(waits.slice(0, 9), [125, 250, 500, 1000, 2000, 4000, 7500, 7500, 7500])
  assert.equal(session.connection.state, 'closed')
})

test('the network coming back ends the wait at once', async () => {
  const listeners = {}
  globalThis.window = { addEventListener: (name, act) => (listeners[name] = act), removeEventListener: name => delete listeners[name] }
  let up = false
  const server = await scripted((message, socket) => message.type === 'attach' && logOf(0).attached(message, socket), { welcome: { reconnect: { min_ms: 1e6, max_ms: 1e6 } } })
  class Flaky extends WebSocket {
    constructor(url, protocol) {
      super(up ? url : 'ws://127.0.0.1:1/', protocol)
    }
  }
  try {
    await with_(server, async follow => {
      up = true
      const { session } = follow({ WebSocket: Flaky })
      await until(() => session.state === 'replaying')
      server.sockets[0].terminate()
      await until(() => session.state === 'waiting')
      listeners.online()
      await until(() => session.state === 'replaying')
      assert.equal(server.connections, 2)
    })
    assert.deepEqual(listeners, {})
  } finally {
    delete globalThis.window
  }
})

test('a session that is followed anew begins where it is told to, not where another one was', async () => {
  const log = logOf(4)
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') return
    log.attached(message, socket)
    for (const entry of log.after(message.after)) socket.say(entry)
    socket.say({ type: 'live', session: 's', offset: log.offset(4) })
  })
  const connection = new Connection(server.url, { WebSocket })
  const first = connection.attach('s')
  await until(() => first.state === 'live')
  first.close()
  const second = connection.attach('s', { after: log.offset(2) })
  const read = []
  for await (const item of second) {
    if (item.type === 'live') break
    read.push(item.offset)
  }
  assert.deepEqual(read, [log.offset(3), log.offset(4)])
  connection.close()
  await server.close()
})

test('without a WebSocket to open it fails, and says what to do', async () => {
  const { WebSocket: own } = globalThis
  delete globalThis.WebSocket
  try {
    const session = connect('ws://127.0.0.1:1/', { session: 's' })
    await until(() => session.state === 'failed')
    assert.equal(session.error.code, 'not_supported')
    assert.match(session.error.message, /package ws/)
  } finally {
    if (own) globalThis.WebSocket = own
  }
})

test('a fault in a callback is reported, and the session goes on', async () => {
  const log = logOf(5)
  const server = await scripted((message, socket) => {
    if (message.type !== 'attach') return
    log.attached(message, socket)
    for (const entry of log.after(message.after)) socket.say(entry)
    socket.say({ type: 'live', session: 's', offset: log.offset(5) })
  })
  const faults = []
  const { queueMicrotask } = globalThis
  globalThis.queueMicrotask = act => queueMicrotask(() => {
    try {
      act()
    } catch (fault) {
      faults.push(fault.message)
    }
  })
  try {
    await with_(server, async follow => {
      const { session, told } = follow()
      session.on('entry', entry => {
        if (entry.offset === log.offset(2)) throw new Error('mine')
      })
      await until(() => session.state === 'live')
      assert.equal(told.entries.length, 5)
      assert.deepEqual(faults, ['mine'])
    })
  } finally {
    globalThis.queueMicrotask = queueMicrotask
  }
})
