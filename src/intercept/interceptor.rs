//! The interceptor: forwards a request like the plain proxy, and where the answer is a stream that
//! is recorded, hands its body to a run and the run's bytes to the caller.
//!
//! It decides by the *response*: clients do not say reliably that they want a stream. Whatever it
//! does not record passes through untouched.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::candidate::Candidate;
use super::claim::Fate;
use super::fingerprint::Fingerprint;
use super::scope::Scope;
use crate::config::{Config, KeptOut, OnDisconnect, Route, Routes};
use crate::control::{Calls, Client, ending, plain};
use crate::dialect::Format;
use crate::framing::Framing;
use crate::gateway::Gateway;
use crate::gateway::run_stream::{self, RunStream, name_run};
use crate::log::{OnBusy, StoreHealth};
use crate::proxy::{
    AcceptEncoding, Basis, Codings, Identity, Named, Passthrough, UpstreamBody, buffer, identify, needs_body, problem,
    tell_run,
};
use crate::run::{Ending, RunSpec, Runs, Started, TaggedId, Tagging};
use crate::server::{Body, BodyError, Peer, Problem};
use crate::session::{Kind, Record, RunId, RunState};
use crate::telemetry::{Fact, NotRecorded, RequestOutcome, RunStarted, SessionRuleSkipped, StreamNotRecorded};
use crate::wire::Code;

/// Says on an answer that it is not kept in a session.
const DURABLE: HeaderName = HeaderName::from_static("sidestream-durable");

/// By which a backend keeps one answer out of the log.
const RECORD: HeaderName = HeaderName::from_static("sidestream-record");

/// What a client has of a stream (WHATWG HTML §9.2.3).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Routes of which it is said that their streams pass through.
const SAID: usize = 64;

/// The interceptor.
pub struct Interceptor {
    proxy: Arc<Passthrough>,
    pub(super) runs: Arc<Runs>,
    pub(super) gateway: Arc<Gateway>,
    routes: Routes,
    pub(super) body_limit: u64,
    /// How often the claim of a key is renewed while its run lasts, where it may last that long.
    pub(super) renew_claims: Option<Duration>,
    /// Routes whose streams were passed through: each is said once.
    said: Mutex<HashSet<String>>,
}

