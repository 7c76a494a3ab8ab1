//! The log: where sessions live. [`Log`] is the contract; `redis` and `embedded` keep it.
//!
//! The contract speaks of sessions, entries and offsets, never of a store's own terms. Nothing
//! outside this module may know which store it runs on.

mod contract;
mod control;
mod doubts;
pub mod embedded;
mod following;
mod queueing;
mod reading;
pub mod redis;
mod retained;
mod sharing;
mod tally;
mod writing;

pub use contract::*;
pub use control::*;
pub use doubts::Doubts;
pub(crate) use doubts::{Standing, doubt, standing};
pub use following::*;
pub use queueing::*;
pub use reading::*;
pub(crate) use retained::{Again, Lost, Retained};
pub use sharing::*;
pub use tally::*;
pub use writing::*;

pub use crate::session::{Gap, GapReason};

#[cfg(test)]
pub(crate) mod scripted;
