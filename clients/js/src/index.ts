/** The whole package but what needs React or the AI SDK, which have entries of their own. */
export * from './connect.js'
export { durable, durableFetch, type DurableFetchOptions } from './fetch.js'
export { SessionEventSource } from './event-source.js'
