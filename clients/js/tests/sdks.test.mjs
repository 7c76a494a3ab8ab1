import assert from 'node:assert/strict'
import { test } from 'node:test'
import Anthropic from '@anthropic-ai/sdk'
import { DefaultChatTransport, readUIMessageStream } from 'ai'
import OpenAI from 'openai'
import { durable } from 'sidestream-client'
import { anthropic, openai, uiHeaders, uiMessages, words } from './answers.mjs'
import { until } from './scripted.mjs'
import { staged, streaming } from './stage.mjs'

const said = words(120)

/** A line that breaks off 10 times, each time a little later, before a sidecar before a backend. */
async function broken(stage, answer, step) {
  const backend = await stage.backend(answer)
  const sidecar = await stage.sidecar(backend.url)
  const line = await stage.line(sidecar.url)
  line.limit = n => (n <= 10 ? 800 + n * step : Infinity)
  return { backend, line, sidecar }
}

/** As `broken`, but never. */
async function endless(stage) {
  const backend = await stage.backend(streaming(function* () {
    yield openai(['x'])[0]
    for (;;) yield openai(['x'])[0]
  }, { pauseMs: 5 }))
  const sidecar = await stage.sidecar(backend.url)
  return { backend, sidecar }
}

test('openai: a stream survives 10 cuts', staged(async stage => {
  const { backend, line } = await broken(stage, streaming(openai(said)), 1200)
  const client = new OpenAI({ apiKey: 'k', baseURL: `${line.url}/v1`, fetch: durable(), maxRetries: 0 })
  let text = ''
  let reason
  for await (const chunk of await client.chat.completions.create({ model: 'm', stream: true, messages: [{ role: 'user', content: 'q' }] })) {
    text += chunk.choices[0].delta.content ?? ''
    reason ??= chunk.choices[0].finish_reason
  }
  assert.equal(text, said.join(''))
  assert.equal(reason, 'stop')
  assert.ok(line.cuts >= 10, `${line.cuts} cuts`)
  assert.equal(backend.asked.length, 1)
}))

test('openai: `controller.abort()` stops the answer at the backend', staged(async stage => {
  const { backend, sidecar } = await endless(stage)
  const client = new OpenAI({ apiKey: 'k', baseURL: `${sidecar.url}/v1`, fetch: durable(), maxRetries: 0 })
  const stream = await client.chat.completions.create({ model: 'm', stream: true, messages: [] })
  for await (const _ of stream) stream.controller.abort()
  await until(() => backend.asked[0].closed)
}))

test('@anthropic-ai/sdk: a stream survives 10 cuts', staged(async stage => {
  const { backend, line } = await broken(stage, streaming(anthropic(said)), 1000)
  const client = new Anthropic({ apiKey: 'k', baseURL: line.url, fetch: durable(), maxRetries: 0 })
  const message = await client.messages.stream({ model: 'm', max_tokens: 10, messages: [{ role: 'user', content: 'q' }] }).finalMessage()
  assert.equal(message.content[0].text, said.join(''))
  assert.equal(message.stop_reason, 'end_turn')
  assert.ok(line.cuts >= 10, `${line.cuts} cuts`)
  assert.equal(backend.asked.length, 1)
}))

test('@anthropic-ai/sdk: `abort()` stops the answer at the backend', staged(async stage => {
  const backend = await stage.backend(streaming(function* () {
    yield* anthropic(['x']).slice(0, 2)
    for (;;) yield anthropic(['x'])[2]
  }, { pauseMs: 5 }))
  const sidecar = await stage.sidecar(backend.url)
  const client = new Anthropic({ apiKey: 'k', baseURL: sidecar.url, fetch: durable(), maxRetries: 0 })
  const stream = client.messages.stream({ model: 'm', max_tokens: 10, messages: [{ role: 'user', content: 'q' }] })
  stream.on('text', () => stream.abort())
  await assert.rejects(stream.finalMessage())
  await until(() => backend.asked[0].closed)
}))

test('AI SDK: a chat survives 10 cuts', staged(async stage => {
  const { backend, line } = await broken(stage, streaming(uiMessages(said), { headers: uiHeaders }), 480)
  const transport = new DefaultChatTransport({ api: `${line.url}/api/chat`, fetch: durable() })
  const stream = await transport.sendMessages({ chatId: 'chat1', trigger: 'submit-message', messages: [{ id: 'u1', role: 'user', parts: [{ type: 'text', text: 'q' }] }] })
  let message
  for await (message of readUIMessageStream({ stream }));
  assert.equal(message.parts.find(part => part.type === 'text').text, said.join(''))
  assert.ok(line.cuts >= 10, `${line.cuts} cuts`)
  assert.equal(backend.asked.length, 1)
}))

test('AI SDK: a stop stops the answer at the backend', staged(async stage => {
  const backend = await stage.backend(streaming(function* () {
    yield* uiMessages([]).slice(0, 3)
    for (;;) yield uiMessages(['x'])[3]
  }, { pauseMs: 5, headers: uiHeaders }))
  const sidecar = await stage.sidecar(backend.url)
  const transport = new DefaultChatTransport({ api: `${sidecar.url}/api/chat`, fetch: durable() })
  const abort = new AbortController()
  const stream = await transport.sendMessages({ chatId: 'chat1', trigger: 'submit-message', messages: [], abortSignal: abort.signal })
  const reader = stream.getReader()
  await reader.read()
  abort.abort()
  await until(() => backend.asked[0].closed)
}))
