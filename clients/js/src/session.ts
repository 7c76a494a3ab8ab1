/**
 * One session as a client follows it: an exact slice of its log, in order, whatever the connection does. Must never
 * hand on an entry that does not follow the one before, and never move the cursor before the entry was handed on.
 */
import type { Connection } from './connection.js'
import { Place } from './contiguity.js'
import { SidestreamError } from './error.js'
import type { Ack, ActiveRun, Entry, Erased, Frame, Gap, Item, Live, Present } from './frames.js'
import { Inbox } from './inbox.js'
import { START, isOffset, seqOf } from './offset.js'

export interface SessionOptions {
  /** Where reading starts, where the cursor store has nothing: an offset, the start (default), the end … */
  after?: string | { last: number } | { sinceMs: number }
  /** `compact`: the deltas of the history come merged. */
  replay?: 'full' | 'compact'
  /** Live deltas that come within so many milliseconds (at most 500) come merged. */
  rollupMs?: number
  /** Only entries of these runs; of these sources. */
  runs?: string[]
  sources?: string[]
  /** `false`: a session that does not exist is an error. Default: it is followed from its first entry. */
  create?: boolean
}

/** `closed`: by this client, or because the session was erased. `failed`: for good; `error` says why. */
export type SessionState = 'connecting' | 'replaying' | 'live' | 'waiting' | 'closed' | 'failed'

/** What callbacks are told. `item` has everything that the iterator gives. */
export interface SessionEvents {
  item: Item
  entry: Entry
  gap: Gap
  live: Live
  erased: Erased
  state: SessionState
  /** A frame did not follow the one before: the connection is given up, and reading goes on from `after`. */
  broken: { after: string; frame: Frame }
  /** Who is here: all of them. */
  presence: Present[]
  /** A device of this user has read on. */
  read: { offset: string; client?: string }
  /** What waits has changed: ask with `queue()`. */
  queue: undefined
  /** Published to those who are here; not kept. */
  said: { source: string; event?: string; json: unknown }
  /** Trouble of the server's store, and its end (`ok`). */
  status: { code: string; retryable?: boolean }
}

export interface SendOptions {
  method?: string
  path?: string
  headers?: Record<string, string>
  /** Makes a repeat safe. Default: a random one. `null`: none; then a lost connection rejects. */
  key?: string | null
  onBusy?: 'parallel' | 'queue' | 'interrupt' | 'reject'
  source?: string
  parent?: string
}

export class Session implements AsyncIterable<Item> {
  state: SessionState = 'connecting'
  error?: SidestreamError
  /** The runs that were active at the last attach, and have not ended since. */
  readonly runs = new Map<string, ActiveRun>()
  /** How far this user has read, on any device. */
  readOffset?: string

  #place = new Place()
  #attached = false
  /** Reading goes on from the place; before the first attach, from where the options say. */
  #begun = false
  /** The attach that counts; 0: none. */
  #attempt = 0
  #listening = false
  #handlers = new Map<string, Set<(told: any) => void>>()
  #inboxes = new Set<Inbox>()
  #present = new Map<string, Present>()
  #announced: unknown = undefined
  #announcing?: { said: Promise<Ack>; say(ack: Promise<Ack>): void }

  constructor(readonly connection: Connection, readonly id: string, private readonly options: SessionOptions = {}) {}

  /** The last entry that the application has. */
  get offset(): string {
    return this.#place.last
  }

