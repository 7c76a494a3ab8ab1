/**
 * `durableFetch`: a drop-in for `fetch`. The same call, but the body of a recorded answer survives disconnects, and an
 * abort ends the run itself. Must never begin a second run, and never touch what Sidestream does not record.
 */
import { durableBody } from './body.js'
import { Attempts } from './retrying.js'
import { cancel, type RunAddress } from './run.js'

export interface DurableFetchOptions {
  /** What makes the requests. Default: the global `fetch`. */
  fetch?: typeof fetch
  /** The sidecar's reserved prefix, where it is not the default. */
  prefix?: string
  /** The request's headers that go with its resumes and its cancel, beside `authorization`. */
  headers?: string[]
  /** For how long a resume is tried again while nothing comes of it. Default: 15 minutes. */
  patienceMs?: number
  /** After how long a silence the connection is doubted and another one opened; 0: never. Default: 90 s. */
  idleMs?: number
  /** The body goes on over another connection; so many events had been given. */
  onResume?: (resumed: { run: string; events: number }) => void
  /** What an abort came to: the outcome of the cancel, or why there is none. */
  onCancel?: (cancelled: { run: string; outcome?: string; error?: unknown }) => void
}

/** How long an aborted request is waited for, so that its run can be cancelled. */
const HEAD_MS = 60_000

/** A `fetch` with options. */
export function durable(options: DurableFetchOptions = {}): typeof fetch {
  return async (input, init) => {
    const request = input instanceof Request ? input : undefined
    const signal = init?.signal ?? request?.signal
    signal?.throwIfAborted()
    const line = new AbortController()
    const headers = new Headers(init?.headers ?? request?.headers)
    const method = (init?.method ?? request?.method ?? 'GET').toUpperCase()
    const ask = options.fetch ?? globalThis.fetch

    const address = (response: Response): RunAddress | undefined => {
      const run = response.headers.get('sidestream-run')
      if (!run) return undefined
      const passed = new Headers()
      for (const name of ['authorization', ...(options.headers ?? [])]) {
        const value = headers.get(name)
        if (value !== null) passed.set(name, value)
      }
      const origin = new URL(response.url || String(request?.url ?? input)).origin
      return {
        base: `${origin}${options.prefix ?? '/_sidestream'}/v1`,
        fetch: ask,
        init: { headers: passed, credentials: init?.credentials ?? request?.credentials, cache: 'no-store' },
        run,
        session: response.headers.get('sidestream-session') ?? undefined,
        offset: response.headers.get('sidestream-offset') ?? undefined,
      }
    }
    const stop = async (at: RunAddress) => {
      const attempts = new Attempts(options.patienceMs ?? 900_000)
      for (;;) {
        try {
          const { outcome } = await cancel(at)
          return options.onCancel?.({ run: at.run, outcome })
        } catch (error) {
          try {
            await attempts.failed(error)
          } catch {
            return options.onCancel?.({ run: at.run, error })
          }
        }
      }
    }

    const begun = begin(() => ask(input, { ...init, signal: line.signal }), repeatable(headers, init, request), options, line.signal)
    const response = await orAborted(begun, signal, () => {
      if (method === 'GET' || method === 'HEAD') return line.abort(signal!.reason)
      // Its run has no name yet. It is waited for, so that it can be cancelled, and is given up then.
      const timer = setTimeout(() => line.abort(), HEAD_MS)
      begun.then(response => {
        const at = address(response)
        if (at) void stop(at)
        line.abort()
      }, () => {}).finally(() => clearTimeout(timer))
    })
    const at = response.ok && response.body ? address(response) : undefined
    const lines = at && framing(response)
    if (!at || lines === undefined) {
      // Not recorded, or recorded as what cannot be cut: an abort still ends the run.
      const abort = () => {
        line.abort(signal!.reason)
        if (at) void stop(at)
      }
      signal?.addEventListener('abort', abort, { once: true })
      return response
    }
    const stopped = new AbortController()
    const abort = () => {
      stopped.abort(signal!.reason)
      void stop(at)
    }
    signal?.addEventListener('abort', abort, { once: true })
    const { patienceMs = 900_000, idleMs = 90_000, onResume } = options
    const ended = () => signal?.removeEventListener('abort', abort)
    const body = durableBody(response.body!, at, stopped.signal, { lines, patienceMs, idleMs, onResume, ended })
    return answer(response, body)
  }
}

/** `fetch`, durable. */
export const durableFetch: typeof fetch = durable()

/** Whether events are lines; `undefined`: the answer has neither lines nor blocks. */
function framing(response: Response): boolean | undefined {
  const type = response.headers.get('content-type')?.split(';')[0]?.trim().toLowerCase()
  if (type === 'text/event-stream') return false
  // An array of events is one value: what is behind a cut in it is no array.
  return type === 'application/json' ? undefined : true
}

/** Sends the request, and again where it has a key: whoever repeats it gets the run that the first one began. */
async function begin(send: () => Promise<Response>, again: boolean, options: DurableFetchOptions, signal: AbortSignal): Promise<Response> {
  const attempts = new Attempts(options.patienceMs ?? 900_000)
  for (;;) {
    try {
      return await send()
    } catch (error) {
      if (!again) throw error
      await attempts.failed(error, signal)
    }
  }
}

function repeatable(headers: Headers, init?: RequestInit, request?: Request): boolean {
  return headers.has('idempotency-key') && !request?.body && !(init?.body instanceof ReadableStream)
}

function orAborted(response: Promise<Response>, signal: AbortSignal | null | undefined, abort: () => void): Promise<Response> {
  if (!signal) return response
  return new Promise((resolve, reject) => {
    const aborted = () => {
      abort()
      reject(signal.reason)
    }
    signal.addEventListener('abort', aborted, { once: true })
    response.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted))
  })
}

/** The same answer with another body. */
function answer(response: Response, body: ReadableStream<Uint8Array>): Response {
  const headers = new Headers(response.headers)
  // What comes over another connection may be framed otherwise.
  headers.delete('content-length')
  const { status, statusText, url, redirected } = response
  const durable = new Response(body, { status, statusText, headers })
  Object.defineProperties(durable, { url: { value: url }, redirected: { value: redirected } })
  return durable
}
