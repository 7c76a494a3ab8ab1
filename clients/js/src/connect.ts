/** The public entry: `connect`, and all that it needs. Imports nothing of the other parts of the package. */
import { Connection, type ConnectionOptions } from './connection.js'
import { randomId, type Session, type SessionOptions } from './session.js'

export interface ConnectOptions extends ConnectionOptions, SessionOptions {
  /** Which session. Default: a new one. */
  session?: string
}

/**
 * Follows a session over a WebSocket of its own. `url` is your backend's own path, as you would `fetch` it, or
 * `/_sidestream/v1/ws`. `session.connection.attach(id)` follows another one on the same socket;
 * it ends with its last session.
 */
export function connect(url: string | URL, { session = randomId(), ...options }: ConnectOptions = {}): Session {
  return new Connection(url, options, true).attach(session, options)
}

export { Connection, SUBPROTOCOL, type ConnectionOptions, type ConnectionState, type Socket, type Token } from './connection.js'
export { Session, type SendOptions, type SessionEvents, type SessionOptions, type SessionState } from './session.js'
export { inLocal, inSession, memory, type CursorStore } from './cursor-store.js'
export { SidestreamError } from './error.js'
export { applied, type Log } from './log.js'
export { isOffset, seqOf, START } from './offset.js'
export type * from './frames.js'
