//! The interceptor: forwards a request like the plain proxy, and where the answer is a stream that
//! is recorded, hands its body to a run and the run's bytes to the caller.
//!
//! It decides by the *response*: clients do not say reliably that they want a stream. Whatever it
//! does not record passes through untouched.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::candidate::Candidate;
use super::claim::Fate;
use super::fingerprint::Fingerprint;
use super::joining::Turns;
use super::scope::Scope;
use crate::config::{Config, KeptOut, OnDisconnect, Repeats, Route, Routes};
use crate::control::Client;
use crate::gateway::Gateway;
use crate::proxy::{AcceptEncoding, Passthrough, buffer, needs_body, tell_run};
use crate::run::{Runs, TaggedId};
use crate::server::{Body, BodyError, Peer, Problem};
use crate::telemetry::{Fact, NotRecorded, StreamNotRecorded};
use crate::wire::Code;

/// Says on an answer that it is not kept in a session.
const DURABLE: HeaderName = HeaderName::from_static("sidestream-durable");

/// What a client has of a stream (WHATWG HTML §9.2.3).
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How much is said of routes.
const SAID: usize = 64;

/// The interceptor.
pub struct Interceptor {
    pub(super) proxy: Arc<Passthrough>,
    pub(super) runs: Arc<Runs>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) routes: Routes,
    pub(super) body_limit: u64,
    /// How often the claim of a key is renewed while its run lasts, where it may last that long.
    pub(super) renew_claims: Option<Duration>,
    /// How long a caller waits for a store that is slow.
    pub(super) eager_after: Duration,
    /// Whose turn it is to call the upstream, where requests join.
    turns: Turns,
    /// What was said of routes: each is said once.
    said: Mutex<HashSet<String>>,
}

impl Interceptor {
    /// An interceptor in front of `proxy` that drives its runs in `runs`.
    pub fn new(proxy: Arc<Passthrough>, runs: Arc<Runs>, gateway: Arc<Gateway>, config: &Config) -> Self {
        Interceptor {
            proxy,
            runs,
            gateway,
            routes: Routes::new(config),
            body_limit: config.server.identity_body_limit,
            renew_claims: Some(config.store.ttl / 3).filter(|every| *every < config.limits.run_duration),
            eager_after: config.store.eager_after,
            turns: Turns::default(),
            said: Mutex::default(),
        }
    }

    /// Answers a request that is not for one of our own routes.
    pub async fn handle(self: &Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        if let Some(id) = resumed(request.headers()) {
            return self.resume(id, request.headers().get(header::ORIGIN).cloned()).await;
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let upgrade = request.headers().contains_key(header::UPGRADE);
        let resume = self.routes.resume(&method, &path, request.headers()).filter(|_| !upgrade);
        if let Some(resume) = resume {
            let answer = self.resume_active(&resume, request.uri(), request.headers()).await;
            return answer.unwrap_or_else(Problem::into_response);
        }
        let route = self.routes.of(&method, &path, Some(request.headers()));
        let kept_out = if upgrade { Some(KeptOut::Method) } else { self.routes.kept_out(route, &method, &path) };
        let Some(kept_out) = kept_out else {
            return self.record(route, request, peer).await.unwrap_or_else(Problem::into_response);
        };
        if kept_out == KeptOut::Method && !upgrade {
            match self.resume_by_get(route, &request).await {
                Ok(Some(answer)) => return answer,
                Ok(None) => {}
                Err(problem) => return problem.into_response(),
            }
        }
        let response = self.proxy.handle(request, peer).await;
        let streams = response.status().is_success() && self.routes.answers(route).format(response.headers()).is_some();
        match streams {
            true => self.unrecorded(response, reason(kept_out), &method, &path),
            false => response,
        }
    }

    async fn record(
        self: &Arc<Self>,
        route: &Arc<Route>,
        request: Request<Incoming>,
        peer: Peer,
    ) -> Result<Response<Body>, Problem> {
        let request = request.map(|body| body.map_err(BodyError::from).boxed_unsync());
        // A drain waits for this request, too: its answer may be a run.
        let place = self.runs.may_begin();
        let answers = self.routes.answers(route);
        let native = answers.calls();
        let wants_body = needs_body(&route.session)
            || route.input.is_some()
            || native.is_some_and(|dialect| !dialect.request.is_empty());
        let (request, body) = match wants_body {
            true => buffer(request, self.body_limit).await.map_err(|_| client_left())?,
            false => (request, None),
        };
        let (head, request_body) = request.into_parts();
        let subject = self.gateway.principal.subject(&head.headers);
        let client = Client::new("".into(), peer, &head.headers, &self.gateway.credentials, None);
        let client = Client { subject, ..client };
        let candidate = Candidate::new(route, native, &head, body.as_ref(), client)?;
        drop(body);
        if let Some(answer) = self.resume_upstreams_own(&head.headers, &candidate.identity, &candidate.path).await? {
            return Ok(answer);
        }
        let retry = self.retry(route, &head);
        let scope = Scope::of(&head, |headers| self.gateway.principal.secret(headers));
        let scope = scope.filter(|_| route.repeats == Repeats::Join);
        let fingerprint = Fingerprint::of(&head.uri, candidate.identity.named_by_request());
        let request = Request::from_parts(head, request_body);
        let mut request = self.proxy.prepare(request, peer, AcceptEncoding::Identity)?;
        if let Some(session) = candidate.identity.named_by_client() {
            tell_run(request.headers_mut(), session, &candidate.run);
        }
        if let Some(scope) = scope {
            return self.once(route, candidate, request, &scope, fingerprint, place).await;
        }
        if let Some(retry) = retry {
            return self.retried(route, candidate, request, retry, fingerprint, place).await;
        }
        if let Some(session) = candidate.identity.named_by_request().filter(|_| route.join).cloned() {
            let mut turn = self.turns.take(&session).await;
            if let Some(answer) = self.join(route, &session, &candidate, turn.as_ref()).await? {
                return Ok(answer);
            }
            *turn = Some(candidate.run.clone());
            // It has the turn until the upstream has answered, even if its caller leaves.
            let exchange = self.clone().exchange(route.clone(), candidate, request, None, place);
            return undisturbed(async move {
                let answer = exchange.await;
                drop(turn);
                answer
            })
            .await;
        }
        // A caller of a run that ends with it cannot come back for what has not begun.
        let returns = candidate.identity.named_by_request().filter(|_| grace(route).is_none());
        match returns {
            Some(_) => self.without_its_caller(route, candidate, request, None, place).await,
            None => self.clone().exchange(route.clone(), candidate, request, None, place).await,
        }
    }

    /// The exchange, for a caller that knows the session or the key: it may come back for the answer
    /// even if it leaves before that has begun, so that the exchange goes on without it.
    pub(super) async fn without_its_caller(
        self: &Arc<Self>,
        route: &Arc<Route>,
        candidate: Candidate,
        request: Request<Body>,
        fate: Option<Fate>,
        place: TaskTrackerToken,
    ) -> Result<Response<Body>, Problem> {
        undisturbed(self.clone().exchange(route.clone(), candidate, request, fate, place)).await
    }

    /// Sends the request and answers it, and says to its key what has come of it.
    async fn exchange(
        self: Arc<Self>,
        route: Arc<Route>,
        candidate: Candidate,
        request: Request<Body>,
        mut fate: Option<Fate>,
        _place: TaskTrackerToken,
    ) -> Result<Response<Body>, Problem> {
        let answer = self.answer(&route, candidate, request, &mut fate).await;
        if let Some(fate) = fate {
            fate.nothing();
        }
        answer
    }

    /// Whether something is to be said now, because it was not before.
    pub(super) fn is_first(&self, what: &str) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded: paths may hold ids, and a line per id says nothing new.
        said.len() < SAID && said.insert(what.to_owned())
    }

