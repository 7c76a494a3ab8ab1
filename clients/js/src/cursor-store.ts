/**
 * Where a cursor outlives its object. Must never say that something was kept which was not: a store that is full or
 * forbidden forgets, and the reader begins where its `after` says.
 */

/** Keeps the offset up to which an application has what it reads. */
export interface CursorStore {
  load(key: string): string | null | undefined | Promise<string | null | undefined>
  /** `null`: nothing is had any more. */
  save(key: string, offset: string | null): void
}

/** Gone with the object. */
export function memory(): CursorStore {
  const offsets = new Map<string, string>()
  return {
    load: key => offsets.get(key),
    save: (key, offset) => void (offset === null ? offsets.delete(key) : offsets.set(key, offset)),
  }
}

/** Survives a reload of the tab. For applications that keep what they have read as long. */
export const inSession = (): CursorStore => inStorage(() => globalThis.sessionStorage)

/** Survives the browser. For applications that keep what they have read as long. */
export const inLocal = (): CursorStore => inStorage(() => globalThis.localStorage)

function inStorage(storage: () => Storage): CursorStore {
  const attempt = <T>(act: (storage: Storage) => T) => {
    try {
      return act(storage())
    } catch {
      return undefined
    }
  }
  return {
    load: key => attempt(storage => storage.getItem(key)),
    save: (key, offset) =>
      void attempt(storage => (offset === null ? storage.removeItem(key) : storage.setItem(key, offset))),
  }
}