  /** Who is here. */
  get present(): Present[] {
    return [...this.#present.values()]
  }

  /** Calls `handler` for everything of this kind, until the returned function is called. */
  on<Kind extends keyof SessionEvents>(kind: Kind, handler: (told: SessionEvents[Kind]) => void): () => void {
    const handlers = this.#handlers.get(kind) ?? new Set()
    this.#handlers.set(kind, handlers.add(handler))
    return () => void handlers.delete(handler)
  }

  /**
   * Entries, gaps and the rest in order, from now on. A loop that is slower than the session makes it wait: it is
   * detached, and attached again at the cursor when there is room.
   */
  [Symbol.asyncIterator](): AsyncIterator<Item> {
    const inbox = new Inbox(
      offset => this.#keep(offset),
      () => this.#flow(),
      () => this.#inboxes.delete(inbox),
    )
    this.#inboxes.add(inbox)
    if (this.state === 'closed' || this.error) inbox.end(this.error)
    return inbox
  }

  /** Begins a run, which calls your backend. The promise is settled when the run has begun or waits in the queue. */
  send(body: unknown, { onBusy, key, ...options }: SendOptions = {}): Promise<Ack> {
    key = key === undefined ? randomId() : key
    return this.#ask({ type: 'send', body, ...options, key: key ?? undefined, on_busy: onBusy }, key !== null)
  }

  /** Stops a run, all active ones (`active`), or that of the `send` with a key. Settled when it has happened. */
  cancel(target: string | { key: string } = 'active'): Promise<Ack> {
    const named = typeof target === 'string' ? { run: target } : target
    // Repeated, "active" could stop what nobody meant.
    return this.#ask({ type: 'cancel', ...named }, target !== 'active')
  }

  /** Gives a run, or the newest active one, something to go on with. */
  steer(body: unknown, { run = 'active', key }: { run?: string; key?: string | null } = {}): Promise<Ack> {
    key = key === undefined ? randomId() : key
    return this.#ask({ type: 'steer', run, body, key: key ?? undefined }, key !== null)
  }

  /** Writes an event into the session; `ephemeral`: only to those who are here now. */
  publish(data: unknown, { event, ephemeral }: { event?: string; ephemeral?: boolean } = {}): Promise<Ack> {
    return this.#ask({ type: 'publish', data, event, ephemeral }, false)
  }

  /** Says that this client is here, and what it does; `null`: not any more. Said again after every reconnect. */
  presence(state: unknown): Promise<Ack> {
    this.#announced = state ?? undefined
    // Not repeated by itself: it is refused before the attach, and said again behind it.
    if (this.#listening) return this.#ask({ type: 'presence', state }, false)
    if (!this.#announcing) {
      let say!: (ack: Promise<Ack>) => void
      this.#announcing = { said: new Promise(resolve => (say = resolve)), say }
    }
    return this.#announcing.said
  }

  /** This user has read so far; by default everything that came. */
  read(offset = this.offset): Promise<Ack> {
    return this.#ask({ type: 'read', offset }, true)
  }

  /** What waits for its turn. */
  queue(): Promise<Ack> {
    return this.#ask({ type: 'queue' }, true)
  }

  /** Follows the session no longer. What runs goes on. */
  close(): void {
    if (this.#attached) this.connection.tell({ type: 'detach', session: this.id })
    this.#end('closed')
  }

  /** Called by the connection: the socket is open. */
  connected(): void {
    if (!this.#full()) void this.#attach()
  }

  /** Called by the connection: the next attempt begins. */
  connecting(): void {
    this.#become('connecting')
  }

  /** Called by the connection: the socket is gone. */
  disconnected(): void {
    this.#attached = this.#listening = false
    this.#attempt = 0
    this.#become('waiting')
  }

  /** Called by the connection: there will be no other. */
  fail(error: SidestreamError): void {
    this.error = error
    this.#end('failed')
  }

  /** Called by the connection: a frame that names this session. */
  hear(frame: Frame): void {
    if (frame.ref !== undefined) return this.#answer(frame)
    if (frame.type === 'status' && frame.offset === undefined) return this.#tell('status', frame as never)
    // What comes after a detach is of a reading that is over.
    if (!this.#listening) return
    switch (frame.type) {
      case 'event':
        if (frame.ephemeral) return this.#tell('said', frame as never)
      case 'run':
      case 'input':
      case 'result':
      case 'steer':
      case 'event_dropped':
      case 'status':
        return this.#entry(frame as never as Entry)
      case 'at':
        return this.#place.skip(frame.prev, frame.offset!) ? this.#keepUp() : this.#broken(frame)
      case 'live':
        if (frame.offset !== this.offset) return this.#broken(frame)
        this.#become('live')
        this.connection.progress()
        return this.#hand(frame as never)
      case 'gap':
        return this.#gap(frame as never)
      case 'erased':
        this.#place.resume(START)
        this.connection.store?.save(this.#key, null)
        this.#hand(frame as never)
        return this.#end('closed')
      case 'presence':
        return this.#presence(frame)
      case 'read':
        this.readOffset = frame.offset
        return this.#tell('read', frame as never)
      case 'queue':
        return this.#tell('queue', undefined)
    }
  }

  async #attach(): Promise<void> {
    const attempt = (this.#attempt = ++attempts)
    this.#listening = false
    if (!this.#begun && this.connection.store) {
      const kept = await this.connection.store.load(this.#key)
      if (attempt !== this.#attempt) return
      if (isOffset(kept)) {
        this.#begun = true
        this.#place.resume(kept)
      }
    }
    const { after = 'start', replay, rollupMs, runs, sources, create = true } = this.options
    const first = typeof after === 'object' && 'sinceMs' in after ? { since_ms: after.sinceMs } : after
    this.#attached = this.connection.tell({
      type: 'attach', ref: `attach ${attempt}`, session: this.id, after: this.#begun ? this.offset : first,
      replay, rollup_ms: rollupMs, runs, sources, create,
    })
  }

  #answer(frame: Frame): void {
    // Of an attach that was given up.
    if (frame.ref !== `attach ${this.#attempt}`) return
    if (frame.type === 'error') {
      this.#attached = false
      if (frame.retryable) return this.connection.reconnect()
      // A cursor that is none of this log.
      if (frame.code === 'bad_offset' && this.#begun) {
        this.#gap({ type: 'gap', session: this.id, from: this.offset, to: START, lost: seqOf(this.offset), reason: 'rolled_back' })
        return void this.#attach()
      }
      this.connection.forget(this)
      return this.fail(new SidestreamError(frame.code, frame.message))
    }
    if (frame.type !== 'attached') return
    this.#listening = true
    if (this.#begun && frame.offset !== this.offset) return this.#broken(frame)
    this.#begun = true
    this.#place.resume(frame.offset!)
    this.readOffset = frame.read ?? this.readOffset
    this.runs.clear()
    for (const run of frame.runs ?? []) this.runs.set(run.run, run)
    this.#presence({ type: 'presence', present: frame.present ?? [] })
    this.#announce()
    this.#become('replaying')
  }

  #announce(): void {
    const asked = this.#announcing
    this.#announcing = undefined
    if (this.#announced === undefined && !asked) return
    const ack = this.presence(this.#announced ?? null)
    if (asked) asked.say(ack)
    else ack.catch(() => {})
  }

  #entry(entry: Entry): void {
    const entries = this.#place.take(entry)
    if (!entries) return this.#broken(entry as never)
    for (const entry of entries) {
      if (entry.type === 'run') this.#follow(entry.run, entry)
      this.#hand(entry)
    }
    if (entries.length) this.connection.progress()
    this.#keepUp()
  }

  #follow(run: string, entry: Entry & { type: 'run' }): void {
    const known = this.runs.get(run)
    if (entry.state === 'stalled' || entry.state === 'resumed') {
      if (known) this.runs.set(run, { ...known, state: entry.state === 'stalled' ? 'stalled' : 'active' })
    } else if (entry.state !== 'started') this.runs.delete(run)
    else if (!entry.replay) {
      const { offset: started, source, parent } = entry
      this.runs.set(run, { run, started, state: 'active', source, parent })
    }
  }

  #gap(told: Gap): void {
    const { gap, again } = this.#place.gap(told)
    this.#hand(gap)
    this.#keepUp()
    if (again) this.#again()
  }

  #presence(frame: Frame): void {
    const { event, connection, client, state, present } = frame
    if (present) {
      this.#present.clear()
      for (const one of present) this.#present.set(one.connection, one)
    } else if (event === 'leave') this.#present.delete(connection)
    else this.#present.set(connection, { connection, client, state })
    this.#tell('presence', this.present)
  }

  #broken(frame: Frame): void {
    this.#tell('broken', { after: this.offset, frame })
    this.connection.reconnect()
  }

  /** To the callbacks now, to the loops when they ask. */
  #hand(item: Item): void {
    for (const inbox of this.#inboxes) inbox.put(item, this.offset)
    this.#tell('item', item)
    this.#tell(item.type === 'gap' || item.type === 'live' || item.type === 'erased' ? item.type : 'entry', item as never)
  }

  /** Where no loop reads, what the callbacks were told is had. */
  #keepUp(): void {
    if (!this.#inboxes.size) this.#keep(this.offset)
    else if (this.#full()) {
      this.#listening = this.#attached = false
      this.#attempt = 0
      this.connection.tell({ type: 'detach', session: this.id })
    }
  }

  #keep(offset: string): void {
    this.connection.store?.save(this.#key, offset)
  }

  #full(): boolean {
    return [...this.#inboxes].some(inbox => inbox.full)
  }

  /** A loop has room again. */
  #flow(): void {
    if (!this.#attached && this.connection.state === 'open' && !this.#full()) void this.#attach()
  }

  #again(): void {
    this.connection.tell({ type: 'detach', session: this.id })
    void this.#attach()
  }

  #ask(message: Record<string, unknown>, safe: boolean): Promise<Ack> {
    return this.connection.ask({ ...message, session: this.id }, safe)
  }

