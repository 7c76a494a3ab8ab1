import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cutter } from '../dist/cutter.js'

const bytes = text => new TextEncoder().encode(text)
const text = pieces => pieces.map(piece => new TextDecoder('utf-8', { ignoreBOM: true }).decode(piece.bytes))
const join = pieces => text(pieces).join('')

const streams = {
  'line feeds': ['data: a\n\ndata: b\ndata: c\n\n', 2],
  'carriage returns': ['data: a\r\rdata\r\r', 2],
  both: ['data: a\r\n\r\nid: 7\r\ndata: b\r\n\r\n', 2],
  mixed: ['data: a\n\r\ndata: b\r\r\ndata: c\r\n\n', 3],
  'a byte order mark': ['\uFEFFdata: a\n\n\uFEFFdata: b\n\n', 1],
  comments: [': hello\n\n: lone\ndata: a\n: within\n\n:\n', 1],
  'fields without data': ['event: x\n\nid: 1\n\nretry: 5\n\ndata:\n\ndatax: 1\n\n', 1],
  'characters of several bytes': ['data: \u00e9\u20ac\u{1f600}\n\n'.repeat(3), 3],
}

for (const [name, [stream, events]] of Object.entries(streams)) {
  test(`${name}: the same events and bytes, wherever the chunks end`, () => {
    const whole = bytes(stream)
    for (let size = 1; size <= whole.length; size++) {
      const cutter = new Cutter(false)
      const pieces = []
      for (let i = 0; i < whole.length; i += size) pieces.push(...cutter.push(whole.subarray(i, i + size)))
      assert.equal(pieces.filter(piece => piece.event).length, events, `chunks of ${size}`)
      assert.equal(join([...pieces, { bytes: cutter.rest() }]), stream, `chunks of ${size}`)
    }
  })
}

test('a comment between events goes on at once', () => {
  const cutter = new Cutter(false)
  assert.equal(join(cutter.push(bytes(': keep-alive\n'))), ': keep-alive\n')
})

test('an event that is not whole is held back', () => {
  const cutter = new Cutter(false)
  assert.deepEqual(text(cutter.push(bytes('data: a\n\ndata: b\n'))), ['data: a\n\n'])
  assert.equal(new TextDecoder().decode(cutter.rest()), 'data: b\n')
})

test('of lines, blank ones are no events', () => {
  const cutter = new Cutter(true)
  const pieces = cutter.push(bytes('{"a":1}\n\n \t\r\n{"b":2}\r\n{"c"'))
  assert.deepEqual(pieces.map(piece => piece.event), [true, false, false, true])
  assert.equal(new TextDecoder().decode(cutter.rest()), '{"c"')
})
