//! What happens when somebody writes to a session directly.

use std::time::Duration;

use super::Fact;
use crate::session::SessionId;
use crate::telemetry::metrics::Metrics;

/// The log has acknowledged entries of a producer.
#[derive(Clone, Copy, Debug)]
pub struct EventsWritten<'a> {
    /// The session.
    pub session: &'a SessionId,
    /// How many they were.
    pub events: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// From the first try to the acknowledgement.
    pub took: Duration,
}

impl Fact for EventsWritten<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.events.inc_by(self.events);
        metrics.count.event_bytes.inc_by(self.bytes);
        metrics.count.append.observe(self.took.as_secs_f64());
        tracing::trace!(session = %self.session, events = self.events, bytes = self.bytes, "written");
    }
}

/// The outcome of a producer's append is unknown; it is repeated.
#[derive(Clone, Copy, Debug)]
pub struct WriteRetried<'a> {
    /// The session.
    pub session: &'a SessionId,
    /// How often it has been tried.
    pub tries: u32,
    /// What the store said; free of payload by the contract of `Unavailable`.
    pub detail: &'a str,
}

impl Fact for WriteRetried<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.append_retries.inc();
        tracing::debug!(session = %self.session, tries = self.tries, detail = self.detail, "write repeated");
    }
}

/// An event of a producer was too large for the log.
#[derive(Clone, Copy, Debug)]
pub struct WrittenEventDropped<'a> {
    /// The session.
    pub session: &'a SessionId,
    /// Whether it is the first one of its request.
    pub first: bool,
}

impl Fact for WrittenEventDropped<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.events_dropped.inc();
        let WrittenEventDropped { session, first } = self;
        match first {
            true => tracing::warn!(%session, "event above limits.event_bytes: the log only says that it was there"),
            false => tracing::debug!(%session, "one more event above limits.event_bytes"),
        }
    }
}
