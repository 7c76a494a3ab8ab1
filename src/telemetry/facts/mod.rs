//! The facts: one struct per thing that an operator can observe. Fields are ids, sizes, durations
//! and reasons; see the rule of `telemetry` about what they must never be.

mod control;
mod log;
mod request;
mod run;
mod writing;

use super::metrics::Metrics;

pub use control::*;
pub use log::*;
pub use request::*;
pub use run::*;
pub use writing::*;

/// Something that has happened.
pub trait Fact {
    /// Logs and counts it, once.
    fn emit(self, metrics: &Metrics);
}
