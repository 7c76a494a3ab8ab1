//! What operators see: log lines, metrics, and the facts that are both.
//!
//! Whoever observes something says it once, as a [`Fact`]: `RunEnded { … }.emit(&metrics)` logs and
//! counts together, so that a log line without its count (or the reverse) cannot happen. A new fact
//! is a struct in `facts` with the fields that an operator asks for, and its `emit`.
//!
//! Levels: ERROR, somebody must act; WARN, something was lost or will be if it goes on; INFO, what
//! one wants to read afterwards; DEBUG and TRACE, for a single run. No payload, credential, header
//! value or query string is ever a field, at any level. Nothing here decides anything.

mod facts;
mod logging;
mod metrics;
mod panics;

pub use facts::*;
pub use logging::init;
pub use metrics::{CONTENT_TYPE, Held, Metrics};
pub use panics::install_panic_hook;
