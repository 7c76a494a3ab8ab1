/**
 * What the server says, as docs/protocol.md has it: types only. Fields that this version does not know stay on the
 * objects; types of frames that it does not know are never seen by an application.
 */

/** What every entry of the log has. */
export interface Placed {
  session: string
  offset: string
  /** The first entry that this one stands for, where neighbouring deltas were merged. */
  first?: string
  /** The i-th of k records that stand for the same entries, from 1. */
  part?: [number, number]
  /** The entry before, where a filter left some out. */
  prev?: string
  /** From before the attach. */
  replay?: boolean
  run?: string
  source?: string
}

/** One event of a run, or one that was published (without `run`). */
export interface EventEntry extends Placed {
  type: 'event'
  event?: string
  id?: string
  /** The data, where it is one JSON value; else `text` has it. */
  json?: unknown
  text?: string
}

/** The states of a run; the last four are its terminals. */
export type RunState = 'started' | 'stalled' | 'resumed' | 'completed' | 'failed' | 'cancelled' | 'interrupted'

export interface RunEntry extends Placed {
  type: 'run'
  run: string
  state: RunState
  method?: string
  path?: string
  status?: number
  headers?: Record<string, string>
  parent?: string
  reason?: string
  upstream_status?: number | null
  error?: { message?: string }
  usage?: { input?: number; output?: number }
  by?: { client?: string }
  [field: string]: unknown
}

export interface InputEntry extends Placed {
  type: 'input'
  client?: string
  json?: unknown
  text?: string
}

export interface ResultEntry extends Placed {
  type: 'result'
  status: number
  json?: unknown
  text?: string
}

export interface SteerEntry extends Placed {
  type: 'steer'
  client?: string
  receipt?: string
  outcome: string
  consumed?: boolean
}

export interface DroppedEntry extends Placed {
  type: 'event_dropped'
  bytes: number
  sha256: string
}

/** What the log says of itself: `eager`, `lost`, `answered`. */
export interface StatusEntry extends Placed {
  type: 'status'
  code: string
  [field: string]: unknown
}

/** One item of a session's log. */
export type Entry = EventEntry | RunEntry | InputEntry | ResultEntry | SteerEntry | DroppedEntry | StatusEntry

/** A range that this reader will never get, or (`rolled_back`) must discard: all that it has after `to`. */
export interface Gap {
  type: 'gap'
  session: string
  from: string
  to: string
  lost?: number
  lost_at_most?: number
  reason: 'trimmed' | 'rolled_back' | 'expired' | string
}

/** The history is over; what follows is live. */
export interface Live {
  type: 'live'
  session: string
  offset: string
}

/** The session is gone, with all that it had. */
export interface Erased {
  type: 'erased'
  session: string
}

/** What a session's iterator gives, in the order of the log. */
export type Item = Entry | Gap | Live | Erased

/** Somebody who is here. */
export interface Present {
  connection: string
  client: string
  state: unknown
}

/** An active run. */
export interface ActiveRun {
  run: string
  started: string
  state: 'active' | 'stalled'
  source?: string
  parent?: string
}

/** Anything the server says, before it is known what. */
export interface Frame {
  type: string
  session?: string
  ref?: string | number
  offset?: string
  [field: string]: any
}

/** The answer to what was asked. Its fields are those of the message's row in the protocol. */
export interface Ack {
  session?: string
  run?: string
  offset?: string
  outcome?: string
  [field: string]: any
}
