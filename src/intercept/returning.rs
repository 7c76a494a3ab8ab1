//! Callers that come back for a run: with an SSE id, or with the key of the request that began it.
//! Where the run is to end with its callers, its owner hears that one is there again, and when it
//! has left.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use bytestring::ByteString;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::runtime::Handle;

use super::interceptor::{Interceptor, LAST_EVENT_ID};
use crate::config::Route;
use crate::gateway::run_stream::{self, RunStream};
use crate::log::Command;
use crate::proxy::{Identity, identify};
use crate::run::{Seat, Started, TaggedId};
use crate::server::{Body, BodyError, Problem};
use crate::session::{InstanceId, RunId, SessionId};
use crate::telemetry::RequestOutcome;

impl Interceptor {
    /// The rest of a run, for a client that comes back with an id of ours. Never forwarded.
    pub(super) async fn resume(&self, id: TaggedId, origin: Option<HeaderValue>) -> Response<Body> {
        let wanted =
            RunStream { session: id.session, run: id.run, after: Some(id.offset), merged: false, ids: true, origin };
        self.serve(wanted).await.unwrap_or_else(Problem::into_response)
    }

    /// The rest of a run that a POST began, for a client that comes back for it with a GET, as MCP's
    /// do: the GETs of its route are not recorded. An upstream that is asked for the rest itself may
    /// give it to that client alone and end the stream that we read.
    pub(super) async fn resume_by_get(
        &self,
        route: &Route,
        request: &Request<Incoming>,
    ) -> Result<Option<Response<Body>>, Problem> {
        if !request.headers().contains_key(LAST_EVENT_ID) || route.session.is_empty() {
            return Ok(None);
        }
        let (mut head, ()) = Request::new(()).into_parts();
        (head.method, head.uri) = (request.method().clone(), request.uri().clone());
        head.headers = request.headers().clone();
        let identity = identify(&route.session, &head, None)?;
        self.resume_upstreams_own(&head.headers, &identity, head.uri.path()).await
    }

    /// The rest of a run, for a client that comes back with an id of the upstream's own. An id that
    /// neither the session's newest run nor its active ones have is the upstream's business.
    pub(super) async fn resume_upstreams_own(
        &self,
        headers: &HeaderMap,
        identity: &Identity,
        path: &str,
    ) -> Result<Option<Response<Body>>, Problem> {
        let id = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
        let (Some(id), Some(session)) = (id, identity.named_by_request()) else { return Ok(None) };
        let found = run_stream::find_upstream_id(&self.gateway, session, path, id).await?;
        let Some((run, offset)) = found else { return Ok(None) };
        let origin = headers.get(header::ORIGIN).cloned();
        let wanted =
            RunStream { session: session.clone(), run, after: Some(offset), merged: false, ids: false, origin };
        self.serve(wanted).await.map(Some)
    }

    /// A run for a caller that has come back.
    pub(super) async fn serve(&self, wanted: RunStream) -> Result<Response<Body>, Problem> {
        // Before anything else: its grace may be nearly over.
        let seat = self.seat(&wanted.session, &wanted.run).await;
        let mut response = run_stream::serve(&self.gateway, wanted).await?;
        response.extensions_mut().insert(RequestOutcome::Resumed);
        Ok(match seat {
            Some(seat) => response.map(|body| Body::new(Seated { body, seat: Some(seat) })),
            None => response,
        })
    }

    /// A seat at a run that ends with its callers; `None`: it does not, or it has ended. A store that
    /// is away makes no difference: who is missed then is served all the same, until the run ends.
    async fn seat(&self, session: &SessionId, run: &RunId) -> Option<Seat> {
        if let Some(driven) = self.runs.driven(run) {
            return driven.seat();
        }
        let log = &self.gateway.log;
        let info = log.run(session, run).await.ok()?.filter(|info| info.ended.is_none())?;
        // Where a long run's beginning is trimmed its owner is told all the same.
        let started = log.entry(session, info.started).await.ok()?;
        if started.is_some_and(|entry| !Started::parse(&entry.record.data).ends_with_callers) {
            return None;
        }
        let caller = ByteString::from(format!("{:016x}", crate::random::u64()));
        let said = |here| Command::Caller { session: session.clone(), run: run.clone(), caller: caller.clone(), here };
        log.command(&info.owner, said(true)).await.ok()?;
        Some(self.elsewhere(info.owner, said(false)))
    }

    /// A seat at a run that another instance drives.
    fn elsewhere(&self, owner: InstanceId, left: Command) -> Seat {
        let log = self.gateway.log.clone();
        Seat::new(move || {
            // Without a runtime this process is at its end, and no caller has left by itself.
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(async move { log.command(&owner, left).await });
            }
        })
    }
}

/// A body that is read by a caller with a seat.
struct Seated {
    body: Body,
    seat: Option<Seat>,
}

impl http_body::Body for Seated {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // Its end, and its breaking off, are ours.
        if let Poll::Ready(None | Some(Err(_))) = &polled
            && let Some(seat) = self.seat.take()
        {
            seat.forget();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
