//! Requests with an `Idempotency-Key`: the first is forwarded, what repeats it gets the run of the
//! first. The upstream is called once, whoever leaves, and however many ask at the same moment.
//!
//! Two requests are the same one if their fingerprints are equal. That of the first is taken while
//! its body is forwarded, so that nothing is held back for it; the body of one that repeats it is
//! read to its end before it is answered, because only then can it be compared. It is kept
//! meanwhile, up to `server.identity_body_limit`: where nothing comes of the first, it is forwarded
//! after all.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::candidate::Candidate;
use super::claim::{Claiming, claim};
use super::claimed::Claimed;
use super::fingerprint::Fingerprint;
use super::interceptor::{Interceptor, client_left, expose};
use super::repeat::{Settled, no_longer_kept, settled, still_coming, unreadable};
use super::scope::Scope;
use crate::config::Route;
use crate::gateway::run_stream::RunStream;
use crate::proxy::buffer;
use crate::run::Tagging;
use crate::server::{Body, Problem};
use crate::session::{RunId, SessionId};
use crate::telemetry::RequestOutcome;
use crate::wire::Code;

impl Interceptor {
    /// Answers a request with a key.
    pub(super) async fn once(
        self: &Arc<Self>,
        route: &Arc<Route>,
        mut candidate: Candidate,
        mut request: Request<Body>,
        scope: &Scope,
        fingerprint: Fingerprint,
        place: TaskTrackerToken,
    ) -> Result<Response<Body>, Problem> {
        if let Some(session) = scope.session() {
            candidate.identity = candidate.identity.or(session);
        }
        let session = candidate.identity.session().clone();
        let mine = Claimed::calling(session, candidate.run.clone(), self.runs.instance());
        let claiming = claim(&self.gateway.log, scope.claim(), &mine).await.map_err(unreadable)?;
        let held = match claiming {
            None => None,
            Some(Claiming::Ours(held)) => Some(held),
            Some(Claiming::Theirs(theirs)) => {
                let (again, digest) = self.read(request, fingerprint.clone()).await?;
                let settled = tokio::select! {
                    settled = settled(&self.gateway.log, scope.claim(), &mine, &digest, theirs) => settled?,
                    () = self.gateway.shutdown.closing() => {
                        return Err(Problem::new(Code::Draining, "this instance is shutting down; try again"));
                    }
                };
                match settled {
                    Settled::Run(session, run) => return self.replay(&candidate, session, run).await,
                    Settled::Free(held) => {
                        // A body that was too large to keep has to be sent again.
                        request = again.ok_or_else(still_coming)?;
                        Some(held)
                    }
                }
            }
        };
        let Some(held) = held else { return self.without_its_caller(route, candidate, request, None, place).await };
        let (head, body) = request.into_parts();
        let (body, digest) = fingerprint.taken_of(body);
        let fate = held.keep(digest, self.renew_claims, self.runs.may_begin());
        self.without_its_caller(route, candidate, Request::from_parts(head, body), Some(fate), place).await
    }

    /// Reads a request's body to its end: the request as it was, unless it is too large to keep, and
    /// its fingerprint.
    async fn read(
        &self,
        request: Request<Body>,
        mut fingerprint: Fingerprint,
    ) -> Result<(Option<Request<Body>>, String), Problem> {
        let (request, body) = buffer(request, self.body_limit).await.map_err(|_| client_left())?;
        if let Some(body) = body {
            fingerprint.update(&body);
            return Ok((Some(request), fingerprint.finish()));
        }
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            fingerprint.update(frame.map_err(|_| client_left())?.data_ref().unwrap_or(&Bytes::new()));
        }
        Ok((None, fingerprint.finish()))
    }

    /// The run of the first request, from its start.
    pub(super) async fn replay(
        &self,
        candidate: &Candidate,
        session: SessionId,
        run: RunId,
    ) -> Result<Response<Body>, Problem> {
        tracing::debug!(%session, %run, "a request with the same key gets the run of the first");
        let (ids, origin) = (candidate.tagging == Tagging::On, candidate.origin.clone());
        let wanted = RunStream { session, run, after: None, merged: true, ids, origin };
        match self.serve(wanted).await {
            Ok(mut response) => {
                response.extensions_mut().insert(RequestOutcome::Joined);
                expose(response.headers_mut());
                Ok(response)
            }
            Err(problem) if problem.code == Code::NotFound => Err(no_longer_kept()),
            Err(problem) => Err(problem),
        }
    }
}
