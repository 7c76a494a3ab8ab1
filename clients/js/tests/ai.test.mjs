import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AbstractChat, readUIMessageStream } from 'ai'
import WebSocket from 'ws'
import { SidestreamTransport } from 'sidestream-client/ai'
import { uiHeaders, uiMessages, words } from './answers.mjs'
import { until } from './scripted.mjs'
import { staged, streaming } from './stage.mjs'

const said = words(500)

/** A chat of the AI SDK as its framework bindings make it, without a framework. */
class Chat extends AbstractChat {
  constructor(options) {
    const state = {
      status: 'ready', error: undefined, messages: options.messages ?? [],
      pushMessage: message => (state.messages = [...state.messages, message]),
      popMessage: () => (state.messages = state.messages.slice(0, -1)),
      replaceMessage: (i, message) => (state.messages = state.messages.with(i, structuredClone(message))),
      snapshot: value => structuredClone(value),
    }
    super({ ...options, state })
  }
}

const textOf = message => message?.parts.filter(part => part.type === 'text').map(part => part.text).join('')
const endless = function* () {
  yield* uiMessages([]).slice(0, 3)
  for (;;) yield uiMessages(['x'])[3]
}

async function set(stage, answer) {
  const backend = await stage.backend(streaming(answer, { pauseMs: 4, headers: uiHeaders }))
  const sidecar = await stage.sidecar(backend.url)
  const line = await stage.line(sidecar.url)
  const transport = () => new SidestreamTransport({ api: `${line.url}/api/chat`, WebSocket })
  return { backend, sidecar, line, transport }
}

test('a chat survives cuts', staged(async stage => {
  const { backend, line, transport } = await set(stage, uiMessages(said))
  const chat = new Chat({ id: 'chat1', transport: transport() })
  let over = false
  const asked = chat.sendMessage({ text: 'q' }).finally(() => (over = true))
  while (line.cuts < 5 && !over) {
    const length = textOf(chat.messages.at(-1))?.length ?? 0
    await until(() => (textOf(chat.messages.at(-1))?.length ?? 0) > length || over)
    line.cut()
  }
  await asked
  assert.equal(line.cuts, 5)
  assert.equal(chat.error, undefined)
  assert.equal(textOf(chat.messages.at(-1)), said.join(''))
  assert.equal(backend.asked.length, 1)
  const body = JSON.parse(backend.asked[0].body)
  assert.equal(body.id, 'chat1')
  assert.equal(body.trigger, 'submit-message')
  assert.equal(body.messages[0].parts[0].text, 'q')
}))

test('a second device resumes the answer, and its stop ends it on the first', staged(async stage => {
  const { backend, transport } = await set(stage, endless)
  const first = new Chat({ id: 'chat1', transport: transport() })
  const asked = first.sendMessage({ text: 'q' })
  await until(() => textOf(first.messages.at(-1))?.length > 5)
  const second = new Chat({ id: 'chat1', transport: transport(), messages: [first.messages[0]] })
  const resumed = second.resumeStream()
  await until(() => textOf(second.messages.at(-1))?.length > 5)
  await second.stop()
  await Promise.all([asked, resumed])
  await until(() => backend.asked[0].closed)
  assert.equal(first.status, 'ready')
  assert.match(textOf(second.messages.at(-1)), /^x+$/)
}))

test('a stop before the answer begins ends it, too', staged(async stage => {
  let answer
  const backend = await stage.backend((_, response) => { answer = response })
  const sidecar = await stage.sidecar(backend.url)
  const abort = new AbortController()
  const transport = new SidestreamTransport({ api: `${sidecar.url}/api/chat`, WebSocket })
  const asked = transport.sendMessages({ chatId: 'c', trigger: 'submit-message', messages: [], abortSignal: abort.signal })
  await until(() => answer)
  abort.abort()
  await assert.rejects(async () => { for await (const _ of await asked); }, { name: 'AbortError' })
  await until(() => backend.asked[0].closed)
}))

test('nothing to resume is said as that', staged(async stage => {
  const { transport } = await set(stage, uiMessages(['x']))
  assert.equal(await transport().reconnectToStream({ chatId: 'nobody' }), null)
  const stream = await transport().sendMessages({ chatId: 'c', trigger: 'submit-message', messages: [] })
  for await (const _ of stream);
  assert.equal(await transport().reconnectToStream({ chatId: 'c' }), null)
}))

test('an answer that breaks off is an error, not an end', staged(async stage => {
  const backend = await stage.backend(async (_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream', ...uiHeaders })
    for (const event of uiMessages(['half']).slice(0, 4)) response.write(event)
    setTimeout(() => response.destroy(), 30)
  })
  const sidecar = await stage.sidecar(backend.url)
  const chat = new Chat({ id: 'c', transport: new SidestreamTransport({ api: `${sidecar.url}/api/chat`, WebSocket }) })
  await chat.sendMessage({ text: 'q' })
  assert.equal(chat.status, 'error')
  assert.equal(textOf(chat.messages.at(-1)), 'half')
}))

test('a backend that refuses is an error', staged(async stage => {
  const backend = await stage.backend((_, response) => response.writeHead(500, { 'content-type': 'text/plain' }).end('no'))
  const sidecar = await stage.sidecar(backend.url)
  const transport = new SidestreamTransport({ api: `${sidecar.url}/api/chat`, WebSocket })
  const errors = []
  const stream = await transport.sendMessages({ chatId: 'c', trigger: 'submit-message', messages: [] })
  for await (const _ of readUIMessageStream({ stream, onError: error => errors.push(error) }));
  assert.match(String(errors[0]), /500/)
}))
