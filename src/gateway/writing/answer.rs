//! What a writer is told: how far its body got.

use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::gateway::document::document;
use crate::server::{Body, Problem, empty};
use crate::session::{Offset, SessionId};

/// How much of a body the log has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) session: SessionId,
    /// Offset of the first entry that this body has added.
    pub(super) first: Option<Offset>,
    /// The newest offset that its writer has written.
    pub(super) last: Option<Offset>,
    /// Events of this body that are in the log.
    pub(super) events: u64,
    /// Those of them that were there before.
    pub(super) duplicates: u64,
}

impl Progress {
    /// Nothing yet.
    pub(super) fn new(session: SessionId) -> Self {
        Progress { session, first: None, last: None, events: 0, duplicates: 0 }
    }

    /// The answer to a body that is stored as a whole: `204` where all of it was there before.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = match self.events > 0 && self.duplicates == self.events {
            true => {
                let mut response = Response::new(empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            false => document(&json!({
                "session": self.session.as_str(),
                "first": self.first.map(|offset| offset.to_string()),
                "offset": self.last.map(|offset| offset.to_string()),
                "events": self.events,
                "duplicates": self.duplicates,
            })),
        };
        if let Some(last) = self.last
            && let Ok(last) = HeaderValue::from_str(&last.to_string())
        {
            response.headers_mut().insert(HeaderName::from_static("sidestream-offset"), last);
        }
        response
    }

    /// The problem that ended a body, with how far it got.
    pub(super) fn told_by(&self, problem: Problem) -> Problem {
        let problem = problem.with("session", self.session.as_str()).with("events", self.events);
        match (self.first, self.last) {
            (Some(first), Some(last)) => problem.with("first", first.to_string()).with("offset", last.to_string()),
            (None, Some(last)) => problem.with("offset", last.to_string()),
            (_, None) => problem,
        }
    }
}
