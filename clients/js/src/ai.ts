/**
 * The AI SDK's `ChatTransport` (from version 5) over our WebSocket: a chat is a session, its id the session's. Must never
 * end a stream as finished whose run was not, and never cancel because a connection is gone.
 */
import type { ChatTransport, UIMessage, UIMessageChunk } from 'ai'
import { Connection, type ConnectionOptions } from './connection.js'
import { SidestreamError } from './error.js'
import type { ActiveRun, Item, RunEntry } from './frames.js'
import { randomId, type SendOptions, type Session } from './session.js'

export interface SidestreamTransportOptions extends ConnectionOptions {
  /** The chat route of your backend, as in `DefaultChatTransport`. */
  api?: string | URL
  /** What else goes into every request's body. */
  body?: Record<string, unknown>
  /** What to do while the chat's last answer still runs: by default wait for it. */
  onBusy?: SendOptions['onBusy']
}

type Options<Method extends 'sendMessages' | 'reconnectToStream'> = Parameters<ChatTransport<UIMessage>[Method]>[0]

export class SidestreamTransport<Message extends UIMessage = UIMessage> implements ChatTransport<Message> {
  /** What is resumed comes from its beginning. */
  readonly resumeStreamIsReplay = true

  constructor(private readonly options: SidestreamTransportOptions = {}) {}

  sendMessages = async ({ chatId, messages, trigger, messageId, abortSignal, headers, body }: Options<'sendMessages'>) => {
    abortSignal?.throwIfAborted()
    const connection = this.#connection()
    const key = randomId()
    const message = {
      type: 'send', session: chatId, key, on_busy: this.options.onBusy,
      headers: headers && Object.fromEntries(new Headers(headers)),
      body: { ...this.options.body, ...body, id: chatId, messages, trigger, messageId },
    }
    // By its key a run is stopped that has not begun yet.
    const close = () => connection.close()
    const stop = () => void connection.ask({ type: 'cancel', session: chatId, key }, true).then(close, close)
    abortSignal?.addEventListener('abort', stop)
    try {
      const { run, offset } = await connection.ask(message, true)
      abortSignal?.throwIfAborted()
      return this.#stream(connection.attach(chatId, { after: offset ?? 'start', runs: [run!] }), run!, abortSignal)
    } catch (error) {
      if (abortSignal?.aborted) throw abortSignal.reason
      close()
      throw error
    } finally {
      abortSignal?.removeEventListener('abort', stop)
    }
  }

  reconnectToStream = async ({ chatId, ...options }: Options<'reconnectToStream'>) => {
    const { abortSignal } = options as { abortSignal?: AbortSignal }
    const connection = this.#connection()
    const session = connection.attach(chatId, { after: 'end', create: false })
    const run = await activeRun(session)
    session.close()
    if (!run) {
      connection.close()
      return null
    }
    const { started: after } = run
    return this.#stream(connection.attach(chatId, { after, runs: [run.run], replay: 'compact' }), run.run, abortSignal)
  }

  #connection(): Connection {
    return new Connection(this.options.api ?? '/api/chat', this.options)
  }

  #stream(session: Session, run: string, signal?: AbortSignal): ReadableStream<UIMessageChunk> {
    const { connection } = session
    const items = session[Symbol.asyncIterator]()
    let stop: (() => void) | undefined
    const leave = () => {
      signal?.removeEventListener('abort', stop!)
      connection.close()
    }
    return new ReadableStream<UIMessageChunk>({
      start(controller) {
        stop = () => {
          controller.error(signal!.reason)
          connection.ask({ type: 'cancel', session: session.id, run }, true).catch(() => {}).finally(leave)
        }
        signal?.addEventListener('abort', stop)
        if (signal?.aborted) stop()
      },
      async pull(controller) {
        try {
          for (;;) {
            const { value: item, done } = await items.next()
            if (signal?.aborted) return
            const said = done ? { end: true } : meaning(item)
            if (said.chunk) controller.enqueue(said.chunk)
            if (said.end) {
              leave()
              return controller.close()
            }
            if (said.chunk) return
          }
        } catch (error) {
          if (signal?.aborted) return
          leave()
          controller.error(error)
        }
      },
      cancel: leave,
    })
  }
}

/** The newest run that no agent has begun. */
async function activeRun(session: Session): Promise<ActiveRun | undefined> {
  while (session.state !== 'live') {
    if (session.error?.code === 'not_found') return undefined
    if (session.error) throw session.error
    await new Promise<void>(resolve => {
      const off = session.on('state', () => (off(), resolve()))
    })
  }
  return [...session.runs.values()].filter(run => !run.parent).at(-1)
}

/** What an item of the run's log is to the AI SDK. */
function meaning(item: Item): { chunk?: UIMessageChunk; end?: boolean } {
  switch (item.type) {
    case 'event':
      return item.json === undefined ? {} : { chunk: item.json as UIMessageChunk }
    case 'run':
      return ended(item)
    case 'result':
      return { chunk: { type: 'error', errorText: `the backend answered ${item.status} and no stream` } }
    case 'gap':
      throw new SidestreamError('gone', 'the log has lost a part of this answer')
    case 'event_dropped':
      throw new SidestreamError('gone', 'an event of this answer was too large to keep')
    default:
      return item.type === 'erased' ? { end: true } : {}
  }
}

function ended({ state, reason, error }: RunEntry): { chunk?: UIMessageChunk; end?: boolean } {
  if (state === 'completed') return { end: true }
  if (state === 'cancelled') return { chunk: { type: 'abort' }, end: true }
  if (state !== 'failed' && state !== 'interrupted') return {}
  // The backend has said it in its own words, or has answered without a stream.
  if (reason === 'error_event' || reason === 'upstream_status') return { end: true }
  return { chunk: { type: 'error', errorText: error?.message ?? `the answer was ${state === 'failed' ? 'broken off' : state}` }, end: true }
}
