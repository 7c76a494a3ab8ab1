//! Calls to the upstream: the request that a run begins with, and the calls that its route has for
//! cancelling and steering it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::timeout;

use crate::config::{Answers, CallTemplate, CancelPolicy, Route, SteerPolicy};
use crate::control::client::fields;
use crate::control::request::Sendable;
use crate::control::{ending, plain};
use crate::dialect::{self, Dialect};
use crate::json_pointer;
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

/// The request that a run begins with, as far as the calls beside it need it.
pub struct Origin<'a> {
    /// Its path, without its query.
    pub path: &'a str,
    /// Where it came from.
    pub peer: Peer,
    /// Fields of it, and its credentials, which are kept as long as the run lasts.
    pub headers: HeaderMap,
    /// What its body has for the calls.
    pub values: Values,
}

impl Calls {
    /// The calls of `route`, whose answers are `answers`, for a run of `session` that begins with the request
    /// `origin`.
    pub fn new(
        proxy: &Arc<Passthrough>,
        route: &Route,
        answers: &Answers,
        session: &SessionId,
        origin: Origin<'_>,
    ) -> Self {
        let Origin { path, peer, headers, values: mut known } = origin;
        known.extend(route.pattern.segments(path).into_iter().map(|(name, value)| (name, value.into())));
        known.insert("session".into(), session.as_str().into());
        let call = |template: &CallTemplate, body: Option<&str>| {
            let body = body.and_then(|body| serde_json::from_str(body).ok());
            let call = SideTemplate { call: template.clone(), body, known: known.clone() };
            side_call(proxy.clone(), call, peer, headers.clone())
        };
        let dialect = answers.calls();
        // What a dialect says was checked when the configuration was read.
        let native = |native: &dialect::Call| {
            let template = CallTemplate::reference(&native.call).ok()?.resolved(path);
            Some(call(&template, native.body.as_deref()))
        };
        let cancel = match &route.cancel {
            Some(CancelPolicy::Off) => None,
            Some(CancelPolicy::Call(template)) => Some(call(template, route.cancel_body.as_deref())),
            None => dialect.and_then(|dialect| native(dialect.cancel.as_ref()?)),
        };
        let steer = match &route.steer {
            Some(SteerPolicy::Forward(template)) => Some(call(template, None)),
            Some(SteerPolicy::Interrupt | SteerPolicy::Queue | SteerPolicy::Reject) => None,
            None => dialect.and_then(|dialect| native(dialect.follow_up.as_ref()?)),
        };
        let own = route.values.iter().map(|value| (value.name.clone(), value.pointer.clone()));
        let found = dialect.into_iter().flat_map(|dialect| &dialect.values);
        let values = own.chain(found.map(|(name, path)| (name.clone(), path.to_string()))).collect();
        Calls { cancel, steer, values }
    }
}

/// What the calls of a dialect need of the body of a run's own request.
pub fn requested(dialect: Option<&Arc<Dialect>>, body: &[u8]) -> Values {
    let wanted = dialect.into_iter().flat_map(|dialect| &dialect.request);
    let value = |path: &dialect::Path| serde_json::from_str(json_pointer::find(body, &path.to_string())?.get()).ok();
    wanted.filter_map(|(name, path)| Some((name.clone(), value(path)?))).collect()
}

/// The fields of a run's own request that its dialect's calls take along.
pub fn taken_along(dialect: Option<&Arc<Dialect>>, headers: &HeaderMap) -> HeaderMap {
    let calls = dialect.into_iter().flat_map(|dialect| dialect.cancel.iter().chain(&dialect.follow_up));
    let names: Vec<HeaderName> = calls.flat_map(|call| &call.headers).filter_map(|name| name.parse().ok()).collect();
    fields(headers, &names)
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

/// A call whose names are filled in when it is made.
struct SideTemplate {
    call: CallTemplate,
    body: Option<Value>,
    /// What is known when the run begins.
    known: Values,
}

impl SideTemplate {
    /// The target and the body; or the first name that has no value yet.
    fn fill(&self, found: &Values) -> Result<(String, Option<Bytes>), String> {
        let value = |name: &str| self.known.get(name).or_else(|| found.get(name));
        let texts: BTreeMap<&str, String> =
            self.call.names().filter_map(|name| Some((name, text_of(value(name)?)))).collect();
        let target = self.call.fill(|name| texts.get(name).map(String::as_str)).map_err(str::to_owned)?;
        let Some(mut body) = self.body.clone() else { return Ok((target, None)) };
        fill_json(&mut body, &value)?;
        Ok((target, Some(body.to_string().into())))
    }
}

/// Puts values in place of the texts `{name}`.
fn fill_json<'v>(json: &mut Value, value: &impl Fn(&str) -> Option<&'v Value>) -> Result<(), String> {
    match json {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                *json = value(name).ok_or_else(|| name.to_owned())?.clone();
            }
            Ok(())
        }
        Value::Array(elements) => elements.iter_mut().try_for_each(|element| fill_json(element, value)),
        Value::Object(members) => members.values_mut().try_for_each(|member| fill_json(member, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// A value as a part of a path.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn side_call(proxy: Arc<Passthrough>, template: SideTemplate, peer: Peer, headers: HeaderMap) -> SideCall {
    SideCall::new(move |values: Values, body: Option<Bytes>| {
        let filled = template.fill(&values).map_err(|name| {
            tracing::debug!(name, call = %template.call, "the run has not given a value that its route's call needs");
            CallFailed { reason: "value_missing" }
        });
        let (proxy, method, headers) = (proxy.clone(), template.call.method.clone(), headers.clone());
        Box::pin(async move {
            let (target, own) = filled?;
            let call = aside(&proxy, method, target, headers, peer, body.or(own));
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
    request.headers_mut().entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
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
