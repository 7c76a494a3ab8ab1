// The recipes of the README, as they stand there, against the real binary.
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { transform } from 'esbuild'
import WebSocket from 'ws'
import { openai, uiHeaders, uiMessages, words } from './answers.mjs'
import { until } from './scripted.mjs'
import { staged, streaming } from './stage.mjs'

const said = words(40)
const readme = await readFile('README.md', 'utf8')

/** Imports the recipe of that name; `change` is what a test must have otherwise. */
async function recipe(stage, name, change = code => code) {
  const code = readme.match(new RegExp('```(?:js|jsx) ' + name + '\n([^]*?)```'))[1]
  const built = await transform(change(code), { loader: 'jsx', jsx: 'automatic' })
  const folder = await mkdtemp('tests/recipe-')
  stage.later(() => rm(folder, { recursive: true }))
  await writeFile(`${folder}/recipe.mjs`, built.code)
  return import(pathToFileURL(`${folder}/recipe.mjs`).href)
}

/** What a browser has. */
async function page(stage, answer) {
  const backend = await stage.backend(answer)
  const sidecar = await stage.sidecar(backend.url)
  const elements = {}
  const browser = { WebSocket, location: { href: `${sidecar.url}/`, hash: '' }, document: { querySelector: name => (elements[name] ??= {}), addEventListener() {}, removeEventListener() {} } }
  const before = Object.fromEntries(Object.keys(browser).map(name => [name, globalThis[name]]))
  Object.assign(globalThis, browser)
  stage.later(() => Object.assign(globalThis, before))
  return { backend, sidecar, elements }
}

test('a plain page', staged(async stage => {
  const { elements } = await page(stage, streaming(openai(said)))
  const { session } = await recipe(stage, 'plain', code => `${code}\nexport { session }`)
  stage.later(() => session.close())
  await until(() => elements['#answer'].textContent === said.join(''))
}))

test('a plain page: stop', staged(async stage => {
  const { elements, backend } = await page(stage, streaming(function* () { for (;;) yield openai(['x'])[0] }, { pauseMs: 5 }))
  const { session } = await recipe(stage, 'plain', code => `${code}\nexport { session }`)
  stage.later(() => session.close())
  await until(() => elements['#answer'].textContent)
  await elements['#stop'].onclick()
  await until(() => backend.asked[0].closed)
}))

test('React', staged(async stage => {
  const { default: renderer } = await import('react-test-renderer')
  const { createElement } = await import('react')
  await page(stage, streaming(openai(said)))
  const { Answer } = await recipe(stage, 'react')
  const root = renderer.create(createElement(Answer, { id: 's' }))
  stage.later(() => root.unmount())
  await until(() => root.toJSON())
  const [ask] = root.root.findAllByType('button')
  await until(() => ask.props.onClick())
  await until(() => root.root.findByType('p').children.join('') === said.join(''))
}))

test('AI SDK', staged(async stage => {
  await page(stage, streaming(uiMessages(said), { headers: uiHeaders }))
  // The hook of the AI SDK takes what is given to it here.
  const { useMyChat } = await recipe(stage, 'ai', code => code.replace(/import .*@ai-sdk.*/, 'const useChat = options => options'))
  const { id, transport, resume } = useMyChat('chat1')
  assert.equal(resume, true)
  let text = ''
  const stream = await transport.sendMessages({ chatId: id, trigger: 'submit-message', messages: [] })
  for await (const chunk of stream) text += chunk.delta ?? ''
  assert.equal(text, said.join(''))
}))

test('the OpenAI SDK in Node', staged(async stage => {
  const { sidecar } = await page(stage, streaming(openai(said)))
  let text = ''
  const { write } = process.stdout
  process.stdout.write = piece => (text += piece)
  try {
    await recipe(stage, 'openai', code => code.replace('http://127.0.0.1:8787', sidecar.url))
  } finally {
    process.stdout.write = write
  }
  assert.ok(text.includes(said.join('')))
}))

test('instead of an EventSource', staged(async stage => {
  const { sidecar } = await page(stage, streaming(openai(said), { pauseMs: 1 }))
  const lines = []
  const { log } = console
  console.log = line => lines.push(line)
  try {
    const { source } = await recipe(stage, 'event-source', code => `${code}\nexport { source }`)
    stage.later(() => source.close())
    await until(() => source.readyState === 1)
    await (await fetch(`${sidecar.url}/api/chat`, { method: 'POST', body: '{}', headers: { 'sidestream-session': 'lobby' } })).text()
    await until(() => lines.includes('completed'))
  } finally {
    console.log = log
  }
  assert.equal(lines.filter(line => line.startsWith('{')).map(line => JSON.parse(line).choices[0].delta.content ?? '').join(''), said.join(''))
}))
