//! The answer to a request that may be recorded: where it is a stream, its body goes to a run, and the run's bytes
//! to the caller; anything else passes through.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, response};
use http_body_util::BodyExt;

use super::candidate::Candidate;
use super::claim::Fate;
use super::interceptor::{Interceptor, expose, grace};
use crate::config::Route;
use crate::control::{Calls, Origin, ending, plain};
use crate::dialect::Format;
use crate::framing::Framing;
use crate::gateway::run_stream::name_run;
use crate::log::{OnBusy, StoreHealth};
use crate::proxy::{Basis, Codings, Named, UpstreamBody, problem};
use crate::run::{Begun, Ending, RunSpec, Started, Tagging};
use crate::server::{Body, BodyError, KeptAlive, Problem};
use crate::session::{Kind, Record, RunId, RunState};
use crate::telemetry::{Fact, NotRecorded, RequestOutcome, RunStarted, SessionRuleSkipped};

/// By which a backend keeps one answer out of the log.
const RECORD: HeaderName = HeaderName::from_static("sidestream-record");

/// An answer that is a stream.
pub(super) struct Streaming {
    pub(super) head: response::Parts,
    pub(super) format: Format,
    pub(super) ending: Ending,
    /// Without its content coding.
    pub(super) body: Body,
}

impl Interceptor {
    /// The answer: a run's bytes where it is a stream. Whoever makes it a run takes `fate`.
    pub(super) async fn answer(
        self: &Arc<Self>,
        route: &Arc<Route>,
        mut candidate: Candidate,
        request: Request<Body>,
        fate: &mut Option<Fate>,
    ) -> Result<Response<Body>, Problem> {
        let (mut head, body) = self.proxy.send(request).await.map_err(problem)?.into_parts();
        let untouched = |body: UpstreamBody| body.map_err(BodyError::from).boxed_unsync();
        let format = self.routes.answers(route).format(&head.headers).filter(|_| head.status.is_success());
        let Some(format) = format else {
            let streams = head.status.is_success() && may_stream(route, &head.headers);
            let response = self.proxy.respond(head, untouched(body));
            return Ok(match streams {
                true => self.unrecorded(response, NotRecorded::Dialect, &candidate.method, &candidate.path),
                false => self.announced(route, candidate, response).await,
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
            Err(_) => {
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
        if format.framing != Framing::Sse {
            // Only event streams have ids.
            candidate.tagging = Tagging::Off;
        }
        let awaited = candidate.identity.awaits_events(&head.headers);
        let answer = Streaming { head, format, ending, body };
        Ok(match awaited {
            Some(awaited) => self.named_late(route, candidate, named, awaited, answer, fate.take()),
            None => self.begin(route, candidate, named, answer, fate.take()).await,
        })
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
        let (head, run, tagging) = (answer.head.clone(), candidate.run.clone(), candidate.tagging);
        let every = keepalive(route, &answer.format, tagging);
        let begun = self.open(route, candidate, &named, answer, fate).await;
        let mut response = self.recorded(head, begun.body.boxed_unsync(), tagging, every);
        let headers = response.headers_mut();
        name_run(headers, &named.session, &run, begun.started);
        if named.basis == Basis::BodyTooLarge {
            SessionRuleSkipped { limit: self.body_limit }.emit(&self.gateway.metrics);
            headers.insert(HeaderName::from_static("sidestream-session-rule"), HeaderValue::from_static("none"));
        }
        expose(headers);
        response
    }

    /// An answer with the bytes of a run.
    pub(super) fn recorded(
        &self,
        head: response::Parts,
        body: Body,
        tagging: Tagging,
        every: Option<Duration>,
    ) -> Response<Body> {
        let body = match every {
            Some(every) => KeptAlive::of(body, every),
            None => body,
        };
        let mut response = self.proxy.respond(head, body);
        response.extensions_mut().insert(RequestOutcome::Recorded);
        if tagging != Tagging::Off || every.is_some() {
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        response
    }

    /// Begins to drive the run of an answer.
    pub(super) async fn open(
        &self,
        route: &Route,
        candidate: Candidate,
        named: &Named,
        answer: Streaming,
        fate: Option<Fate>,
    ) -> Begun {
        let Streaming { head, format, ending, body } = answer;
        let run = candidate.run;
        let source = candidate.source.map(bytestring::ByteString::from);
        let parent = candidate.parent.as_ref().map(RunId::to_string);
        let grace = grace(route);
        let started = Started {
            parent,
            ends_with_callers: grace.is_some(),
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
        let client = &candidate.client;
        let mut headers = client.context.clone();
        headers.extend(client.credentials.clone());
        let origin = Origin { path: &candidate.path, peer: client.peer, headers, values: candidate.values };
        let calls = Calls::new(&self.proxy, route, &self.routes.answers(route), &named.session, origin);
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
            ids: candidate.tagging,
            grace,
            stall: route.stall,
            stall_limit: route.stall_limit,
        };
        let (session, dialect) = (&named.session, spec.format.dialect.as_ref().map(|dialect| &*dialect.name));
        RunStarted { session, run: &run, route: &spec.route, dialect, queued: false }.emit(&self.gateway.metrics);
        let begun = self.runs.begin(spec, body).await;
        if let Some(fate) = fate {
            fate.run(named.session.clone(), begun.started.is_some());
        }
        begun
    }
}

/// How often the direct caller of such an answer gets a comment line.
pub(super) fn keepalive(route: &Route, format: &Format, tagging: Tagging) -> Option<Duration> {
    route.keepalive.every(tagging != Tagging::Off).filter(|_| format.framing == Framing::Sse)
}

/// Whether an answer that no dialect knows is a stream all the same: lines of JSON; and where a stream is expected,
/// text of which nobody says how long it is. Others cannot be told from answers that are none.
fn may_stream(route: &Route, headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match content_type.and_then(Framing::of) {
        Some(Framing::Lines) => true,
        Some(Framing::Prefixed) => !route.dialect.is_empty() && !headers.contains_key(header::CONTENT_LENGTH),
        _ => false,
    }
}
