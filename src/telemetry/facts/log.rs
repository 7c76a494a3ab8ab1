//! What happens between runs, the log and its readers.

use std::time::Duration;

use super::Fact;
use crate::log::GapReason;
use crate::session::{RunId, SessionId};
use crate::telemetry::metrics::Metrics;

/// The log has acknowledged an append.
#[derive(Clone, Copy, Debug)]
pub struct EventsAppended<'a> {
    /// The run's session.
    pub session: &'a SessionId,
    /// The run.
    pub run: &'a RunId,
    /// How many events it held.
    pub events: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// From the first try to the acknowledgement.
    pub took: Duration,
}

impl Fact for EventsAppended<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.events.inc_by(self.events);
        metrics.count.event_bytes.inc_by(self.bytes);
        metrics.count.append.observe(self.took.as_secs_f64());
        tracing::trace!(session = %self.session, run = %self.run, events = self.events, bytes = self.bytes, "appended");
    }
}

/// The outcome of an append is unknown; it is repeated.
#[derive(Clone, Copy, Debug)]
pub struct AppendRetried<'a> {
    /// The run's session.
    pub session: &'a SessionId,
    /// The run.
    pub run: &'a RunId,
    /// How often it has been tried.
    pub tries: u32,
    /// What the store said; free of payload by the contract of `Unavailable`.
    pub detail: &'a str,
}

impl Fact for AppendRetried<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.append_retries.inc();
        tracing::debug!(session = %self.session, run = %self.run, tries = self.tries, detail = self.detail, "append repeated");
    }
}

/// The store has lost entries, and their writer appends them again.
#[derive(Clone, Copy, Debug)]
pub struct EntriesResent<'a> {
    /// The session.
    pub session: &'a SessionId,
    /// The run.
    pub run: &'a RunId,
    /// How many are appended again.
    pub entries: u64,
    /// How many its writer has not any more either.
    pub lost: u64,
}

impl Fact for EntriesResent<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.entries_resent.inc_by(self.entries);
        metrics.count.entries_lost.inc_by(self.lost);
        let EntriesResent { session, run, entries, lost } = self;
        // A failover has this of every run: that it happened is said once, by who doubts the store.
        match lost {
            0 => tracing::debug!(%session, %run, entries, "what the store has lost of a run is appended again"),
            _ => tracing::warn!(
                %session, %run, entries, lost,
                "what the store has lost of a run is appended again; entries that nobody has any more are named in its log"
            ),
        }
    }
}

/// An event was too large for the log.
#[derive(Clone, Copy, Debug)]
pub struct EventDropped<'a> {
    /// The run's session.
    pub session: &'a SessionId,
    /// The run.
    pub run: &'a RunId,
    /// The event's size.
    pub bytes: u64,
    /// Whether it is the run's first one: the others say nothing new, and their count is on the terminal.
    pub first: bool,
}

impl Fact for EventDropped<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.events_dropped.inc();
        let EventDropped { session, run, bytes, first } = self;
        match first {
            true => tracing::warn!(
                %session, %run, bytes,
                "event above limits.event_bytes: it reached the direct caller, the log only says that it was there"
            ),
            false => tracing::debug!(%session, %run, bytes, "one more event above limits.event_bytes"),
        }
    }
}

/// A subscriber read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingRead {
    /// From memory.
    Hit,
    /// It was behind, or the session was not in memory.
    Miss,
}

impl Fact for RingRead {
    fn emit(self, metrics: &Metrics) {
        let outcome = if self == RingRead::Hit { "hit" } else { "miss" };
        metrics.count.ring_reads.get_or_create(&[("outcome", outcome)]).inc();
    }
}

/// A page was read from the log.
#[derive(Clone, Copy, Debug)]
pub struct PageRead<'a> {
    /// The session.
    pub session: &'a SessionId,
    /// How many entries it held.
    pub entries: usize,
}

impl Fact for PageRead<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.pages.inc();
        tracing::trace!(session = %self.session, entries = self.entries, "page read");
    }
}

/// A reader was told that a range is missing.
#[derive(Clone, Copy, Debug)]
pub struct GapTold<'a> {
    /// The session.
    pub session: &'a SessionId,
    /// Why it is missing.
    pub reason: GapReason,
    /// How many entries it had.
    pub lost: u64,
}

impl Fact for GapTold<'_> {
    fn emit(self, metrics: &Metrics) {
        let reason = self.reason.as_str();
        metrics.count.gaps.get_or_create(&[("reason", reason)]).inc();
        // One a reader: thousands after a failover. What the store has lost is said once a session.
        tracing::debug!(session = %self.session, reason, lost = self.lost, "a reader was told of a gap");
    }
}

/// The store has begun or ceased to answer, or still does not.
#[derive(Clone, Copy, Debug)]
pub enum StoreChanged<'a> {
    /// It answers.
    Up {
        /// For how long it did not; `None`: it is the first time.
        away: Option<Duration>,
    },
    /// It does not. Most outages are over at once (a failover, a password that changes): nobody need get up yet.
    Down {
        /// What went wrong last; free of credentials by the contract of `StoreHealth`.
        reason: &'a str,
    },
    /// It does not, and it did not a while ago: somebody must act.
    StillDown {
        /// As above.
        reason: &'a str,
        /// Since when.
        away: Duration,
    },
}

impl Fact for StoreChanged<'_> {
    fn emit(self, metrics: &Metrics) {
        let seconds = |away: Duration| (away.as_secs_f64() * 10.0).round() / 10.0;
        match self {
            StoreChanged::Up { away } => {
                metrics.count.store_up.set(1);
                match away {
                    None => tracing::info!("the store answers"),
                    Some(away) => tracing::info!(away_s = seconds(away), "the store answers again"),
                }
            }
            StoreChanged::Down { reason } => {
                metrics.count.store_up.set(0);
                tracing::warn!(
                    reason,
                    "the store does not answer: new streams are not recorded until it does, active runs wait for it"
                );
            }
            StoreChanged::StillDown { reason, away } => tracing::error!(
                reason,
                away_s = seconds(away),
                "the store is still away: new streams are not recorded, runs are kept in memory alone and give up \
                 after store.outage_limit; is it running and reachable, and are the [store] settings right?"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_counts_its_events_bytes_and_time() {
        let metrics = Metrics::new();
        let (session, run) = (SessionId::from_random(1), RunId::from_random(2));
        let took = Duration::from_millis(3);
        EventsAppended { session: &session, run: &run, events: 5, bytes: 700, took }.emit(&metrics);
        let text = metrics.encode();
        for line in
            ["sidestream_events_total 5", "sidestream_event_bytes_total 700", "sidestream_append_seconds_count 1"]
        {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
