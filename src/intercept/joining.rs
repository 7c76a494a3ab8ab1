//! Routes whose requests join: one whose session has an active run of the route gets that run, and the upstream is
//! not called again. Of several at the same moment at one instance one alone calls it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::Response;
use tokio::sync::OwnedMutexGuard;

use super::candidate::Candidate;
use super::interceptor::{Interceptor, expose};
use crate::config::Route;
use crate::gateway::run_stream::RunStream;
use crate::log::Bounds;
use crate::run::{Started, Tagging};
use crate::server::{Body, Problem};
use crate::session::{RunId, SessionId};
use crate::telemetry::RequestOutcome;

/// Whose turn it is, by session. An entry lives as long as somebody waits or calls.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<SessionId, Weak<tokio::sync::Mutex<Option<RunId>>>>>);

/// A turn, and what the one before it has begun, for whom it was waited.
pub(super) type Turn = OwnedMutexGuard<Option<RunId>>;

impl Turns {
    /// Waits until nobody else calls the upstream for this session.
    pub(super) async fn take(&self, session: &SessionId) -> Turn {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let waiting = turns.get(session).and_then(Weak::upgrade);
            let turn = waiting.unwrap_or_default();
            turns.insert(session.clone(), Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }
}

impl Interceptor {
    /// The active run of `route` in the session of the request, from its start; and before any other the one that
    /// was `begun` while this request waited, which may have ended.
    pub(super) async fn join(
        &self,
        route: &Route,
        session: &SessionId,
        candidate: &Candidate,
        begun: Option<&RunId>,
    ) -> Result<Option<Response<Body>>, Problem> {
        let bounds = self.gateway.log.bounds(session).await.map_err(Problem::store_unavailable)?;
        let Bounds::Live(bounds) = bounds else { return Ok(None) };
        let begun = match begun {
            Some(run) => self.gateway.log.run(session, run).await.map_err(Problem::store_unavailable)?,
            None => None,
        };
        for run in begun.into_iter().chain(bounds.active.into_iter().rev()) {
            let entry = self.gateway.log.entry(session, run.started).await.map_err(Problem::store_unavailable)?;
            let Some(started) = entry.map(|entry| Started::parse(&entry.record.data)) else { continue };
            let method = started.method.parse().unwrap_or_default();
            if !route.pattern.matches(&method, &started.path) {
                continue;
            }
            let (ids, origin) = (candidate.tagging == Tagging::On, candidate.origin.clone());
            let mut response = self
                .serve(RunStream { session: session.clone(), run: run.run, after: None, merged: true, ids, origin })
                .await?;
            response.extensions_mut().insert(RequestOutcome::Joined);
            expose(response.headers_mut());
            return Ok(Some(response));
        }
        Ok(None)
    }
}
