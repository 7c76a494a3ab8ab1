/**
 * One WebSocket, cut and restored: several sessions share it. Must never believe that a connection is alive because
 * nobody said otherwise, and never come back at the same moment as everybody else.
 */
import { Asks } from './asks.js'
import type { CursorStore } from './cursor-store.js'
import { SidestreamError } from './error.js'
import type { Ack, Frame } from './frames.js'
import { Session, type SessionOptions } from './session.js'

/** The WebSocket subprotocol of this version. */
export const SUBPROTOCOL = 'sidestream.v1'

/** How long opening a connection may take, until its `welcome`. */
const OPENING_MS = 10_000
/** How soon an answer must come where the connection is doubted. */
const PROBE_MS = 5_000
/** A connection that has lasted so long, or brought something new, was a good one: the next wait is short again. */
const GOOD_MS = 5_000

/** As much of the `WebSocket` interface as is needed. */
export interface Socket {
  onopen: ((event: any) => void) | null
  onmessage: ((event: any) => void) | null
  onclose: ((event: any) => void) | null
  onerror: ((event: any) => void) | null
  send(text: string): void
  close(code?: number): void
}

/** A credential, or what fetches one: `expired` says that the last one is refused. */
export type Token = string | ((why: 'connect' | 'expired') => string | null | undefined | Promise<string | null | undefined>)

export interface ConnectionOptions {
  /** Sent as the first message (`auth`) of every connection. */
  token?: Token
  /** The name of this client, which others see (`[A-Za-z0-9._-]`, at most 128). */
  client?: string
  /** Where the sessions' cursors are kept. Default: nowhere; a session that is followed anew begins at its `after`. */
  store?: CursorStore
  /** What opens sockets. Default: the global `WebSocket` (browsers, Node from 22; for Node 20 pass that of `ws`). */
  WebSocket?: new (url: string, protocol: string) => Socket
}

/** `waiting`: for the next attempt. `failed`: for good; `error` says why. */
export type ConnectionState = 'connecting' | 'open' | 'waiting' | 'closed' | 'failed'

export class Connection {
  state: ConnectionState = 'connecting'
  /** Why it has failed. */
  error?: SidestreamError
  /** The id of the open connection, for support. */
  id?: string
  readonly url: string
  readonly store?: CursorStore

  #sessions = new Map<string, Session>()
  #asks = new Asks(message => this.state === 'open' && this.tell(message))
  #socket?: Socket
  #timer?: ReturnType<typeof setTimeout>
  #watch?: ReturnType<typeof setTimeout>
  #tries = 0
  #openedAt = 0
  #good = false
  #heardAt = 0
  #heard = 0
  #expired = false
  #limits = { heartbeat: 25_000, min: 250, max: 15_000, message: Infinity }
  #unhook: () => void