    /// A stream that is not recorded: the answer says so, and the log says once per route and
    /// reason how to change it.
    pub(super) fn unrecorded(
        &self,
        response: Response<Body>,
        reason: NotRecorded,
        method: &Method,
        path: &str,
    ) -> Response<Body> {
        let route = format!("{method} {path}");
        let first = self.is_first(&format!("{route} {}", reason.as_str()));
        let route = first.then_some(route.as_str());
        let coding = response.headers().get(header::CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
        StreamNotRecorded { reason, route, coding }.emit(&self.gateway.metrics);
        let mut response = response;
        response.headers_mut().insert(DURABLE, HeaderValue::from_static("no"));
        response
    }
}

/// What `exchange` comes to, which goes on if nobody waits for it any more.
async fn undisturbed(
    exchange: impl Future<Output = Result<Response<Body>, Problem>> + Send + 'static,
) -> Result<Response<Body>, Problem> {
    match tokio::spawn(exchange).await {
        Ok(answer) => answer,
        Err(defect) => Err(Problem::new(Code::Internal, defect.to_string())),
    }
}

/// How long a run of this route goes on without callers; `None`: to its end.
pub(super) fn grace(route: &Route) -> Option<Duration> {
    (route.on_disconnect == OnDisconnect::Cancel).then_some(route.grace)
}

fn reason(kept_out: KeptOut) -> NotRecorded {
    match kept_out {
        KeptOut::Method => NotRecorded::Method,
        KeptOut::Intercept => NotRecorded::Intercept,
        KeptOut::Route => NotRecorded::Route,
    }
}

/// The id of ours that a client sends back, if it sends one.
fn resumed(headers: &HeaderMap) -> Option<TaggedId> {
    TaggedId::parse(headers.get(LAST_EVENT_ID)?.to_str().ok()?)
}

/// Whether a caller asks for an event stream and nothing else, as an EventSource does.
pub(super) fn accepts_stream(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream")
}

/// Lets a page of another origin read our headers, where the upstream lets it read the answer.
pub(super) fn expose(headers: &mut HeaderMap) {
    if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        let ours = HeaderValue::from_static("Sidestream-Session, Sidestream-Run, Sidestream-Offset");
        headers.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, ours);
    }
}

pub(super) fn client_left() -> Problem {
    Problem::new(Code::BadRequest, "the request's body broke off")
}
