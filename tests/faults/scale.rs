//! How large the workload is.

use std::time::Duration;

/// The size of a workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Half of them through each sidecar.
    pub(crate) runs: usize,
    /// Half of them at each sidecar.
    pub(crate) subscribers: usize,
    /// Runs and subscribers are spread over them.
    pub(crate) sessions: usize,
    /// Between two events of a run.
    pub(crate) pace: Duration,
    /// How long everything goes well before the fault, and after it is healed.
    pub(crate) calm: Duration,
}

impl Scale {
    /// What the table of `docs/reliability.md` is measured with.
    pub(crate) const FULL: Scale = Scale {
        runs: 100,
        subscribers: 300,
        sessions: 50,
        pace: Duration::from_millis(250),
        calm: Duration::from_secs(5),
    };

    /// Small enough to run beside other tests.
    pub(crate) const QUICK: Scale = Scale {
        runs: 12,
        subscribers: 24,
        sessions: 6,
        pace: Duration::from_millis(100),
        calm: Duration::from_secs(1),
    };

    /// As `FAULTS_SCALE` says: `full`, or `quick` where it says nothing.
    pub(crate) fn from_env() -> Self {
        match std::env::var("FAULTS_SCALE").as_deref() {
            Ok("full") => Scale::FULL,
            _ => Scale::QUICK,
        }
    }
}
