//! The contract of the log, told once and run on every store.
//!
//! A case is an `async fn(Store)`; `on_every_store!` makes it a test of each store. A new store is
//! one variant in `stores.rs` and one line in its macro. Cases ask only what `src/log/contract.rs`
//! promises: where two answers are both within the contract, both are accepted.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test that cannot go on fails here")]

#[macro_use]
mod stores;

#[path = "../support/redis_server.rs"]
#[allow(dead_code, reason = "shared with the Redis-only cases")]
mod redis_server;

#[path = "../support/redis_cluster.rs"]
#[allow(dead_code, reason = "shared with the tests of the whole")]
mod redis_cluster;

mod actors;
mod appending;
mod cancelling;
mod claims;
mod cluster;
mod commanding;
mod ending;
mod following;
mod interleavings;
mod leases;
mod locating;
mod on_disk;
mod opening;
mod producers;
mod queueing;
mod reading;
mod recordings;
mod retention;
mod sharing;
mod subjects;
mod vanishing;
