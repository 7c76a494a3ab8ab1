/** What went wrong, as the protocol names it. Programs match on `code`, never on the words. */
export class SidestreamError extends Error {
  override name = 'SidestreamError'
  /**
   * @param code a code of the protocol (docs/errors.md), or one of the client's own: `disconnected` (nobody knows
   *   whether it happened), `closed` (by `close()`), `expired` (the credential).
   * @param retryable nothing was begun, and the same may succeed a little later.
   */
  constructor(readonly code: string, message: string, readonly retryable = false) {
    super(message)
  }
}
