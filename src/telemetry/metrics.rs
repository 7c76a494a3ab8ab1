//! The metrics, `sidestream_<noun>_<unit>[_total]`. Labels have few, fixed values: never an id, a
//! path or anything else that a client chooses.
//!
//! The instruments are private to `telemetry`: the rest of the program reports facts.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::facts::{CancelCalled, NotRecorded, RequestOutcome, SendAnswered, SteerAnswered};
use crate::log::GapReason;
use crate::session::{RunState, Terminal};

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Counters by one label.
type Counters = Family<[(&'static str, &'static str); 1], Counter>;

/// Counters by two labels, whose values the configuration gives.
type Named = Family<[(&'static str, String); 2], Counter>;

/// All metrics of this instance. Clones are the same.
#[derive(Clone)]
pub struct Metrics {
    pub(super) count: Arc<Instruments>,
}

/// The instruments; see their help texts in [`Metrics::new`].
pub(super) struct Instruments {
    registry: Registry,
    pub(super) requests: Counters,
    pub(super) runs: Counters,
    pub(super) runs_truncated: Counter,
    pub(super) tokens: Named,
    pub(super) dialect_mismatches: Counters,
    pub(super) active_runs: Gauge,
    pub(super) events: Counter,
    pub(super) event_bytes: Counter,
    pub(super) events_dropped: Counter,
    pub(super) append: Histogram,
    pub(super) append_retries: Counter,
    pub(super) entries_resent: Counter,
    pub(super) entries_lost: Counter,
    pub(super) subscribers: Gauge,
    pub(super) sockets: Gauge,
    pub(super) ring_reads: Counters,
    pub(super) pages: Counter,
    pub(super) gaps: Counters,
    pub(super) callers_cut_off: Counter,
    pub(super) store_up: Gauge,
    pub(super) streams_not_recorded: Counters,
    pub(super) session_rules_skipped: Counter,
    pub(super) takeovers: Counter,
    pub(super) cancels: Counter,
    pub(super) cancel_calls: Counters,
    pub(super) sends: Counters,
    pub(super) steers: Counters,
    pub(super) panics: Counter,
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("sidestream");
        registry.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let mut new = Registrar { registry };
        let states = [
            RunState::Started,
            RunState::Stalled,
            RunState::Resumed,
            RunState::Ended(Terminal::Completed),
            RunState::Ended(Terminal::Failed),
            RunState::Ended(Terminal::Cancelled),
            RunState::Ended(Terminal::Interrupted),
        ];
        let reasons = [GapReason::Trimmed, GapReason::RolledBack, GapReason::Expired];
        let count = Arc::new(Instruments {
            requests: new.counters(
                "requests",
                "Requests answered, by what became of them",
                "outcome",
                RequestOutcome::ALL.map(RequestOutcome::as_str),
            ),
            runs: new.counters("runs", "Runs that have reached a state", "state", states.map(RunState::as_str)),
            runs_truncated: new
                .counter("runs_truncated", "Runs whose upstream ended cleanly, without the end of its dialect"),
            tokens: new.named("tokens", "Tokens of runs, as their streams say it, by route and direction"),
            dialect_mismatches: new.counters(
                "dialect_mismatches",
                "Runs that are not as the dialect of their route says",
                "kind",
                ["contradicted", "without_text"],
            ),
            active_runs: new.gauge("runs_active", "Runs that this instance drives"),
            events: new.counter("events", "Events that the log has acknowledged"),
            event_bytes: new.counter("event_bytes", "Bytes of the events that the log has acknowledged"),
            events_dropped: new
                .counter("events_dropped", "Events above limits.event_bytes: kept from the log, not from the caller"),
            append: new.histogram("append_seconds", "Time until the log has acknowledged an append"),
            append_retries: new.counter("append_retries", "Appends whose outcome was unknown and that were repeated"),
            entries_resent: new
                .counter("entries_resent", "Entries that the store had lost and that were appended again"),
            entries_lost: new.counter("entries_lost", "Entries that the store has lost and nobody has any more"),
            subscribers: new.gauge("subscribers_attached", "Subscribers attached to sessions"),
            sockets: new.gauge("sockets_open", "WebSocket connections"),
            ring_reads: new.counters(
                "ring_reads",
                "Reads of subscribers: from memory (hit) or from the log (miss)",
                "outcome",
                ["hit", "miss"],
            ),
            pages: new.counter("pages_read", "Pages read from the log"),
            gaps: new.counters("gaps", "Gaps told to readers", "reason", reasons.map(GapReason::as_str)),
            callers_cut_off: new
                .counter("callers_cut_off", "Direct callers cut off because they were too far behind their run"),
            store_up: new.gauge("store_up", "Whether the store answers (1) or not (0)"),
            streams_not_recorded: new.counters(
                "streams_not_recorded",
                "Streams passed through without a record",
                "reason",
                NotRecorded::ALL.map(NotRecorded::as_str),
            ),
            session_rules_skipped: new
                .counter("session_rules_skipped", "Requests whose body was above server.identity_body_limit"),
            cancels: new.counter("cancels", "Requests of clients to end runs"),
            cancel_calls: new.counters(
                "cancel_calls",
                "Calls of the routes' `cancel`, by what the upstream said: done (2xx), refused, failed (not made)",
                "outcome",
                CancelCalled::OUTCOMES,
            ),
            sends: new.counters("sends", "Messages `send`, by what became of them", "outcome", SendAnswered::OUTCOMES),
            steers: new.counters(
                "steers",
                "Messages `steer`, by what became of them",
                "outcome",
                SteerAnswered::OUTCOMES,
            ),
            takeovers: new.counter("takeovers", "Runs of dead instances that this one has ended"),
            panics: new.counter("panics", "Defects of sidestream that were caught"),
            registry: new.registry,
        });
        Metrics { count }
    }

    /// All metrics as OpenMetrics text ([`CONTENT_TYPE`]).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.count.registry).expect("writing to a String does not fail");
        text
    }

    /// A subscriber is attached for as long as the answer lives.
    pub fn subscriber(&self) -> Held {
        Held::new(&self.count.subscribers)
    }

    /// A WebSocket is open for as long as the answer lives.
    pub fn socket(&self) -> Held {
        Held::new(&self.count.sockets)
    }

    /// A run is driven here for as long as the answer lives.
    pub fn active_run(&self) -> Held {
        Held::new(&self.count.active_runs)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// One of something that is counted while it exists.
#[derive(Debug)]
#[must_use = "it is counted only while this value lives"]
pub struct Held(Gauge);

impl Held {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Held(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Registrar {
    registry: Registry,
}

impl Registrar {
    fn named(&mut self, name: &str, help: &str) -> Named {
        let family = Named::default();
        self.registry.register(name, help, family.clone());
        family
    }

    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.registry.register(name, help, counter.clone());
        counter
    }

    /// Every value is there from the start: a series that appears with its first failure cannot be
    /// alerted on.
    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: [&'static str; N],
    ) -> Counters {
        let counters = Counters::default();
        for value in values {
            drop(counters.get_or_create(&[(label, value)]));
        }
        self.registry.register(name, help, counters.clone());
        counters
    }

    fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.registry.register(name, help, gauge.clone());
        gauge
    }

    /// From 100 µs to 13 s.
    fn histogram(&mut self, name: &str, help: &str) -> Histogram {
        let histogram = Histogram::new(exponential_buckets(0.0001, 2.0, 18));
        self.registry.register(name, help, histogram.clone());
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_before_anything_has_happened() {
        let text = Metrics::new().encode();
        for line in [
            "sidestream_runs_total{state=\"interrupted\"} 0",
            "sidestream_gaps_total{reason=\"rolled_back\"} 0",
            "sidestream_store_up 0",
            "sidestream_append_seconds_count 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_page_of_metrics_lists_all_of_them_and_no_others() {
        let metrics = Metrics::new();
        // What is counted by route is there from its first count on.
        metrics.count.tokens.get_or_create(&[("route", "POST /".into()), ("direction", "input".into())]).inc();
        let text = metrics.encode();
        let mut there: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let page = include_str!("../../docs/metrics.md");
        let mut listed: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| `sidestream_")).collect();
        for named in [&mut there, &mut listed] {
            for line in named.iter_mut() {
                let name = line.trim_start_matches("sidestream_").split([' ', '`', '{']).next().unwrap();
                *line = name.trim_end_matches("_total").trim_end_matches("_info");
            }
            named.sort_unstable();
        }
        assert_eq!(there, listed);
    }

    #[test]
    fn what_is_held_is_counted_until_it_is_let_go() {
        let metrics = Metrics::new();
        let held = (metrics.subscriber(), metrics.clone().subscriber());
        assert!(metrics.encode().contains("sidestream_subscribers_attached 2"));
        drop(held);
        assert!(metrics.encode().contains("sidestream_subscribers_attached 0"));
    }
}
