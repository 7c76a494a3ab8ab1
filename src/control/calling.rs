//! Calls to the upstream: the request that a run begins with, and the calls that its route has for
//! cancelling and steering it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::config::{Answers, CallTemplate, Route, SteerPolicy};
use crate::control::request::Sendable;
use crate::control::{Client, ending, plain};
use crate::proxy::{AcceptEncoding, Codings, Passthrough, tell_run};
use crate::run::{Answer, Call, CallFailed, SideAnswer, SideCall, Started, Values};
use crate::server::{Body, Peer, empty, full};
use crate::session::{RunId, SessionId};

/// How long the upstream may take over a call beside a run's stream.
const SIDE_CALL_WITHIN: Duration = Duration::from_secs(5);

/// How much of its answer is looked at.
const SIDE_ANSWER_BYTES: usize = 16 << 10;

/// The calls that a route has for its runs.
#[derive(Debug, Default)]
pub struct Calls {
    /// To tell the upstream of a cancellation.
    pub cancel: Option<SideCall>,
    /// To steer a run.
    pub steer: Option<SideCall>,
    /// What they need of the run's events: names, and JSON pointers into their data.
    pub values: Vec<(String, String)>,
}

impl Calls {
    /// The calls of `route`, for a run of `session` whose own request, for `path`, came from `client`: with its
    /// credentials, which are kept as long as the run lasts.
    pub fn of(proxy: &Arc<Passthrough>, route: &Route, session: &SessionId, path: &str, client: &Client) -> Self {
        let mut headers = client.context.clone();
        headers.extend(client.credentials.clone());
        Calls::new(proxy, route, session, path, client.peer, &headers)
    }

    pub(super) fn new(
        proxy: &Arc<Passthrough>,
        route: &Route,
        session: &SessionId,
        path: &str,
        peer: Peer,
        headers: &HeaderMap,
    ) -> Self {
        let mut known: Values = route.pattern.segments(path).into_iter().collect();
        known.insert("session".into(), session.to_string());
        let call =
            |template: &CallTemplate| side_call(proxy.clone(), template.clone(), known.clone(), peer, headers.clone());
        let steer = match &route.steer {
            SteerPolicy::Forward(template) => Some(call(template)),
            SteerPolicy::Interrupt | SteerPolicy::Queue | SteerPolicy::Reject => None,
        };
        let values = route.values.iter().map(|value| (value.name.clone(), value.pointer.clone())).collect();
        Calls { cancel: route.cancel.as_ref().map(call), steer, values }
    }
}

/// The call that begins `run` of `session`.
pub(super) fn call(
    proxy: Arc<Passthrough>,
    answers: Answers,
    sendable: Sendable,
    credentials: HeaderMap,
    session: &SessionId,
    run: &RunId,
) -> Call {
    let (session, run) = (session.clone(), run.clone());
    Box::new(move || Box::pin(async move { exchange(&proxy, &answers, sendable, &credentials, &session, &run).await }))
}

async fn exchange(
    proxy: &Passthrough,
    answers: &Answers,
    sendable: Sendable,
    credentials: &HeaderMap,
    session: &SessionId,
    run: &RunId,
) -> Result<Answer, CallFailed> {
    let (peer, method, path) = (sendable.peer, sendable.method.clone(), sendable.path().to_owned());
    let mut request =
        proxy.prepare(sendable.request(credentials), peer, AcceptEncoding::Identity).map_err(|problem| {
            tracing::warn!(code = %problem.code, detail = problem.detail, "a sent request cannot be forwarded");
            CallFailed { reason: "request_invalid" }
        })?;
    tell_run(request.headers_mut(), session, run);
    let (head, body) = proxy
        .send(request)
        .await
        .map_err(|error| {
            tracing::warn!(code = %error.code(), %error, "no answer from the upstream to a sent request");
            CallFailed { reason: error.code().as_str() }
        })?
        .into_parts();
    let ending = ending(&head);
    let codings = Codings::of(&head.headers).map_err(|_| CallFailed { reason: "content_coding" })?;
    let format = answers.format(&head.headers).filter(|_| head.status.is_success());
    // How long a silence may be is the run's business.
    let body = if format.is_some() { body.without_idle_timeout() } else { body };
    let body = plain(body, &codings);
    let dialect = format.as_ref().and_then(|format| Some(format.dialect.as_ref()?.name.clone()));
    let head = Started { dialect, ..Started::new(&method, &path, head.status, &head.headers) };
    Ok(Answer { head, format, ending, body })
}

fn side_call(
    proxy: Arc<Passthrough>,
    template: CallTemplate,
    known: Values,
    peer: Peer,
    headers: HeaderMap,
) -> SideCall {
    SideCall::new(move |values: Values, body: Option<Bytes>| {
        let filled = template.fill(|name| known.get(name).or_else(|| values.get(name)).map(String::as_str));
        let target = filled.map_err(|name| {
            tracing::debug!(name, call = %template, "the run's events have not given a value that its route's call needs");
            CallFailed { reason: "value_missing" }
        });
        let (proxy, method, headers) = (proxy.clone(), template.method.clone(), headers.clone());
        Box::pin(async move {
            let call = aside(&proxy, method, target?, headers, peer, body);
            timeout(SIDE_CALL_WITHIN, call).await.unwrap_or(Err(CallFailed { reason: "upstream_timeout" }))
        })
    })
}

async fn aside(
    proxy: &Passthrough,
    method: Method,
    target: String,
    headers: HeaderMap,
    peer: Peer,
    body: Option<Bytes>,
) -> Result<SideAnswer, CallFailed> {
    let mut request: Request<Body> = Request::new(body.clone().map_or_else(empty, full));
    *request.method_mut() = method;
    *request.uri_mut() = target.parse().map_err(|_| CallFailed { reason: "request_invalid" })?;
    *request.headers_mut() = headers;
    if body.is_some() {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
    let invalid = |_| CallFailed { reason: "request_invalid" };
    let request = proxy.prepare(request, peer, AcceptEncoding::Identity).map_err(invalid)?;
    let failed = |error: crate::proxy::UpstreamError| CallFailed { reason: error.code().as_str() };
    let (head, mut answer) = proxy.send(request).await.map_err(failed)?.into_parts();
    let mut kept = BytesMut::new();
    while kept.len() < SIDE_ANSWER_BYTES {
        match answer.frame().await {
            Some(Ok(frame)) => kept.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..])),
            Some(Err(_)) | None => break,
        }
    }
    Ok(SideAnswer { status: head.status.as_u16(), body: kept.freeze() })
}
