/**
 * What a `for await` loop has not taken yet. Must never grow without bound: when it is full it says so, and the session
 * stops reading; nothing is dropped.
 */
import type { Item } from './frames.js'

/** So many may wait before the session is detached; what is on its way then is not taken. */
const FULL = 1024

export class Inbox implements AsyncIterableIterator<Item> {
  #items: { item: Item; offset: string }[] = []
  #asked: { resolve(result: IteratorResult<Item>): void; reject(error: Error): void }[] = []
  #ended = false
  #error?: Error
  #taken?: string

  /**
   * @param taken what it was given before is done with: the application has everything up to this offset.
   * @param room there is room again.
   * @param left the loop was left.
   */
  constructor(
    private readonly taken: (offset: string) => void,
    private readonly room: () => void,
    private readonly left: () => void,
  ) {}

  get full(): boolean {
    return this.#items.length >= FULL
  }

  put(item: Item, offset: string): void {
    const asked = this.#asked.shift()
    if (!asked) this.#items.push({ item, offset })
    else {
      this.#taken = offset
      asked.resolve({ done: false, value: item })
    }
  }

  /** No more comes; what is there is still given. */
  end(error?: Error): void {
    this.#ended = true
    this.#error = error
    this.left()
    for (const { resolve, reject } of this.#asked.splice(0)) error ? reject(error) : resolve(done)
  }

  next(): Promise<IteratorResult<Item>> {
    this.#done()
    const next = this.#items.shift()
    if (next) {
      this.#taken = next.offset
      if (this.#items.length === FULL >> 1) this.room()
      return Promise.resolve({ done: false, value: next.item })
    }
    if (this.#ended) return this.#error ? Promise.reject(this.#error) : Promise.resolve(done)
    return new Promise((resolve, reject) => this.#asked.push({ resolve, reject }))
  }

  return(): Promise<IteratorResult<Item>> {
    this.#done()
    this.end()
    this.#items = []
    this.room()
    return Promise.resolve(done)
  }

  #done(): void {
    if (this.#taken !== undefined) this.taken(this.#taken)
    this.#taken = undefined
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}

const done: IteratorResult<Item> = { done: true, value: undefined }
