/**
 * What was asked and has no answer yet. Must never repeat what a repeat could do twice: after a lost connection only
 * what is safe is sent again, everything else is rejected, with words that say that nobody knows.
 */
import { SidestreamError } from './error.js'
import type { Ack, Frame } from './frames.js'

/** So many may wait for their answers; more are refused at once (the server's own limit is 64, attaches included). */
const WAITING = 48

interface Ask {
  message: Record<string, unknown>
  /** A repeat is the same request: it has a key, or does the same again. */
  safe: boolean
  sent: boolean
  resolve(ack: Ack): void
  reject(error: Error): void
}

export class Asks {
  #waiting = new Map<string, Ask>()
  #next = 0

  /** @param tell sends on the open socket; `false` where there is none. */
  constructor(private readonly tell: (message: Record<string, unknown>) => boolean) {}

  ask(message: Record<string, unknown>, safe: boolean): Promise<Ack> {
    if (this.#waiting.size >= WAITING) {
      return Promise.reject(new SidestreamError('too_many', `${WAITING} messages wait for their answers already`, true))
    }
    const ref = `q${++this.#next}`
    return new Promise((resolve, reject) => {
      const ask = { message: { ...message, ref }, safe, sent: false, resolve, reject }
      this.#waiting.set(ref, ask)
      ask.sent = this.tell(ask.message)
    })
  }

  /** Whether the frame was an answer to something here. */
  settle(frame: Frame): boolean {
    const ask = this.#waiting.get(String(frame.ref))
    if (!ask) return false
    // Another instance will answer it.
    if (frame.type === 'error' && frame.code === 'draining' && ask.safe) return true
    this.#waiting.delete(String(frame.ref))
    if (frame.type === 'error') ask.reject(new SidestreamError(frame.code, frame.message, frame.retryable))
    else ask.resolve(frame)
    return true
  }

  /** The socket is open: what waits is sent (again). */
  connected(): void {
    for (const ask of this.#waiting.values()) ask.sent = this.tell(ask.message) || ask.sent
  }

  /** The socket is gone. */
  disconnected(): void {
    for (const [ref, ask] of this.#waiting) {
      if (ask.safe || !ask.sent) continue
      this.#waiting.delete(ref)
      const lost = `the connection was lost before "${ask.message.type}" was answered: it may have happened, or not`
      ask.reject(new SidestreamError('disconnected', lost))
    }
  }

  /** Nothing will be answered any more. */
  end(error: Error): void {
    for (const ask of this.#waiting.values()) ask.reject(error)
    this.#waiting.clear()
  }
}
