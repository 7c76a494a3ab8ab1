//! What clients ask of runs, and what comes of it.

use super::Fact;
use crate::session::{RunId, SessionId};
use crate::telemetry::metrics::Metrics;

/// What the outcome is called where there is none: the client was told a problem.
const REFUSED: &str = "refused";

/// A client was told what became of its `send`.
#[derive(Clone, Copy, Debug)]
pub struct SendAnswered {
    /// The word of the answer; `None`: a problem.
    pub outcome: Option<&'static str>,
}

impl SendAnswered {
    pub(in crate::telemetry) const OUTCOMES: [&'static str; 5] = ["started", "queued", "cancelled", "joined", REFUSED];
}

impl Fact for SendAnswered {
    fn emit(self, metrics: &Metrics) {
        let outcome = self.outcome.unwrap_or(REFUSED);
        metrics.count.sends.get_or_create(&[("outcome", outcome)]).inc();
        tracing::debug!(outcome, "a send was answered");
    }
}

/// A client was told what became of its `steer`.
#[derive(Clone, Copy, Debug)]
pub struct SteerAnswered<'a> {
    /// Where.
    pub session: &'a SessionId,
    /// The client's name.
    pub client: &'a str,
    /// The word of the answer; `None`: a problem.
    pub outcome: Option<&'static str>,
}

impl SteerAnswered<'_> {
    pub(in crate::telemetry) const OUTCOMES: [&'static str; 5] =
        ["forwarded", "queued", "interrupted", "rejected", REFUSED];
}

impl Fact for SteerAnswered<'_> {
    fn emit(self, metrics: &Metrics) {
        let outcome = self.outcome.unwrap_or(REFUSED);
        metrics.count.steers.get_or_create(&[("outcome", outcome)]).inc();
        tracing::info!(session = %self.session, client = self.client, outcome, "a client has steered a run");
    }
}

/// A client asks for the end of runs.
#[derive(Clone, Copy, Debug)]
pub struct CancelAsked<'a> {
    /// Where.
    pub session: &'a SessionId,
    /// The client's name.
    pub client: &'a str,
    /// The run, where the client named one: else all that are active, or that of a key.
    pub run: Option<&'a RunId>,
}

impl Fact for CancelAsked<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.cancels.inc();
        let run = self.run.map(tracing::field::display);
        tracing::info!(session = %self.session, client = self.client, run, "a client asks for the end of runs");
    }
}

/// The upstream was called, or should have been, by the route's `cancel`.
#[derive(Clone, Copy, Debug)]
pub struct CancelCalled<'a> {
    /// The run's session.
    pub session: &'a SessionId,
    /// The run, which has its terminal.
    pub run: &'a RunId,
    /// The upstream's status, or why there is none: a code of ours.
    pub answer: Result<u16, &'static str>,
}

impl CancelCalled<'_> {
    pub(in crate::telemetry) const OUTCOMES: [&'static str; 3] = ["done", "refused", "failed"];
}

impl Fact for CancelCalled<'_> {
    fn emit(self, metrics: &Metrics) {
        let CancelCalled { session, run, answer } = self;
        let [done, refused, failed] = Self::OUTCOMES;
        let outcome = match answer {
            Ok(status) if (200..300).contains(&status) => {
                tracing::info!(%session, %run, status, "the upstream was told of the cancellation");
                done
            }
            Ok(status) => {
                tracing::warn!(
                    %session, %run, status,
                    "the upstream refused the route's `cancel` call; the run's connection is closed, the upstream may work on"
                );
                refused
            }
            Err(reason) => {
                tracing::warn!(
                    %session, %run, reason,
                    "the route's `cancel` call was not made; the run's connection is closed, the upstream may work on"
                );
                failed
            }
        };
        metrics.count.cancel_calls.get_or_create(&[("outcome", outcome)]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_cancel_call_is_counted_apart_from_one_that_was_taken() {
        let metrics = Metrics::new();
        let (session, run) = (SessionId::from_random(1), RunId::from_random(2));
        for answer in [Ok(204), Ok(404), Ok(500), Err("value_missing")] {
            CancelCalled { session: &session, run: &run, answer }.emit(&metrics);
        }
        let text = metrics.encode();
        for (outcome, n) in [("done", 1), ("refused", 2), ("failed", 1)] {
            let line = format!("sidestream_cancel_calls_total{{outcome=\"{outcome}\"}} {n}");
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
