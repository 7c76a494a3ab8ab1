//! What unit tests of runs begin with.

use std::sync::Arc;
use std::time::Duration;

use crate::dialect::Format;
use crate::log::OnBusy;
use crate::log::scripted::Scripted;
use crate::run::owner::{Ending, RunSpec};
use crate::run::{Runs, RunsSettings, Tagging};
use crate::session::{Record, RunId, RunState, SessionId};
use crate::telemetry::Metrics;

/// The smallest bounds, and nothing that happens because `patience` has passed.
pub(super) fn settings(patience: Duration) -> RunsSettings {
    RunsSettings {
        dialects: Arc::default(),
        event_bytes: 1,
        pending_bytes: 1,
        run_duration: patience,
        caller_buffer: 1,
        eager_after: patience,
        outage_limit: patience,
    }
}

/// Runs with these settings.
pub(super) fn runs_on(log: Arc<Scripted>, patience: Duration) -> Arc<Runs> {
    Runs::new(log, settings(patience), Metrics::new())
}

/// A root run whose upstream was not called yet.
pub(super) fn spec(run: &RunId, patience: Duration) -> RunSpec {
    RunSpec {
        session: SessionId::from_random(1),
        run: run.clone(),
        opening: vec![Record::run_state(run.clone(), RunState::Started, "{}")],
        status: None,
        source: None,
        parent: None,
        subject: None,
        grace: None,
        key: None,
        route: "r".into(),
        on_busy: OnBusy::Parallel,
        values: Vec::new(),
        on_cancel: None,
        steer: None,
        format: Format::default(),
        ending: Ending::default(),
        ids: Tagging::Off,
        stall: patience,
        stall_limit: patience,
    }
}
