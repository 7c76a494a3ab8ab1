//! Resume routes: a request at a URL of the backend's form that we answer with the active run of the session
//! that its path names. It never reaches the upstream, and never begins anything.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, Uri};

use super::interceptor::{Interceptor, accepts_stream, expose};
use crate::config::{Ids, Resume};
use crate::gateway::run_stream::{self, RunStream, no_content};
use crate::log::{Bounds, RunInfo};
use crate::proxy::sessions_named;
use crate::run::Started;
use crate::server::{Body, Problem};
use crate::session::SessionId;
use crate::telemetry::RequestOutcome;

impl Interceptor {
    /// The active run that `resume` names, from its start or after the cursor of `uri`; `204` where there is none.
    pub(super) async fn resume_active(
        &self,
        resume: &Resume<'_, '_>,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Problem> {
        let after = run_stream::cursor(uri)?;
        let origin = headers.get(header::ORIGIN).cloned();
        let mut newest = None;
        for session in sessions_named(&resume.rules(), resume.value) {
            let bounds = self.gateway.log.bounds(&session).await.map_err(Problem::store_unavailable)?;
            let Bounds::Live(bounds) = bounds else { continue };
            // The newest first; what an agent has begun is not what its user is looking at.
            for run in bounds.active.into_iter().rev().filter(|run| run.parent.is_none()) {
                if !self.begun_by(resume, &session, &run).await? {
                    continue;
                }
                let asks = |ids: Ids| ids == Ids::On || (ids == Ids::Auto && accepts_stream(headers));
                let ids = resume.family.iter().any(|route| asks(route.ids));
                let mut response =
                    self.serve(RunStream { session, run: run.run, after, merged: true, ids, origin }).await?;
                expose(response.headers_mut());
                return Ok(response);
            }
            newest = newest.or(bounds.newest_run.map(|run| (session, run)));
        }
        let mut response = no_content();
        if let Some(origin) = &origin {
            let told = match newest {
                Some((session, run)) => {
                    let info = self.gateway.log.run(&session, &run).await.map_err(Problem::store_unavailable)?;
                    self.begun(&session, info.as_ref()).await?
                }
                None => None,
            };
            self.open_to(origin, told.as_ref(), &mut response);
        }
        response.extensions_mut().insert(RequestOutcome::Resumed);
        Ok(response)
    }

    /// Whether a run was begun by a request that is one of the family's.
    async fn begun_by(&self, resume: &Resume<'_, '_>, session: &SessionId, run: &RunInfo) -> Result<bool, Problem> {
        let started = self.begun(session, Some(run)).await?;
        Ok(started.is_some_and(|started| resume.is_of(&started.method, &started.path)))
    }

    /// What is kept of the request that began a run.
    async fn begun(&self, session: &SessionId, run: Option<&RunInfo>) -> Result<Option<Started>, Problem> {
        let Some(run) = run else { return Ok(None) };
        let entry = self.gateway.log.entry(session, run.started).await.map_err(Problem::store_unavailable)?;
        Ok(entry.map(|entry| Started::parse(&entry.record.data)))
    }

    /// Lets a page of `origin` read the answer that there is nothing, where the upstream let it read the newest run
    /// of the session, or the configuration does.
    fn open_to(&self, origin: &HeaderValue, told: Option<&Started>, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        if let Some(told) = told {
            told.put_cors(headers, origin);
        }
        let listed = self.gateway.cors_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
        if listed && !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
    }
}
