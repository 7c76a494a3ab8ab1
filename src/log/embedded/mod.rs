//! The log on local disk, in one process: the default store.
//!
//! One thread writes: it takes every operation that waits, applies them in one transaction of
//! `redb`, commits it durably, and only then answers and tells followers. What arrives during a
//! commit is the next batch; there is no timer. Reads run on snapshots, beside the writer.
//!
//! The database is the only truth: nothing here caches what it says beyond one transaction, so an
//! I/O error can leave no wrong memory behind. See `docs/log.md` for the file and its cost.
//!
//! This module must never answer or push before the commit, and never let a second process in.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails here"))]

mod batch;
mod control;
mod cursors;
mod database;
mod directory;
mod encoding;
mod entry;
mod error;
mod followers;
mod leases;
mod log;
mod options;
mod presence;
mod queue;
mod read;
mod recovery;
mod request;
mod retention;
mod sessions;
mod start;
mod state;
mod subjects;
mod tables;
mod tomb;
mod write;
mod writer;

#[cfg(test)]
mod tests;

pub use error::OpenError;
pub use log::EmbeddedLog;
pub use options::{EmbeddedOptions, Location};
