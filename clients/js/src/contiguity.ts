/**
 * The proof that nothing is missing: every entry follows the one before. Knows no socket and no time. Must never let
 * an entry through that does not follow, nor a part of a block before all of its parts are there.
 */
import type { Entry, Gap } from './frames.js'
import { START, seqOf } from './offset.js'

/** How many merged blocks are remembered, so that a log that goes back into one of them is read again from before it. */
const BLOCKS = 1024

interface Block {
  before: string
  first: number
  last: number
}

/** A reader's place in the log. */
export class Place {
  /** The last entry that was read whole. */
  last = START
  #held: Entry[] = []
  #blocks: Block[] = []

  /** Begins again after `offset`; parts of a block whose last one did not come are forgotten. */
  resume(offset: string): void {
    this.last = offset
    this.#held = []
  }

  /** The entries to hand on now, none while parts of their block are missing; `null`: it does not follow. */
  take(entry: Entry): Entry[] | null {
    const held = this.#held
    const [i, k] = entry.part ?? [1, 1]
    const first = seqOf(entry.first ?? entry.offset)
    const begun = held[0]
    const sameBlock = !begun || (begun.offset === entry.offset && begun.first === entry.first && begun.part?.[1] === k)
    const follows = entry.prev === undefined ? first === seqOf(this.last) + 1 : entry.prev === this.last && first > seqOf(this.last)
    if (!sameBlock || !follows || i !== held.length + 1 || i > k || seqOf(entry.offset) < first) return null
    held.push(entry)
    if (i < k) return []
    if (entry.first) {
      this.#blocks.push({ before: this.last, first, last: seqOf(entry.offset) })
      if (this.#blocks.length > BLOCKS) this.#blocks.shift()
    }
    this.resume(entry.offset)
    return held
  }

  /** A filtered reader is told where it is. Whether that follows. */
  skip(prev: string, offset: string): boolean {
    if (prev !== this.last || this.#held.length) return false
    this.last = offset
    return true
  }

  /**
   * The gap as this reader must apply it. Where the log went back into the middle of a merged block, of which nothing
   * can be taken away, its `to` is before the block: `again` says that what is between must be read again.
   */
  gap(gap: Gap): { gap: Gap; again: boolean } {
    let to = gap.to
    if (gap.reason === 'rolled_back') {
      const at = seqOf(to)
      const split = this.#blocks.find(block => block.first <= at && at < block.last)
      if (split) to = split.before
      // Blocks that are not remembered any more may have been split, too.
      const oldest = this.#blocks[0]
      if (!split && this.#blocks.length === BLOCKS && oldest && at < oldest.first) to = START
      this.#blocks = this.#blocks.filter(block => block.last <= seqOf(to))
    }
    this.resume(to)
    return { gap: to === gap.to ? gap : { ...gap, to }, again: to !== gap.to }
  }
}
