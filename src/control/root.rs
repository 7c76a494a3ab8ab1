//! What all of live control shares.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Routes, SendSettings};
use crate::hub::Hub;
use crate::log::{Log, QueueLimits};
use crate::proxy::Passthrough;
use crate::run::Runs;
use crate::telemetry::Metrics;

/// How long a client waits for the answer to a control message: longer than it takes until the runs
/// of a dead instance are taken over.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(6);

/// How soon a store that does not answer is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Live control of this instance.
pub struct Control {
    pub(super) log: Arc<dyn Log>,
    pub(super) hub: Arc<Hub>,
    pub(super) runs: Arc<Runs>,
    pub(super) proxy: Arc<Passthrough>,
    pub(super) routes: Routes,
    pub(super) send: SendSettings,
    pub(super) limits: ControlLimits,
    pub(super) metrics: Metrics,
}

/// Bounds of live control.
#[derive(Clone, Debug)]
pub struct ControlLimits {
    /// What may wait in the queue of one session.
    pub queue: QueueLimits,
    /// The reserved path of our own routes, which nobody sends to.
    pub prefix: String,
}

impl Control {
    /// Live control of the runs in `runs`, over the upstream behind `proxy`.
    pub fn new(
        log: Arc<dyn Log>,
        hub: Arc<Hub>,
        runs: Arc<Runs>,
        proxy: Arc<Passthrough>,
        config: &Config,
        metrics: Metrics,
    ) -> Arc<Self> {
        let queue = QueueLimits { depth: config.limits.queue_depth, bytes: config.limits.queue_bytes };
        Arc::new(Control {
            log,
            hub,
            runs,
            proxy,
            routes: Routes::new(config),
            send: config.send.clone(),
            limits: ControlLimits { queue, prefix: config.server.prefix.clone() },
            metrics,
        })
    }
}
