/**
 * What an application shows, kept in step with the log: a reducer. Must never keep an entry that the log no longer
 * has, and never change what it was given (so that a view can compare by identity).
 */
import type { Entry, Gap, Item } from './frames.js'
import { seqOf } from './offset.js'

/** A view of a session: its entries in order, and in between the ranges that nobody can read any more. */
export type Log = readonly (Entry | Gap)[]

/** The log after `item`. For `items.reduce(applied, [])`, or React's `useReducer`. */
export function applied(log: Log, item: Item): Log {
  switch (item.type) {
    case 'live':
      return log
    case 'erased':
      return []
    case 'gap': {
      if (item.reason !== 'rolled_back') return [...log, item]
      const to = seqOf(item.to)
      return log.filter(kept => seqOf(kept.type === 'gap' ? kept.to : kept.offset) <= to)
    }
    default:
      return [...log, item]
  }
}
