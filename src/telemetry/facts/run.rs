//! What happens to runs.

use std::time::Duration;

use super::Fact;
use crate::dialect::Tokens;
use crate::session::{InstanceId, RunId, RunState, SessionId, Terminal};
use crate::telemetry::metrics::Metrics;

/// A run is in the log: the upstream has answered with a stream, or is about to be called.
#[derive(Clone, Copy, Debug)]
pub struct RunStarted<'a> {
    /// Where it is recorded.
    pub session: &'a SessionId,
    /// Its id.
    pub run: &'a RunId,
    /// Its route, as the configuration writes it.
    pub route: &'a str,
    /// Its dialect, where that is known before its first events.
    pub dialect: Option<&'a str>,
    /// Whether it has waited in the session's queue.
    pub queued: bool,
}

impl Fact for RunStarted<'_> {
    fn emit(self, metrics: &Metrics) {
        count_run(metrics, RunState::Started);
        let what = if self.queued { "queued run started" } else { "run started" };
        let RunStarted { session, run, route, dialect, .. } = self;
        tracing::info!(%session, %run, route, dialect, "{what}");
    }
}

/// The upstream of a run has been silent for too long.
#[derive(Clone, Copy, Debug)]
pub struct RunStalled<'a> {
    /// The run's session.
    pub session: &'a SessionId,
    /// The run.
    pub run: &'a RunId,
    /// How long the upstream has been silent.
    pub silent_for: Duration,
}

impl Fact for RunStalled<'_> {
    fn emit(self, metrics: &Metrics) {
        count_run(metrics, RunState::Stalled);
        let silent_ms = millis(self.silent_for);
        tracing::warn!(session = %self.session, run = %self.run, silent_ms, "run stalled: the upstream sends nothing");
    }
}

/// The upstream of a stalled run sends again.
#[derive(Clone, Copy, Debug)]
pub struct RunResumed<'a> {
    /// The run's session.
    pub session: &'a SessionId,
    /// The run.
    pub run: &'a RunId,
}

impl Fact for RunResumed<'_> {
    fn emit(self, metrics: &Metrics) {
        count_run(metrics, RunState::Resumed);
        tracing::info!(session = %self.session, run = %self.run, "run resumed: the upstream sends again");
    }
}

/// A run is over.
#[derive(Clone, Copy, Debug)]
pub struct RunEnded<'a> {
    /// The run's session.
    pub session: &'a SessionId,
    /// The run.
    pub run: &'a RunId,
    /// Its route, as the configuration writes it.
    pub route: &'a str,
    /// The dialect that its events have shown, or that it was said to be of.
    pub dialect: Option<&'a str>,
    /// How it ended.
    pub terminal: Terminal,
    /// Why, as on its terminal entry: a code of ours, never the upstream's words.
    pub reason: Option<&'a str>,
    /// How many events it had.
    pub events: u64,
    /// How long it ran.
    pub took: Duration,
}

impl Fact for RunEnded<'_> {
    fn emit(self, metrics: &Metrics) {
        let RunEnded { session, run, route, dialect, reason, events, .. } = self;
        count_run(metrics, RunState::Ended(self.terminal));
        if reason == Some("truncated") {
            metrics.count.runs_truncated.inc();
        }
        let (state, took_ms) = (self.terminal.as_str(), millis(self.took));
        let (what, advice) = self.in_words();
        match what {
            Some(what) => {
                tracing::warn!(%session, %run, route, dialect, state, reason, events, took_ms, advice, "{what}");
            }
            None => tracing::info!(%session, %run, route, dialect, state, reason, events, took_ms, "run ended"),
        }
    }
}

impl RunEnded<'_> {
    /// What an operator should know of the end, and what to do about it; of an end as it should be nothing.
    fn in_words(&self) -> (Option<&'static str>, Option<&'static str>) {
        match (self.terminal, self.reason) {
            (_, Some("duration")) => {
                let advice = "raise limits.run_duration, where answers of this length are wanted";
                (Some("run cut off: it has lasted for limits.run_duration"), Some(advice))
            }
            (_, Some("content_coding")) => {
                let what = "run ended early: the upstream's answer is not encoded as its Content-Encoding says";
                (Some(what), Some("let the backend send gzip, deflate, br, zstd or none, and end what it has encoded"))
            }
            // It has come to its end, which was none that anybody wants.
            (Terminal::Failed, Some("error_event")) => (Some("run failed: the upstream says so in its answer"), None),
            (Terminal::Failed, Some("upstream_status")) => (Some("run failed: the upstream has refused it"), None),
            (Terminal::Failed | Terminal::Interrupted, _) => (Some("run ended early"), None),
            (Terminal::Completed | Terminal::Cancelled, _) => (None, None),
        }
    }
}

