//! Why a body that a run reads has broken off, where it is not the upstream's.

/// The error of a body whose end is said, on the run's terminal, with this reason: a code of ours.
/// Any other error is `upstream_reset`.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off: {0}")]
pub struct BrokenOff(pub &'static str);