/// An answer that is a stream.
struct Streaming {
    head: response::Parts,
    format: Format,
    ending: Ending,
    /// Without its content coding.
    body: Body,
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
        let wants_body = needs_body(&route.session) || route.input.is_some();
        let (request, body) = match wants_body {
            true => buffer(request, self.body_limit).await.map_err(|_| client_left())?,
            false => (request, None),
        };
        let (head, request_body) = request.into_parts();
        let subject = self.gateway.principal.subject(&head.headers);
        let client = Client::new("".into(), peer, &head.headers, &self.gateway.credentials, None);
        let client = Client { subject, ..client };
        let candidate = Candidate::new(route, &head, body.as_ref(), client)?;
        drop(body);
        if let Some(answer) = self.resume_upstreams_own(&head.headers, &candidate.identity, &candidate.path).await? {
            return Ok(answer);
        }
        let scope = Scope::of(&head, |headers| self.gateway.principal.secret(headers));
        let fingerprint = Fingerprint::of(&head.uri, candidate.identity.named_by_request());
        let request = Request::from_parts(head, request_body);
        let mut request = self.proxy.prepare(request, peer, AcceptEncoding::Identity)?;
        if let Some(session) = candidate.identity.named_by_client() {
            tell_run(request.headers_mut(), session, &candidate.run);
        }
        if let Some(scope) = scope {
            return self.once(route, candidate, request, &scope, fingerprint, place).await;
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
        match tokio::spawn(self.clone().exchange(route.clone(), candidate, request, fate, place)).await {
            Ok(answer) => answer,
            Err(defect) => Err(Problem::new(Code::Internal, defect.to_string())),
        }
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

    /// The answer: a run's bytes where it is a stream. Whoever makes it a run takes `fate`.
    async fn answer(
        &self,
        route: &Route,
        candidate: Candidate,
        request: Request<Body>,
        fate: &mut Option<Fate>,
    ) -> Result<Response<Body>, Problem> {
        let (mut head, body) = self.proxy.send(request).await.map_err(problem)?.into_parts();
        let untouched = |body: UpstreamBody| body.map_err(BodyError::from).boxed_unsync();
        let format = self.routes.answers(route).format(&head.headers).filter(|_| head.status.is_success());
        let Some(format) = format else {
            let streams = head.status.is_success() && is_lines(&head.headers);
            let response = self.proxy.respond(head, untouched(body));
            return Ok(match streams {
                true => self.unrecorded(response, NotRecorded::Dialect, &candidate.method, &candidate.path),
                false => response,
            });
        };
        let kept_out = head.headers.remove(RECORD).is_some_and(|value| value == "no");
        if kept_out {
            let response = self.proxy.respond(head, untouched(body));
            return Ok(self.unrecorded(response, NotRecorded::Upstream, &candidate.method, &candidate.path));
        }
        let named = candidate.identity.settle(&head.headers);
        if self.gateway.log.health_of(&named.session) != StoreHealth::Up {
            let response = self.proxy.respond(head, untouched(body));
            return Ok(self.unrecorded(response, NotRecorded::Store, &candidate.method, &candidate.path));
        }
        let codings = match Codings::of(&head.headers) {
            Ok(codings) => codings,
            Err(unknown) => {
                tracing::warn!(path = candidate.path, %unknown, "a stream cannot be read, so it is not recorded");
                let response = self.proxy.respond(head, untouched(body));
                return Ok(self.unrecorded(response, NotRecorded::Coding, &candidate.method, &candidate.path));
            }
        };
        let ending = ending(&head);
        // How long a silence may be is the run's business.
        let body = plain(body.without_idle_timeout(), &codings);
        if !codings.is_empty() {
            head.headers.remove(header::CONTENT_ENCODING);
            head.headers.remove(header::CONTENT_LENGTH);
        }
        Ok(self.begin(route, candidate, named, Streaming { head, format, ending, body }, fate.take()).await)
    }

    /// Begins the run and answers with its bytes.
    async fn begin(
        &self,
        route: &Route,
        candidate: Candidate,
        named: Named,
        answer: Streaming,
        fate: Option<Fate>,
    ) -> Response<Body> {
        let Streaming { head, format, ending, body } = answer;
        let run = candidate.run;
        // Only event streams have ids.
        let tagging = if format.framing == Framing::Sse { candidate.tagging } else { Tagging::Off };
        let source = candidate.source.map(bytestring::ByteString::from);
        let parent = candidate.parent.as_ref().map(RunId::to_string);
        let grace = grace(route);
        let ends_with_callers = grace.is_some();
        let started = Started {
            parent,
            ends_with_callers,
            dialect: format.dialect.as_ref().map(|dialect| dialect.name.clone()),
            ..Started::new(&candidate.method, &candidate.path, head.status, &head.headers)
        };
        let mut opening = Vec::new();
        if let Some(said) = candidate.input {
            let (event, id, source) = (None, None, None);
            opening.push(Record { kind: Kind::Input, run: Some(run.clone()), source, event, id, data: said.into() });
        }
        let mut record = Record::run_state(run.clone(), RunState::Started, started.to_json());
        record.source.clone_from(&source);
        opening.push(record);
        let calls = Calls::of(&self.proxy, route, &named.session, &candidate.path, &candidate.client);
        let spec = RunSpec {
            session: named.session.clone(),
            run: run.clone(),
            opening,
            status: Some(head.status.as_u16()),
            source,
            parent: candidate.parent,
            key: None,
            route: route.pattern.to_string().into(),
            on_busy: OnBusy::Parallel,
            subject: candidate.client.subject.clone(),
            values: calls.values,
            on_cancel: calls.cancel,
            steer: calls.steer,
            format,
            ending,
            ids: tagging,
            grace,
            stall: route.stall,
            stall_limit: route.stall_limit,
        };
        RunStarted { session: &named.session, run: &run, queued: false }.emit(&self.gateway.metrics);
        let begun = self.runs.begin(spec, body).await;
        if let Some(fate) = fate {
            fate.run(named.session.clone(), begun.started.is_some());
        }
        let mut response = self.proxy.respond(head, begun.body.boxed_unsync());
        response.extensions_mut().insert(RequestOutcome::Recorded);
        let headers = response.headers_mut();
        if tagging != Tagging::Off {
            headers.remove(header::CONTENT_LENGTH);
        }
        name_run(headers, &named.session, &run, begun.started);
        if named.basis == Basis::BodyTooLarge {
            SessionRuleSkipped { limit: self.body_limit }.emit(&self.gateway.metrics);
            headers.insert(HeaderName::from_static("sidestream-session-rule"), HeaderValue::from_static("none"));
        }
        expose(headers);
        response
    }

    /// The rest of a run, for a client that comes back with an id of ours. Never forwarded.
    async fn resume(&self, id: TaggedId, origin: Option<HeaderValue>) -> Response<Body> {
        let wanted = RunStream { session: id.session, run: id.run, after: Some(id.offset), ids: true, origin };
        self.serve(wanted).await.unwrap_or_else(Problem::into_response)
    }

    /// The rest of a run that a POST began, for a client that comes back for it with a GET, as MCP's
    /// do: the GETs of its route are not recorded. An upstream that is asked for the rest itself may
    /// give it to that client alone and end the stream that we read.
    async fn resume_by_get(
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
    async fn resume_upstreams_own(
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
        let wanted = RunStream { session: session.clone(), run, after: Some(offset), ids: false, origin };
        self.serve(wanted).await.map(Some)
    }

    /// A stream that is not recorded: the answer says so, and the log says once per route how to
    /// change it.
    fn unrecorded(&self, response: Response<Body>, reason: NotRecorded, method: &Method, path: &str) -> Response<Body> {
        let route = format!("{method} {path}");
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded: paths may hold ids, and a line per id says nothing new.
        let first = said.len() < SAID && said.insert(route.clone());
        drop(said);
        StreamNotRecorded { reason, route: first.then_some(route.as_str()) }.emit(&self.gateway.metrics);
        let mut response = response;
        response.headers_mut().insert(DURABLE, HeaderValue::from_static("no"));
        response
    }
}

/// How long a run of this route goes on without callers; `None`: to its end.
fn grace(route: &Route) -> Option<Duration> {
    (route.on_disconnect == OnDisconnect::Cancel).then_some(route.grace)
}

fn reason(kept_out: KeptOut) -> NotRecorded {
    match kept_out {
        KeptOut::Method => NotRecorded::Method,
        KeptOut::Intercept => NotRecorded::Intercept,
        KeptOut::Route => NotRecorded::Route,
    }
}

/// Whether an answer is a stream of lines. Those of other framings cannot be told from answers that are no
/// streams, unless a dialect says so.
fn is_lines(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.and_then(Framing::of) == Some(Framing::Lines)
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