  /** @param whileUsed ends with its last session. */
  constructor(url: string | URL, private readonly options: ConnectionOptions = {}, private readonly whileUsed = false) {
    this.url = socketUrl(url, options.client)
    this.store = options.store
    this.#unhook = this.#hook()
    // What is attached and asked at once goes with the first connection.
    queueMicrotask(() => this.state === 'connecting' && this.#connect())
  }

  /** Attaches to a session on this socket; one that is attached already is given again, with the options that it has. */
  attach(id: string, options: SessionOptions = {}): Session {
    let session = this.#sessions.get(id)
    if (!session) {
      session = new Session(this, id, options)
      this.#sessions.set(id, session)
      if (this.error) session.fail(this.error)
      else if (this.state === 'open') session.connected()
    }
    return session
  }

  /** Sends a message and waits for its answer. `safe`: it may be repeated where nobody knows whether it arrived. */
  ask(message: Record<string, unknown>, safe: boolean): Promise<Ack> {
    if (this.state === 'closed' || this.error) return Promise.reject(this.error ?? closed())
    const size = new TextEncoder().encode(JSON.stringify(message)).length
    if (size + 32 > this.#limits.message) {
      return Promise.reject(new SidestreamError('too_large', `a message may have ${this.#limits.message} bytes; this one has ${size}`))
    }
    return this.#asks.ask(message, safe)
  }

  /** Sends at once, without an answer; `false` where no socket is open. */
  tell(message: Record<string, unknown>): boolean {
    if (!this.#socket) return false
    try {
      this.#socket.send(JSON.stringify(message))
      return true
    } catch {
      // Not open yet, or closing: its `onclose` follows.
      return false
    }
  }

  /** Asks for a new credential and renews the open connection's with it. */
  async renew(): Promise<void> {
    const token = await this.#token('expired')
    if (token) this.tell({ type: 'auth', ref: 'auth', token })
  }

  /** A session was closed. */
  forget(session: Session): void {
    if (this.#sessions.get(session.id) === session) this.#sessions.delete(session.id)
    if (this.whileUsed && !this.#sessions.size) this.close()
  }

  /** Something new came: the connection is a good one. */
  progress(): void {
    this.#good = true
  }

  /** Gives this socket up and opens another one, after a wait. */
  reconnect(after?: number): void {
    if (this.state === 'closed' || this.state === 'failed') return
    if (this.#good || (this.#openedAt && Date.now() - this.#openedAt > GOOD_MS)) this.#tries = 0
    const { min, max } = this.#limits
    // Full jitter: anywhere below a bound that doubles.
    const wait = after ?? Math.random() * Math.min(max, min * 2 ** this.#tries++)
    this.#hangUp('waiting')
    this.#timer = setTimeout(() => this.#connect(), wait)
  }

  /** Leaves. What runs goes on: a closed connection cancels nothing. */
  close(): void {
    if (this.state === 'closed' || this.state === 'failed') return
    this.#end('closed', closed())
    this.#each(session => session.close())
  }

  async #connect(): Promise<void> {
    clearTimeout(this.#timer)
    this.state = 'connecting'
    this.#each(session => session.connecting())
    this.#openedAt = 0
    this.#good = false
    const Opener = this.options.WebSocket ?? (globalThis.WebSocket as ConnectionOptions['WebSocket'])
    if (!Opener) return this.#fail('not_supported', 'there is no global WebSocket (Node before 22): pass one, e.g. that of the package ws')
    let token: string | null | undefined
    try {
      token = await this.#token(this.#expired ? 'expired' : 'connect')
    } catch {
      return this.reconnect()
    }
    if (this.state !== 'connecting') return
    if (this.options.token && !token) return this.#fail('expired', 'the token hook has no credential any more')
    let socket: Socket
    try {
      socket = this.#socket = new Opener(this.url, SUBPROTOCOL)
    } catch (error) {
      return this.#fail('bad_request', `${this.url}: ${error}`)
    }
    const current = (act: (event: any) => void) => (event: any) => void (this.#socket === socket && act(event))
    socket.onopen = current(() => void (token && this.tell({ type: 'auth', ref: 'auth', token })))
    socket.onmessage = current(({ data }) => this.#hear(data))
    socket.onclose = current(({ code }) => this.#lost(code))
    // A close follows.
    socket.onerror = () => {}
    this.#watchFor(OPENING_MS, () => this.reconnect())
  }

  #hear(data: unknown): void {
    this.#heardAt = Date.now()
    this.#heard++
    let frame: Frame
    try {
      frame = JSON.parse(data as string)
    } catch {
      return this.reconnect()
    }
    switch (frame.type) {
      case 'welcome':
        return this.#welcome(frame)
      case 'ping':
        return void this.tell({ type: 'pong' })
      case 'goaway':
        return this.reconnect(frame.reconnect_after_ms)
      case 'pong':
        return
      case 'error':
        if (frame.ref === 'auth') {
          // A server that knows no credentials wants none.
          if (frame.code !== 'unknown_type') this.#lost(4401)
          return
        }
    }
    if (frame.ref !== undefined && this.#asks.settle(frame)) return
    if (frame.session !== undefined) return this.#sessions.get(frame.session)?.hear(frame)
    if (frame.type === 'status') this.#each(session => session.hear(frame))
  }

  #welcome(frame: Frame): void {
    this.#limits = {
      heartbeat: frame.heartbeat_ms ?? this.#limits.heartbeat,
      min: frame.reconnect?.min_ms ?? this.#limits.min,
      max: frame.reconnect?.max_ms ?? this.#limits.max,
      message: frame.max_message_bytes ?? Infinity,
    }
    this.id = frame.connection
    this.state = 'open'
    this.#openedAt = Date.now()
    this.#expired = false
    this.#beat()
    this.#each(session => session.connected())
    this.#asks.connected()
  }

  #lost(code: number): void {
    if (code === 4401) {
      // Once more with another credential, if there is a hook; then with ever longer waits.
      if (typeof this.options.token !== 'function') return this.#fail('expired', 'the server refuses the credential')
      const again = this.#expired
      this.#expired = true
      return this.reconnect(again ? undefined : 0)
    }
    if (code === 1008) return this.#fail('forbidden', 'the server does not allow this connection')
    if (code === 1013) this.#tries = Math.max(this.#tries, 4)
    this.reconnect()
  }

  /** The server is heard every heartbeat; who was not heard for two is dead. */
  #beat(): void {
    const left = this.#heardAt + 2 * this.#limits.heartbeat - Date.now()
    if (left <= 0) this.reconnect()
    else this.#watchFor(left, () => this.#beat())
  }

  #watchFor(ms: number, act: () => void): void {
    clearTimeout(this.#watch)
    this.#watch = setTimeout(act, ms)
  }

  /** The network has changed, or the page is looked at again: now is the time to find out. */
  #probe(): void {
    if (this.state === 'waiting') {
      this.#tries = 0
      void this.#connect()
    } else if (this.state === 'open') {
      this.tell({ type: 'ping' })
      const heard = this.#heard
      this.#watchFor(PROBE_MS, () => (this.#heard > heard ? this.#beat() : this.reconnect()))
    }
  }

  #hook(): () => void {
    const { window, document } = globalThis as { window?: Window; document?: Document }
    const online = () => this.#probe()
    const visible = () => document?.visibilityState === 'visible' && this.#probe()
    window?.addEventListener?.('online', online)
    document?.addEventListener?.('visibilitychange', visible)
    return () => {
      window?.removeEventListener?.('online', online)
      document?.removeEventListener?.('visibilitychange', visible)
    }
  }

  async #token(why: 'connect' | 'expired'): Promise<string | null | undefined> {
    const { token } = this.options
    return typeof token === 'function' ? token(why) : token
  }

  #hangUp(state: ConnectionState): void {
    const socket = this.#socket
    this.#socket = undefined
    this.id = undefined
    this.state = state
    clearTimeout(this.#timer)
    clearTimeout(this.#watch)
    // Whatever it may still bring is not listened to.
    socket?.close()
    this.#asks.disconnected()
    this.#each(session => session.disconnected())
  }

  #fail(code: string, message: string): void {
    this.error = new SidestreamError(code, message)
    this.#end('failed', this.error)
    this.#each(session => session.fail(this.error!))
  }

  #end(state: 'closed' | 'failed', error: Error): void {
    this.#hangUp(state)
    this.#unhook()
    this.#asks.end(error)
  }

  #each(act: (session: Session) => void): void {
    for (const session of [...this.#sessions.values()]) act(session)
  }
}

const closed = () => new SidestreamError('closed', 'the connection was closed by this client')

function socketUrl(url: string | URL, client?: string): string {
  const base = (globalThis as { location?: Location }).location?.href
  const parsed = new URL(url, base)
  parsed.protocol = parsed.protocol.replace(/^http/, 'ws')
  parsed.hash = ''
  if (client) parsed.searchParams.set('client', client)
  return parsed.href
}
