/**
 * What an application shows, kept in step with the log: a reducer. Must never keep an entry that the log no longer
 * has, and never change what it was given (so that a view can compare by identity).
 */
import type { Entry, Gap, Item } from './frames.js'
import { seqOf } from './offset.js'

/** A view of a session: its entries in order, and in between the ranges that nobody can read any more. */
export type Log = readonly (Entry | Gap)[]

/** The log after these items. `applied(log, item)` is a reducer: for `useReducer`, or `items.reduce`. */
export function applied(log: Log, ...items: Item[]): Log {
  let after = [...log]
  for (const item of items) {
    if (item.type === 'live') continue
    else if (item.type === 'erased') after = []
    else if (item.type === 'gap' && item.reason === 'rolled_back') {
      const to = seqOf(item.to)
      after = after.filter(kept => seqOf(kept.type === 'gap' ? kept.to : kept.offset) <= to)
    } else after.push(item)
  }
  return after
}
