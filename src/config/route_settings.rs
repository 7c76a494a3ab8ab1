//! What a route decides, as values. The defaults stand in [`Route::unnamed`].

use std::time::Duration;

use super::calls::{CancelPolicy, Credential, EventValue, SteerPolicy};
use super::route::{Condition, RoutePattern};
use super::session_rule::SessionRule;
use crate::session::BusyPolicy;

/// Rules of a route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which requests.
    pub pattern: RoutePattern,
    /// What else their heads must have.
    pub when: Option<Condition>,
    /// The preset that its options come from.
    pub preset: Option<String>,
    /// The path below which the preset's family stands.
    pub base: Option<String>,
    /// Record its streams, whatever the method; `None`: as [`Config::intercept`](crate::config::Config::intercept) says.
    pub intercept: Option<bool>,
    /// `false` keeps its streams out of the log.
    pub record: bool,
    /// How the session is found; the first rule that yields a value wins.
    pub session: Vec<SessionRule>,
    /// Whether direct callers get resumable SSE ids.
    pub ids: Ids,
    /// How often a comment line goes to callers, so that nothing on the way takes their connection for dead.
    pub keepalive: Keepalive,
    /// Requests that are answered with the active run of the session that they name.
    pub resume: Vec<RoutePattern>,
    /// Whether a request whose session has an active run of this route gets that run.
    pub join: bool,
    /// What becomes of a request that repeats another.
    pub repeats: Repeats,
    /// JSON pointer into the request body: what the user said, kept as an `input` entry.
    pub input: Option<String>,
    /// Whether clients may begin runs here with `send`; `None`: where its streams are recorded.
    pub send: Option<bool>,
    /// What a `send` does while the route is busy, unless it says so itself.
    pub on_busy: BusyPolicy,
    /// What a `steer` does; `None`: the follow-up call of the dialect that the route names, else it waits.
    pub steer: Option<SteerPolicy>,
    /// What to tell the upstream when a run is cancelled, beside closing its connection; `None`: what the dialect
    /// that the route names says.
    pub cancel: Option<CancelPolicy>,
    /// The body of that call, JSON: a text `"{name}"` stands for a value.
    pub cancel_body: Option<String>,
    /// What the calls need of a run's events.
    pub values: Vec<EventValue>,
    /// The `Authorization` of queued runs, whose client may be gone when they begin.
    pub credential: Option<Credential>,
    /// What it means that a run's callers have all left.
    pub on_disconnect: OnDisconnect,
    /// How long a run that is to end with its callers waits for one to come back.
    pub grace: Duration,
    /// The names of dialects that its answers may have; the first whose framing an answer has counts. Empty: each
    /// answer shows it.
    pub dialect: Vec<String>,
    /// Silence of the upstream after which the run is said to be stalled.
    pub stall: Duration,
    /// Silence of the upstream after which the run has failed.
    pub stall_limit: Duration,
}

/// What it means for a run that its callers have all left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// Nothing: it goes on.
    #[default]
    Continue,
    /// It is cancelled.
    Cancel,
}

/// Whether direct callers get resumable SSE ids (`id: ss1.…`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ids {
    /// Only GET requests with `Accept: text/event-stream` whose upstream sets no ids of its own.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// How often a comment line goes to callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keepalive {
    /// Every 15 s to callers with our ids, who read comments as the standard says; never to others.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Every so often, to all.
    Every(Duration),
}

/// What becomes of a request that repeats another: one with the same `Idempotency-Key`, or one whose client says
/// that it tries again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeats {
    /// It gets the run of the first.
    #[default]
    Join,
    /// It goes to the upstream.
    Forward,
}

impl Keepalive {
    /// How often callers get a comment line, who have our ids or have not.
    pub fn every(self, ids: bool) -> Option<Duration> {
        match self {
            Keepalive::Auto => ids.then_some(Duration::from_secs(15)),
            Keepalive::Off => None,
            Keepalive::Every(time) => Some(time),
        }
    }
}

impl Route {
    /// The rules of a route that no `[[route]]` names.
    pub fn unnamed() -> Self {
        Route {
            pattern: RoutePattern { method: None, path: "/*".into() },
            when: None,
            preset: None,
            base: None,
            intercept: None,
            record: true,
            session: Vec::new(),
            ids: Ids::Auto,
            keepalive: Keepalive::default(),
            resume: Vec::new(),
            join: false,
            repeats: Repeats::default(),
            input: None,
            send: None,
            on_busy: BusyPolicy::Queue,
            steer: None,
            cancel: None,
            cancel_body: None,
            values: Vec::new(),
            credential: None,
            on_disconnect: OnDisconnect::default(),
            grace: Duration::ZERO,
            dialect: Vec::new(),
            stall: Duration::from_secs(120),
            stall_limit: Duration::from_secs(15 * 60),
        }
    }
}
