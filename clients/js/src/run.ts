/**
 * One run as HTTP knows it: its stream from any event on, how it ended, its cancel. Must never begin anything, however
 * often it is called.
 */
import { SidestreamError } from './error.js'
import type { Entry, RunEntry } from './frames.js'
import { START } from './offset.js'

/** Where a run is, and with what it is asked for. */
export interface RunAddress {
  /** The sidecar's own routes, without a slash at the end: `https://host/_sidestream/v1`. */
  base: string
  fetch: typeof fetch
  init: RequestInit
  run: string
  /** Not known yet where the backend names the session in its answer. */
  session?: string
  /** Of its `started`. Every event behind it comes as it was. */
  offset?: string
}

/** The run's stream from its first event on, unmerged: as many events as the first caller was given, in the same order. */
export async function streamOf(at: RunAddress, signal: AbortSignal): Promise<Response> {
  const session = await sessionOf(at)
  // A cursor from before the run means its start; without one the history would come merged, and could not be counted.
  const response = await call(at, `/sessions/${session}/runs/${at.run}/stream?after=${at.offset ?? START}`, { signal })
  if (response.status !== 200) throw new SidestreamError('internal', `the run's stream was answered by ${response.status}`)
  return response
}

/** How the run has ended, and how many events its log has; nothing where it has not ended. */
export async function endOf(at: RunAddress): Promise<{ events: number; terminal: RunEntry } | undefined> {
  const session = await sessionOf(at)
  let events = 0
  let after: string | null = at.offset ?? START
  while (after !== null) {
    const path = `/sessions/${session}/events?after=${after === START ? 'start' : after}&run=${at.run}&limit=1000`
    const response = await call(at, path, { headers: { accept: 'application/json' } })
    const page: { entries: Entry[]; next: string | null } = await response.json()
    for (const entry of page.entries) {
      if (entry.type === 'event') events++
      if (entry.type === 'run' && /completed|failed|cancelled|interrupted/.test(entry.state)) return { events, terminal: entry }
    }
    after = page.next
  }
  return undefined
}

/** Ends the run. The answer comes when that has happened. */
export async function cancel(at: RunAddress): Promise<{ outcome: string }> {
  // A page that is being left still says it.
  const response = await call(at, `/sessions/${await sessionOf(at)}/runs/${at.run}/cancel`, { method: 'POST', keepalive: true })
  return response.json()
}

async function sessionOf(at: RunAddress): Promise<string> {
  if (at.session) return at.session
  try {
    return (at.session = (await (await call(at, `/runs/${at.run}`)).json()).session as string)
  } catch (error) {
    // Its first events have come before the log has it.
    if (error instanceof SidestreamError && error.code === 'not_found') throw new SidestreamError(error.code, error.message, true)
    throw error
  }
}

async function call(at: RunAddress, path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(at.init.headers)
  for (const [name, value] of new Headers(init.headers)) headers.set(name, value)
  const response = await at.fetch(at.base + path, { ...at.init, ...init, headers })
  if (response.ok) return response
  const problem = await response.json().catch(() => ({}))
  const retryable = problem.retryable ?? (response.status === 429 || response.status >= 500)
  throw new SidestreamError(problem.code ?? 'internal', problem.detail ?? `${path} was answered by ${response.status}`, retryable)
}
