//! What holds when the store fails: one workload, a table of faults, one row of figures for each.
//!
//! Heavy: `scripts/faults` plays all of them and prints the table of `docs/reliability.md`. What runs
//! with the other tests is a small workload under a few faults. `FAULTS_SCALE=full` makes any of them heavy.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

#[allow(unused_imports, dead_code, reason = "shared with the tests of the demo page")]
#[path = "../support/mod.rs"]
mod support;

mod agents;
mod caller;
mod deployed;
mod deployments;
mod evicting;
mod fault;
mod recovering;
mod row;
mod scale;
mod scene;
mod subscriber;
mod suite;
mod verdict;