  #become(state: SessionState): void {
    if (this.state === state || this.state === 'closed' || this.state === 'failed') return
    this.state = state
    this.#tell('state', state)
  }

  #end(state: 'closed' | 'failed'): void {
    this.#attached = this.#listening = false
    this.#attempt = 0
    this.connection.forget(this)
    this.#become(state)
    this.#announcing?.say(Promise.reject(this.error ?? new SidestreamError('closed', 'the session was closed by this client')))
    this.#announcing = undefined
    for (const inbox of [...this.#inboxes]) inbox.end(this.error)
  }

  #tell<Kind extends keyof SessionEvents>(kind: Kind, told: SessionEvents[Kind]): void {
    for (const handler of this.#handlers.get(kind) ?? []) {
      try {
        handler(told)
      } catch (error) {
        // A fault of the application's is reported as one; the session goes on.
        queueMicrotask(() => {
          throw error
        })
      }
    }
  }

  get #key(): string {
    // Who reads another part of the session is elsewhere in it.
    const { runs, sources } = this.options
    return ['sidestream', this.connection.url, this.id, ...(runs || sources ? [JSON.stringify([runs, sources])] : [])].join(' ')
  }
}

/** Of all sessions: the answer to an attach of one that was closed is none of its successor's. */
let attempts = 0

/** A key that nobody else has. (`randomUUID` exists on secure origins alone.) */
export const randomId = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16).padStart(2, '0')).join('')
