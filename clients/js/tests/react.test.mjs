import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createElement, StrictMode } from 'react'
import { renderToString } from 'react-dom/server'
import renderer from 'react-test-renderer'
import WebSocket from 'ws'
import { useSession } from 'sidestream-client/react'
import { openai, words } from './answers.mjs'
import { until } from './scripted.mjs'
import { staged, streaming } from './stage.mjs'

test('a component shows a session: history, live, through a cut, and once per frame only', staged(async stage => {
  const said = words(300)
  const backend = await stage.backend(streaming(openai(said), { pauseMs: 2 }))
  const sidecar = await stage.sidecar(backend.url)
  const line = await stage.line(sidecar.url)
  const views = []
  function Chat({ id }) {
    const view = useSession(`${line.url}/chat`, { session: id, WebSocket })
    views.push(view)
    return view.log.filter(entry => entry.type === 'event').map(entry => entry.json?.choices?.[0].delta.content ?? '').join('')
  }
  const root = renderer.create(createElement(StrictMode, null, createElement(Chat, { id: 's' })))
  stage.later(() => root.unmount())
  const shown = () => root.toJSON() ?? ''
  await until(() => views.at(-1)?.state === 'live')
  await views.at(-1).session.send({})
  await until(() => shown().length > 100)
  assert.equal(views.at(-1).runs.length, 1)
  line.cut()
  await until(() => shown() === said.join('') && views.at(-1).runs.length === 0)
  assert.ok(views.length < 500, `${views.length} renders`)

  root.update(createElement(StrictMode, null, createElement(Chat, { id: 'other' })))
  await until(() => views.at(-1).session?.id === 'other' && views.at(-1).state === 'live')
  assert.equal(shown(), '')
}))

test('a server renders nothing of it, and opens no connection', () => {
  const Chat = () => useSession('http://127.0.0.1:1/chat', { session: 's' }).state
  assert.equal(renderToString(createElement(Chat)), 'connecting')
})
