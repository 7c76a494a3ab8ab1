/** Waits between attempts: full jitter below a bound that doubles. Must never wait for what was given up. */
import { SidestreamError } from './error.js'

const MIN_MS = 250
const MAX_MS = 15_000

/** Attempts in a row, until one of them brings something. */
export class Attempts {
  #tries = 0
  #since = 0

  /** @param patienceMs for how long nothing may come of them. */
  constructor(private readonly patienceMs: number) {}

  /** Something came: the next wait is short again. */
  succeeded(): void {
    this.#tries = 0
  }

  /** Waits for the next attempt. Throws `error` where it says that there is no use, or when patience is over. */
  async failed(error: unknown, signal?: AbortSignal | null): Promise<void> {
    signal?.throwIfAborted()
    if (error instanceof SidestreamError && !error.retryable) throw error
    if (this.#tries === 0) this.#since = Date.now()
    if (Date.now() - this.#since > this.patienceMs) throw error
    await pause(Math.random() * Math.min(MAX_MS, MIN_MS * 2 ** this.#tries++), signal)
  }
}

function pause(ms: number, signal?: AbortSignal | null): Promise<void> {
  return new Promise((resolve, reject) => {
    const left = () => {
      clearTimeout(timer)
      reject(signal!.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', left)
      resolve()
    }, ms)
    signal?.addEventListener('abort', left, { once: true })
  })
}
