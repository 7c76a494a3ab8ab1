/**
 * An `EventSource` that is a session: the same handlers, but over the WebSocket, with exact resume. Must never dispatch
 * an event twice or out of order. `data` is the event's text; where that is JSON, it is written anew (the same value).
 */
import { connect, type ConnectOptions } from './connect.js'
import type { Entry } from './frames.js'
import type { Session } from './session.js'

type Handler<T> = ((event: T) => void) | null

export class SessionEventSource extends EventTarget {
  static readonly CONNECTING = 0
  static readonly OPEN = 1
  static readonly CLOSED = 2
  readonly CONNECTING = 0
  readonly OPEN = 1
  readonly CLOSED = 2

  readonly session: Session
  readonly url: string
  readonly withCredentials = false
  onopen: Handler<Event> = null
  onmessage: Handler<MessageEvent> = null
  onerror: Handler<Event> = null
  #readyState: 0 | 1 | 2 = 0

  /**
   * @param options those of `connect`. Without `after` the session comes from its start.
   */
  constructor(url: string | URL, options: ConnectOptions = {}) {
    super()
    this.session = connect(url, options)
    this.url = this.session.connection.url
    this.session.on('state', state => {
      if (state === 'replaying') this.#become(1, 'open')
      else if (state === 'waiting') this.#become(0, 'error')
      else if (state === 'failed' || state === 'closed') this.#become(2, 'error')
    })
    this.session.on('entry', entry => this.#entry(entry))
    this.session.on('gap', gap => this.#message('sidestream.gap', JSON.stringify(gap), gap.to))
    this.session.on('erased', erased => this.#message('sidestream.erased', JSON.stringify(erased), ''))
  }

  get readyState(): 0 | 1 | 2 {
    return this.#readyState
  }

  /** Stops listening. Cancels nothing. */
  close(): void {
    this.#readyState = 2
    this.session.close()
  }

  /** Events of runs, and what was published, under their own names; other entries as `sidestream.run` and so on. */
  #entry(entry: Entry): void {
    if (entry.type !== 'event') return this.#message(`sidestream.${entry.type}`, JSON.stringify(entry), entry.offset)
    this.#message(entry.event || 'message', entry.text ?? JSON.stringify(entry.json), entry.id ?? entry.offset)
  }

  #message(type: string, data: string, lastEventId: string): void {
    if (this.#readyState === 2) return
    this.#dispatch(new MessageEvent(type, { data, lastEventId, origin: new URL(this.url).origin }))
  }

  #become(state: 0 | 1 | 2, event: 'open' | 'error'): void {
    if (this.#readyState === 2) return
    this.#readyState = state
    this.#dispatch(new Event(event))
  }

  #dispatch(event: Event): void {
    const own = { open: this.onopen, message: this.onmessage, error: this.onerror }[event.type] as Handler<Event> | undefined
    own?.call(this, event)
    this.dispatchEvent(event)
  }
}
