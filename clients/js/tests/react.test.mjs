import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createElement, StrictMode } from 'react'
import { renderToString } from 'react-dom/server'
import renderer, { act } from 'react-test-renderer'
import WebSocket from 'ws'
import { useSession } from 'sidestream-client/react'
import { openai, words } from './answers.mjs'
import { until } from './scripted.mjs'
import { staged, streaming } from './stage.mjs'

globalThis.IS_REACT_ACT_ENVIRONMENT = true

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
  let root
  await act(async () => (root = renderer.create(createElement(StrictMode, null, createElement(Chat, { id: 's' })))))
  stage.later(() => act(async () => root.unmount()))
  const shown = () => root.toJSON() ?? ''
  const settle = condition => until(async () => (await act(async () => {}), condition()))
  await settle(() => views.at(-1).state === 'live')
  await views.at(-1).session.send({})
  await settle(() => shown().length > 100)
  assert.equal(views.at(-1).runs.length, 1)
  line.cut()
  await settle(() => shown() === said.join('') && views.at(-1).runs.length === 0)
  assert.ok(views.length < 500, `${views.length} renders`)

  await act(async () => root.update(createElement(StrictMode, null, createElement(Chat, { id: 'other' }))))
  await settle(() => views.at(-1).session?.id === 'other' && views.at(-1).state === 'live')
  assert.equal(shown(), '')
}))

test('a server renders nothing of it, and opens no connection', () => {
  const Chat = () => useSession('http://127.0.0.1:1/chat', { session: 's' }).state
  assert.equal(renderToString(createElement(Chat)), 'connecting')
})
