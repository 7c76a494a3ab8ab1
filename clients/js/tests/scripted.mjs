// A WebSocket server that says what a test tells it to.
import { once } from 'node:events'
import { WebSocketServer } from 'ws'

/** `answer(message, socket, server)` is called for every message of a client; `heard` keeps them all. */
export async function scripted(answer = () => {}, { welcome = {} } = {}) {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  const self = {
    url: `ws://127.0.0.1:${server.address().port}/chat`,
    heard: [],
    sockets: [],
    connections: 0,
    close: () => {
      for (const socket of server.clients) socket.terminate()
      return new Promise(resolve => server.close(resolve))
    },
  }
  server.on('connection', socket => {
    self.connections++
    self.sockets.push(socket)
    socket.number = self.connections
    socket.say = frame => socket.send(JSON.stringify(frame))
    socket.say({ type: 'welcome', connection: `c${self.connections}`, heartbeat_ms: 25000, max_message_bytes: 1 << 20, reconnect: { min_ms: 5, max_ms: 40 }, ...welcome })
    socket.on('message', text => {
      const message = JSON.parse(text)
      self.heard.push(message)
      answer(message, socket, self)
    })
  })
  return self
}

/** A log of `count` entries that is served as the protocol says, from any cursor. */
export function logOf(count, of = n => ({ type: 'event', run: 'r', json: { n } })) {
  const offset = n => `${1000 + n}-${n}`
  const entries = Array.from({ length: count }, (_, i) => ({ session: 's', offset: offset(i + 1), ...of(i + 1) }))
  const attached = (message, socket, more = {}) =>
    socket.say({ type: 'attached', ref: message.ref, session: message.session, offset: message.after === 'start' ? '0-0' : message.after, tail: offset(count), runs: [], present: [], replaying: true, ...more })
  return { offset, entries, attached, after: cursor => entries.slice(cursor === 'start' ? 0 : Number(cursor.split('-')[1])) }
}

/** Waits for a condition, never for a time. */
export async function until(condition, what = condition.toString()) {
  for (let i = 0; i < 2000; i++) {
    const value = await condition()
    if (value) return value
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  throw new Error(`waited in vain for: ${what}`)
}
