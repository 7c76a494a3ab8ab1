//! What becomes of requests and their callers.

use super::Fact;
use crate::session::{RunId, SessionId};
use crate::telemetry::metrics::Metrics;

/// What became of a request on the data listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Its answer was a stream, which is a run now.
    Recorded,
    /// It went to the upstream and back, untouched.
    PassedThrough,
    /// It was upgraded and tunnelled to the upstream.
    Tunnelled,
    /// It got the rest of a run.
    Resumed,
    /// It joined a run that another request had started.
    Joined,
    /// It was for one of our own routes.
    Own,
    /// We refused it (4xx of ours).
    Refused,
    /// It could not be answered (5xx of ours): no upstream, no store.
    Failed,
}

impl RequestOutcome {
    pub(in crate::telemetry) const ALL: [Self; 8] = [
        Self::Recorded,
        Self::PassedThrough,
        Self::Tunnelled,
        Self::Resumed,
        Self::Joined,
        Self::Own,
        Self::Refused,
        Self::Failed,
    ];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::PassedThrough => "passed_through",
            Self::Tunnelled => "tunnelled",
            Self::Resumed => "resumed",
            Self::Joined => "joined",
            Self::Own => "own",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// A request was answered.
#[derive(Clone, Copy, Debug)]
pub struct RequestAnswered {
    /// What became of it.
    pub outcome: RequestOutcome,
    /// The status that the caller saw.
    pub status: http::StatusCode,
}

impl Fact for RequestAnswered {
    fn emit(self, metrics: &Metrics) {
        metrics.count.requests.get_or_create(&[("outcome", self.outcome.as_str())]).inc();
        tracing::debug!(outcome = self.outcome.as_str(), status = self.status.as_u16(), "request answered");
    }
}

/// A direct caller was too far behind its run.
#[derive(Clone, Copy, Debug)]
pub struct CallerCutOff<'a> {
    /// The run's session.
    pub session: &'a SessionId,
    /// The run, which goes on.
    pub run: &'a RunId,
    /// How many bytes it was behind.
    pub behind: u64,
}

impl Fact for CallerCutOff<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.count.callers_cut_off.inc();
        tracing::warn!(
            session = %self.session, run = %self.run, behind = self.behind,
            "direct caller cut off: further behind than limits.caller_buffer; the run goes on"
        );
    }
}

/// Why a stream is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRecorded {
    /// The answer to a GET or HEAD, and no route says to record it.
    Method,
    /// `intercept` is off, or names other routes.
    Intercept,
    /// Its route says so.
    Route,
    /// The upstream says so (`Sidestream-Record: no`).
    Upstream,
    /// The store is down.
    Store,
    /// Its content coding is not known.
    Coding,
    /// It is no event stream, and its route does not say what it is.
    Dialect,
}

impl NotRecorded {
    pub(in crate::telemetry) const ALL: [Self; 7] =
        [Self::Method, Self::Intercept, Self::Route, Self::Upstream, Self::Store, Self::Coding, Self::Dialect];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Intercept => "intercept",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Store => "store",
            Self::Coding => "coding",
            Self::Dialect => "dialect",
        }
    }
}

/// A stream was passed through without a record.
#[derive(Clone, Copy, Debug)]
pub struct StreamNotRecorded<'a> {
    /// Why.
    pub reason: NotRecorded,
    /// `METHOD /path` where it is to be told, which is once per route and reason.
    pub route: Option<&'a str>,
    /// The `Content-Encoding` of the answer.
    pub coding: Option<&'a str>,
}

impl Fact for StreamNotRecorded<'_> {
    fn emit(self, metrics: &Metrics) {
        let reason = self.reason.as_str();
        metrics.count.streams_not_recorded.get_or_create(&[("reason", reason)]).inc();
        let Some(route) = self.route else { return };
        match self.reason {
            NotRecorded::Method => tracing::info!(
                route,
                reason,
                "stream not recorded; to record it: [[route]] match = \"{route}\", intercept = true"
            ),
            NotRecorded::Dialect => tracing::info!(
                route,
                reason,
                "stream not recorded, no dialect of its route is of its media type; to record it: [[route]] match = \"{route}\", dialect = one of that framing (`sidestream dialects`; \"ndjson\" for any lines of JSON)"
            ),
            NotRecorded::Coding => tracing::warn!(
                route,
                reason,
                coding = self.coding,
                "stream not recorded: its Content-Encoding is not one that can be read here; let the backend send gzip, deflate, br, zstd or none"
            ),
            _ => tracing::info!(route, reason, "stream not recorded"),
        }
    }
}

/// A request's body was too large to look for its session.
#[derive(Clone, Copy, Debug)]
pub struct SessionRuleSkipped {
    /// How many bytes were allowed.
    pub limit: u64,
}

impl Fact for SessionRuleSkipped {
    fn emit(self, metrics: &Metrics) {
        metrics.count.session_rules_skipped.inc();
        tracing::info!(
            limit = self.limit,
            "request body above server.identity_body_limit: it gets a session of its own"
        );
    }
}
