/**
 * The body of an answer that survives disconnects. What it gives out is whole events; when the connection breaks it
 * reads the run's own stream, leaves out as many events as it has given, and goes on. Must never give an event twice,
 * none out of order, and never end as if the answer were whole where it is not.
 */
import { Cutter } from './cutter.js'
import { SidestreamError } from './error.js'
import { Attempts } from './retrying.js'
import { endOf, streamOf, type RunAddress } from './run.js'

export interface BodyOptions {
  lines: boolean
  patienceMs: number
  idleMs: number
  /** The connection was lost, after so many events. */
  onResume?: (resumed: { run: string; events: number }) => void
  /** Nobody reads any more, or everything was read. */
  ended: () => void
}

/** @param stopped aborted when the caller has given up: the body fails with its reason. */
export function durableBody(direct: ReadableStream<Uint8Array>, at: RunAddress, stopped: AbortSignal, options: BodyOptions): ReadableStream<Uint8Array> {
  const reading = new Reading(direct.getReader(), at, stopped, options)
  return new ReadableStream<Uint8Array>({
    start(controller) {
      stopped.addEventListener('abort', () => {
        reading.leave()
        controller.error(stopped.reason)
      })
    },
    async pull(controller) {
      try {
        const pieces = await reading.next()
        if (stopped.aborted) return
        if (!pieces) return controller.close()
        for (const piece of pieces) controller.enqueue(piece)
      } catch (error) {
        reading.leave()
        if (!stopped.aborted) controller.error(error)
      }
    },
    // To stop reading is to disconnect, never to cancel.
    cancel: () => reading.leave(),
  })
}

type Reader = ReadableStreamDefaultReader<Uint8Array>

class Reading {
  /** Events given out. */
  #given = 0
  /** Events of the present connection that were given out by an earlier one. */
  #skip = 0
  /** What this connection has brought. */
  #brought = 0
  #resumed = false
  #cutter: Cutter
  #attempts: Attempts
  #abandoned?: Reader
  #left = new AbortController()

  constructor(private reader: Reader | undefined, private readonly at: RunAddress, private readonly stopped: AbortSignal, private readonly options: BodyOptions) {
    this.#cutter = new Cutter(options.lines)
    this.#attempts = new Attempts(options.patienceMs)
  }

  /** The next whole events, at least one byte; nothing at the end. */
  async next(): Promise<Uint8Array[] | undefined> {
    for (;;) {
      try {
        const chunk = await this.#read()
        if (!chunk) {
          const rest = this.#cutter.rest()
          this.leave()
          return rest.length && !this.#skip ? [rest] : undefined
        }
        const pieces = this.#take(chunk)
        if (pieces.length) return pieces
      } catch (error) {
        await this.#resume(error)
      }
    }
  }

  /** Gives up all connections. */
  leave(): void {
    this.#left.abort()
    for (const reader of [this.reader, this.#abandoned]) reader?.cancel().catch(() => {})
    this.reader = undefined
    this.options.ended()
  }

  #take(chunk: Uint8Array): Uint8Array[] {
    const out: Uint8Array[] = []
    for (const { bytes, event } of this.#cutter.push(chunk)) {
      if (this.#skip) {
        if (event) this.#skip--
        continue
      }
      if (event) {
        this.#given++
        this.#brought++
      }
      out.push(bytes)
    }
    if (out.length) this.#attempts.succeeded()
    return out
  }

  /** The next chunk, `undefined` at a clean end. */
  async #read(): Promise<Uint8Array | undefined> {
    if (!this.reader) throw new Error('not connected')
    let timer: ReturnType<typeof setTimeout> | undefined
    const silent = new Promise<never>((_, reject) => {
      if (this.options.idleMs) timer = setTimeout(() => reject(new Silent()), this.options.idleMs)
    })
    try {
      const { done, value } = await Promise.race([this.reader.read(), silent])
      return done ? undefined : value
    } finally {
      clearTimeout(timer)
    }
  }

  async #resume(error: unknown): Promise<void> {
    // To close it could end the run, where the route ends runs with their callers.
    const silent = error instanceof Silent
    // To close the caller's own could end the run, where the route ends runs with their callers.
    if (silent && !this.#resumed) this.#abandoned = this.reader
    else this.reader?.cancel().catch(() => {})
    this.reader = undefined
    this.stopped.throwIfAborted()
    if (this.#resumed && !silent) {
      if (!this.#brought) await this.#sayEnd()
      await this.#attempts.failed(lost(error), this.stopped)
    }
    this.#resumed = true
    this.#brought = 0
    this.options.onResume?.({ run: this.at.run, events: this.#given })
    const signal = AbortSignal.any([this.#left.signal, this.stopped])
    const response = await streamOf(this.at, signal).catch((failed: unknown) => failed)
    if (!(response instanceof Response)) {
      this.stopped.throwIfAborted()
      if (response instanceof SidestreamError && !response.retryable) throw response
      return
    }
    this.#cutter = new Cutter(this.options.lines)
    this.#skip = this.#given
    this.reader = response.body!.getReader()
  }

  /** A run that has ended without a clean end, and has nothing left to give, is told as what it is. */
  async #sayEnd(): Promise<void> {
    const end = await endOf(this.at).catch(() => undefined)
    if (!end || end.terminal.state === 'completed' || end.events > this.#given) return
    const { state, reason, error: said } = end.terminal
    throw new SidestreamError(state, `the run ${state === 'failed' ? 'has failed' : `was ${state}`}: ${said?.message ?? reason ?? 'no reason given'}`)
  }
}

const lost = (error: unknown) =>
  error instanceof SidestreamError ? error : new SidestreamError('disconnected', `the connection was lost: ${error}`, true)

/** Nothing came for a while. */
class Silent extends Error {}
