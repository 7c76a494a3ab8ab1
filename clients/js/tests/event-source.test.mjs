import assert from 'node:assert/strict'
import { test } from 'node:test'
import WebSocket from 'ws'
import { SessionEventSource } from 'sidestream-client'
import { anthropic, words } from './answers.mjs'
import { until } from './scripted.mjs'
import { staged, streaming } from './stage.mjs'

test('events come under their names, once each through cuts, with the handlers of an EventSource', staged(async stage => {
  const said = words(500)
  const backend = await stage.backend(streaming([...anthropic(said), 'data: plain\n\n', 'id: mine\ndata: {"a":1}\n\n'], { pauseMs: 4 }))
  const sidecar = await stage.sidecar(backend.url)
  const line = await stage.line(sidecar.url)
  const source = new SessionEventSource(`${line.url}/chat`, { session: 's', WebSocket })
  stage.later(() => source.close())
  const seen = { opens: 0, errors: 0, text: '', messages: [], ended: [] }
  source.onopen = () => seen.opens++
  source.onerror = () => seen.errors++
  source.addEventListener('content_block_delta', event => (seen.text += JSON.parse(event.data).delta.text))
  source.onmessage = event => seen.messages.push([event.data, event.lastEventId])
  source.addEventListener('sidestream.run', event => seen.ended.push(JSON.parse(event.data).state))
  assert.equal(source.readyState, SessionEventSource.CONNECTING)
  await source.session.send({})
  while (line.cuts < 5 && seen.ended.length < 2) {
    const { length } = seen.text
    await until(() => (seen.text.length > length && source.readyState === SessionEventSource.OPEN) || seen.ended.length === 2)
    line.cut()
  }
  await until(() => seen.ended.length === 2)
  assert.equal(seen.text, said.join(''))
  assert.equal(seen.messages.length, 2)
  assert.equal(seen.messages[0][0], 'plain')
  assert.match(seen.messages[0][1], /^\d+-\d+$/)
  assert.deepEqual(seen.messages[1], ['{"a":1}', 'mine'])
  assert.deepEqual(seen.ended, ['started', 'completed'])
  assert.ok(line.cuts === 5 && seen.opens > 5 && seen.errors >= 5)
  source.close()
  assert.equal(source.readyState, SessionEventSource.CLOSED)
}))
