/**
 * Cuts the bytes of an answer where its events end, and counts the events as Sidestream does: what has data (SSE), what
 * is no blank line (lines). Knows no network. Must never change a byte, and never give out a part of an event.
 * Source of the rules: WHATWG HTML, "Interpreting an event stream".
 */

const LF = 10
const CR = 13
const BOM = [0xef, 0xbb, 0xbf]

/** Bytes between two places where the stream may be cut. */
export interface Piece {
  bytes: Uint8Array
  /** One event, which its log has, too. Else comments, fields without data, blank lines. */
  event: boolean
}

export class Cutter {
  #parts: Uint8Array[] = []
  #seen = 0
  #line = ''
  #afterCr = false
  /** Whether the block has data; whether it has any field. */
  #data = false
  #fields = false

  /** @param lines an event is a line, not an event stream's block. */
  constructor(private readonly lines: boolean) {}

  push(chunk: Uint8Array): Piece[] {
    const pieces: Piece[] = []
    let start = 0
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i]!
      const ended = this.#byte(byte)
      if (ended === undefined) continue
      // The second half of a line end that was taken for one already.
      if (byte === CR && chunk[i + 1] === LF) {
        i++
        this.#afterCr = false
      }
      pieces.push({ bytes: this.#piece(chunk.subarray(start, i + 1)), event: ended })
      start = i + 1
    }
    if (start < chunk.length) this.#parts.push(chunk.slice(start))
    return pieces
  }

  /** What came after the last place where the stream may be cut. */
  rest(): Uint8Array {
    return this.#piece(new Uint8Array())
  }

  /** Whether a piece ends with this byte, and if so whether it is an event. */
  #byte(byte: number): boolean | undefined {
    const position = this.#seen++
    const afterCr = this.#afterCr
    this.#afterCr = byte === CR && !this.lines
    if (byte === LF && afterCr) return this.#parts.length || this.#fields || this.#data ? undefined : false
    if (byte === LF || this.#afterCr) return this.lines ? this.#lineEnds() : this.#fieldEnds()
    if (this.lines) {
      if (this.#line === '' && !(byte === 32 || (byte >= 9 && byte <= 13))) this.#line = '.'
    } else if (this.#line.length < 5 && !(position < 3 && byte === BOM[position])) this.#line += String.fromCharCode(byte)
    return undefined
  }

  #lineEnds(): boolean {
    const said = this.#line !== ''
    this.#line = ''
    return said
  }

  #fieldEnds(): boolean | undefined {
    const line = this.#line
    this.#line = ''
    if (line === '') {
      const event = this.#data
      this.#data = this.#fields = false
      return event
    }
    // A comment between two events is nobody's.
    if (line[0] === ':') return this.#fields ? undefined : false
    this.#fields = true
    if (line === 'data' || line === 'data:') this.#data = true
    return undefined
  }

  #piece(last: Uint8Array): Uint8Array {
    if (!this.#parts.length) return last.slice()
    const parts = [...this.#parts, last]
    this.#parts = []
    const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
    let at = 0
    for (const part of parts) {
      whole.set(part, at)
      at += part.length
    }
    return whole
  }
}
