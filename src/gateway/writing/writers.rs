//! What direct writes need of the rest of us.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::config::{Config, Route};
use crate::run::Runs;

/// What direct writes need: the runs that uploads may become, and bounds.
pub struct Writers {
    /// Drives the uploads that are runs of their own.
    pub(super) runs: Arc<Runs>,
    /// Largest event that is kept, bytes.
    pub(super) event_bytes: usize,
    /// How long a write waits for a store that is away.
    pub(super) patience: Duration,
    routes: Vec<Route>,
    unnamed: Route,
}

impl Writers {
    /// What `config` says.
    pub fn new(runs: Arc<Runs>, config: &Config) -> Self {
        Writers {
            runs,
            event_bytes: usize::try_from(config.limits.event_bytes).unwrap_or(usize::MAX),
            patience: config.store.outage_limit,
            routes: config.routes.clone(),
            unnamed: Route::unnamed(),
        }
    }

    /// The route whose limits of silence hold for an upload to `path`.
    pub(super) fn route(&self, path: &str) -> &Route {
        self.routes.iter().find(|route| route.pattern.matches(&Method::POST, path)).unwrap_or(&self.unnamed)
    }
}
