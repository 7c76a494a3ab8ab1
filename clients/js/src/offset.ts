/**
 * Offsets, `<ms>-<seq>`: where an entry is in its session. Must never compare two by `seq` alone where the
 * question is whether they are the same: a log that went back in time gives a `seq` a second time.
 */

/** Before the first entry of every session. */
export const START = '0-0'

/** The place of the entry in its session, contiguous from 1. */
export const seqOf = (offset: string): number => Number(offset.slice(offset.indexOf('-') + 1))

/** Whether the text has the form of an offset. */
export const isOffset = (text: unknown): text is string => typeof text === 'string' && /^\d+-\d+$/.test(text)
