//! The log: where sessions live. [`Log`] is the contract; `redis` and `embedded` keep it.
//!
//! The contract speaks of sessions, entries and offsets, never of a store's own terms. Nothing
//! outside this module may know which store it runs on.

mod contract;
pub mod embedded;
pub mod redis;

pub use contract::*;

pub use crate::session::{Gap, GapReason};
