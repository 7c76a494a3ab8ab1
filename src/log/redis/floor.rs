//! The largest time in any offset that the log was given: what a server that went back in time, with a
//! clock that is behind, must not fall below. Fed by the server's answers alone, never by what a client
//! sends, who could move all sessions into the future.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::Offset;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Floor(AtomicU64);

impl Floor {
    /// The server has given this offset.
    pub(super) fn heard(&self, offset: Offset) {
        self.0.fetch_max(offset.ms, Ordering::Relaxed);
    }

    /// The largest `ms` so far; 0: none.
    pub(super) fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
