import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Place } from '../dist/contiguity.js'
import { applied } from '../dist/connect.js'

const entry = (offset, more = {}) => ({ type: 'event', session: 's', offset, ...more })
const at = (...entries) => {
  const place = new Place()
  for (const one of entries) assert.ok(place.take(one))
  return place
}

test('an entry follows the one before it, and nothing else does', () => {
  const place = at(entry('10-1'), entry('10-2'))
  for (const other of ['11-4', '10-2', '9-1']) assert.equal(place.take(entry(other)), null, other)
  assert.equal(place.last, '10-2')
  assert.equal(place.take(entry('12-3')).length, 1)
})

test('merged entries follow by their first one, filtered ones by the one before', () => {
  const place = at(entry('10-1'))
  assert.equal(place.take(entry('20-9', { first: '11-3' })), null)
  assert.ok(place.take(entry('20-9', { first: '11-2' })))
  assert.equal(place.take(entry('30-20', { prev: '10-1' })), null)
  assert.ok(place.take(entry('30-20', { prev: '20-9' })))
  assert.equal(place.take(entry('10-1', { prev: '30-20' })), null)
  assert.equal(place.skip('20-9', '40-30'), false)
  assert.ok(place.skip('30-20', '40-30'))
  assert.ok(place.take(entry('50-31')))
})

test('the cursor moves with the last part of a block only, and the parts come together', () => {
  const place = at(entry('10-1'))
  const part = (i, more) => entry('20-9', { first: '11-2', part: [i, 3], run: `r${i}`, ...more })
  assert.deepEqual(place.take(part(1)), [])
  assert.deepEqual(place.take(part(2)), [])
  assert.equal(place.last, '10-1')
  assert.deepEqual(place.take(part(3)).map(one => one.run), ['r1', 'r2', 'r3'])
  assert.equal(place.last, '20-9')
})

test('a block whose parts are not all of one block does not follow', () => {
  const part = (i, more) => entry('20-9', { first: '11-2', part: [i, 3], ...more })
  for (const wrong of [part(3), part(1), part(2, { offset: '20-8' }), part(2, { part: [2, 4] }), entry('11-2')]) {
    const place = at(entry('10-1'), part(1))
    assert.equal(place.take(wrong), null, JSON.stringify(wrong))
  }
  assert.equal(at(entry('10-1')).take(part(2)), null)
})

test('parts of a block that was broken off come again', () => {
  const part = i => entry('20-9', { first: '11-2', part: [i, 2] })
  const place = at(entry('10-1'), part(1))
  place.resume('10-1')
  assert.deepEqual(place.take(part(1)), [])
  assert.equal(place.take(part(2)).length, 2)
})

test('a log that goes back into a merged block is read again from before the block', () => {
  const place = at(entry('10-1'), entry('20-9', { first: '11-2' }), entry('21-10'))
  const told = { type: 'gap', session: 's', from: '21-10', to: '15-5', lost: 5, reason: 'rolled_back' }
  assert.deepEqual(place.gap(told), { gap: { ...told, to: '10-1' }, again: true })
  assert.equal(place.last, '10-1')
  assert.ok(place.take(entry('30-2')))
})

test('a log that goes back to the end of a block goes there', () => {
  const place = at(entry('10-1'), entry('20-9', { first: '11-2' }), entry('21-10'))
  const told = { type: 'gap', session: 's', from: '21-10', to: '20-9', lost: 1, reason: 'rolled_back' }
  assert.deepEqual(place.gap(told), { gap: told, again: false })
  assert.ok(place.take(entry('30-10')))
})

test('the reducer never shows what the log no longer has', () => {
  const items = [
    entry('10-1'),
    { type: 'gap', session: 's', from: '10-2', to: '10-4', lost: 3, reason: 'trimmed' },
    { type: 'live', session: 's', offset: '10-4' },
    entry('10-5'), entry('10-6'), entry('10-7'),
    { type: 'gap', session: 's', from: '10-7', to: '10-5', lost: 2, reason: 'rolled_back' },
    entry('20-6'),
  ]
  const log = items.reduce((log, item) => applied(log, item), [])
  assert.deepEqual(log.map(one => one.offset ?? `${one.reason} to ${one.to}`), ['10-1', 'trimmed to 10-4', '10-5', '20-6'])
  assert.deepEqual(applied([], ...items), log)
  assert.deepEqual(applied(log, { type: 'erased', session: 's' }), [])
})
