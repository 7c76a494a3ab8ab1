//! Between the proxy and the runs: which requests' answers are recorded, and the answers to clients
//! that come back for one: with an SSE id, at a resume route, or with a request that they have made before.
//!
//! Must never change what the caller of a recorded stream gets, nor record what the route's rules
//! leave to the upstream.

mod announcing;
mod beginning;
mod candidate;
mod claim;
mod claimed;
mod fingerprint;
mod interceptor;
mod joining;
mod late;
mod once;
mod repeat;
mod resuming;
mod retries;
mod returning;
mod scope;

pub use interceptor::Interceptor;