/// What a run cost, as far as its stream says it.
#[derive(Clone, Copy, Debug)]
pub struct TokensCounted<'a> {
    /// The run's route, as the configuration writes it.
    pub route: &'a str,
    /// The counts.
    pub tokens: Tokens,
}

impl Fact for TokensCounted<'_> {
    fn emit(self, metrics: &Metrics) {
        for (direction, count) in [("input", self.tokens.input), ("output", self.tokens.output)] {
            if let Some(count) = count {
                let labels = [("route", self.route.to_owned()), ("direction", direction.to_owned())];
                metrics.count.tokens.get_or_create(&labels).inc_by(count);
            }
        }
    }
}

/// The answers of a route are not of the dialect that it names.
#[derive(Clone, Copy, Debug)]
pub struct DialectContradicted<'a> {
    /// The route, as the configuration writes it.
    pub route: &'a str,
    /// The dialect that it names.
    pub named: &'a str,
    /// What the run's first events have shown; `None`: no dialect that is known.
    pub shown: Option<&'a str>,
    /// Whether that is said for the first time.
    pub first: bool,
}

impl Fact for DialectContradicted<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.dialect_mismatches.get_or_create(&[("kind", "contradicted")]).inc();
        let DialectContradicted { route, named, shown, .. } = self;
        if self.first {
            let recorded_as = shown.unwrap_or("opaque events");
            let advice = "correct the route's `dialect`, or leave it out; where a preset names it, a `[[route]]` of your own before the preset decides";
            tracing::warn!(
                route,
                named,
                recorded_as,
                advice,
                "the answers of a route are not of the dialect that it names"
            );
        }
    }
}

/// No event of a run has text where its dialect, one of the configuration's, says that it grows.
#[derive(Clone, Copy, Debug)]
pub struct TextMissing<'a> {
    /// The run's route, as the configuration writes it.
    pub route: &'a str,
    /// The dialect.
    pub dialect: &'a str,
    /// Whether that is said for the first time.
    pub first: bool,
}

impl Fact for TextMissing<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.dialect_mismatches.get_or_create(&[("kind", "without_text")]).inc();
        let TextMissing { route, dialect, .. } = self;
        if self.first {
            let advice = "correct the `[[dialect.delta]]` paths, or their `when`";
            tracing::warn!(route, dialect, advice, "no event of a run has text where its dialect says");
        }
    }
}

/// This instance has ended a run of a dead one.
#[derive(Clone, Copy, Debug)]
pub struct RunTakenOver<'a> {
    /// The run's session.
    pub session: &'a SessionId,
    /// The run.
    pub run: &'a RunId,
    /// Who drove it.
    pub owner: &'a InstanceId,
}

impl Fact for RunTakenOver<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.takeovers.inc();
        tracing::warn!(session = %self.session, run = %self.run, owner = %self.owner, "run taken over: its instance is dead");
    }
}

fn count_run(metrics: &Metrics, state: RunState) {
    metrics.count.runs.get_or_create(&[("state", state.as_str())]).inc();
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_ended_is_counted_under_its_terminal() {
        let metrics = Metrics::new();
        let (session, run) = (SessionId::from_random(1), RunId::from_random(2));
        let took = Duration::from_secs(1);
        let (route, dialect) = ("POST /chat", None);
        let ended = RunEnded {
            session: &session,
            run: &run,
            route,
            dialect,
            terminal: Terminal::Failed,
            reason: None,
            events: 3,
            took,
        };
        ended.emit(&metrics);
        assert!(metrics.encode().contains("sidestream_runs_total{state=\"failed\"} 1"));
        let words = |terminal, reason| RunEnded { terminal, reason: Some(reason), ..ended }.in_words();
        assert!(words(Terminal::Cancelled, "duration").0.is_some_and(|what| what.contains("limits.run_duration")));
        assert!(words(Terminal::Failed, "error_event").0.is_some_and(|what| !what.contains("early")));
        assert_eq!(words(Terminal::Failed, "upstream_reset").0, Some("run ended early"));
        assert_eq!(words(Terminal::Cancelled, "cancel"), (None, None));
    }
}
