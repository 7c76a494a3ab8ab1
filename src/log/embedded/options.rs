//! What the operator decides about an embedded log.

use std::path::PathBuf;
use std::time::Duration;

use crate::log::Retention;

/// Where an embedded log lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In this directory, which is created if it does not exist and locked while the log is open.
    Dir(PathBuf),
    /// In memory; gone with the process.
    Memory,
}

/// The options of an embedded log.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Where it lives.
    pub location: Location,
    /// How long each session is kept.
    pub retention: Retention,
    /// Bytes of all sessions together, with an allowance per entry for its keys. Above it the
    /// oldest sessions without an active run go; active ones never.
    pub total_bytes: u64,
    /// How often what has expired is looked for, and a store that failed is tried again.
    pub sweep_every: Duration,
}

impl EmbeddedOptions {
    /// The default options of a log at `location`.
    pub fn new(location: Location) -> Self {
        EmbeddedOptions {
            location,
            retention: Retention::default(),
            total_bytes: 2 << 30,
            sweep_every: Duration::from_secs(1),
        }
    }
}
