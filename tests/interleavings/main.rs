//! What must hold however things fall together: writers, owners, those who cancel, withdraw and take
//! over, and subscribers, all at once, on a real store.
//!
//! What happens is a plan that is made from a seed; which of it happens first is left to the machine.
//! So a seed repeats the plan, and often enough the failure. A test plays plans for some seconds;
//! `INTERLEAVINGS_SECONDS` lets it go on for longer, `INTERLEAVINGS_SEED` repeats one plan.
//! A test that fails prints the seed and the plan.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test that cannot go on fails here")]

#[macro_use]
#[path = "../log_contract/stores.rs"]
mod stores;

#[path = "../support/redis_server.rs"]
#[allow(dead_code, reason = "shared with other test binaries")]
mod redis_server;

mod outage;
mod owners;
mod plan;
mod race;
mod readers;
mod upstream;
mod verdict;
