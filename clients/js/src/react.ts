/**
 * A session as a React hook. Must never open a connection while rendering, nor render once per entry of a history.
 */
import { useEffect, useMemo, useSyncExternalStore } from 'react'
import { connect, applied, type ConnectOptions, type Item, type Log, type Present, type Session, type SessionState } from './connect.js'
import type { SidestreamError } from './error.js'

/** How often a view is told at most, in milliseconds. */
const FRAME_MS = 16

/** What a component sees of a session. */
export interface SessionView {
  /** Entries and gaps, in order; without what was rolled back. */
  log: Log
  state: SessionState
  /** The runs that are active. */
  runs: string[]
  present: Present[]
  error?: SidestreamError
  /** To `send`, `cancel`, `steer`, `publish`, …; none before the component is mounted. */
  session?: Session
}

const NOTHING: SessionView = { log: [], state: 'connecting', runs: [], present: [] }

/**
 * Follows a session while the component is mounted. A change of `url`, `session` or `client` begins anew; the other
 * options count as they were then.
 */
export function useSession(url: string | URL, options: ConnectOptions & { session: string }): SessionView {
  const { session, client } = options
  const view = useMemo(() => new View(String(url), options), [String(url), session, client])
  useEffect(() => view.open(), [view])
  return useSyncExternalStore(view.subscribe, view.now, () => NOTHING)
}

class View {
  #seen: SessionView = NOTHING
  #listeners = new Set<() => void>()
  #items: Item[] = []
  #timer?: ReturnType<typeof setTimeout>

  constructor(private readonly url: string, private readonly options: ConnectOptions) {}

  now = (): SessionView => this.#seen

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Begins to follow; what is given back ends it. */
  open(): () => void {
    const session = connect(this.url, this.options)
    this.#seen = NOTHING
    const soon = () => void (this.#timer ??= setTimeout(() => this.#show(session), FRAME_MS))
    session.on('item', item => {
      this.#items.push(item)
      soon()
    })
    session.on('state', soon)
    session.on('presence', soon)
    soon()
    return () => {
      session.close()
      // Only now: closing is a change of state, too, and must not be shown in place of the next session's.
      clearTimeout(this.#timer)
      this.#timer = undefined
      this.#items = []
    }
  }

  #show(session: Session): void {
    this.#timer = undefined
    const { state, error, present } = session
    const log = this.#items.length ? applied(this.#seen.log, ...this.#items) : this.#seen.log
    this.#items = []
    this.#seen = { log, state, error, present, runs: [...session.runs.keys()], session }
    for (const listener of this.#listeners) listener()
  }
}
