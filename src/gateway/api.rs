//! Our own routes under the reserved prefix: which request is for us, and the calls that are
//! neither streams nor sockets.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use crate::gateway::document::document;
use crate::gateway::{Gateway, control, listing, run_stream, sse, writing};
use crate::log::Bounds;
use crate::server::{Body, Peer, Problem, empty};
use crate::session::{RunId, SessionId};
use crate::wire::Code;

/// A request for one of our own routes, `path` without the prefix. Answers, never forwards.
pub async fn answer(gateway: &Arc<Gateway>, request: Request<Incoming>, peer: Peer, path: &str) -> Response<Body> {
    let origin = allowed_origin(gateway, &request);
    let mut response = if request.method() == Method::OPTIONS {
        preflight()
    } else {
        route(gateway, request, peer, path).await.unwrap_or_else(Problem::into_response)
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        if origin != "*" {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let exposed = HeaderValue::from_static("Sidestream-Session, Sidestream-Run, Sidestream-Offset");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    response
}

async fn route(
    gateway: &Arc<Gateway>,
    request: Request<Incoming>,
    peer: Peer,
    path: &str,
) -> Result<Response<Body>, Problem> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    match (method.as_str(), segments.as_slice()) {
        ("GET", ["v1", "sessions"]) => listing::list(gateway, &uri, request.headers()).await,
        ("GET", ["v1", "sessions", session]) => describe(gateway, &id(session)?).await,
        ("DELETE", ["v1", "sessions", session]) => erase(gateway, &id(session)?).await,
        ("GET", ["v1", "sessions", session, "events"]) => {
            sse::events(gateway, &id(session)?, &uri, request.headers()).await
        }
        ("POST", ["v1", "sessions", session, "events"]) => writing::write(gateway, id(session)?, request).await,
        ("GET", ["v1", "sessions", session, "runs", run, "stream"]) => {
            run_stream::stream_of(gateway, &id(session)?, run, &uri).await
        }
        ("GET", ["v1", "sessions", session, "queue"]) => control::queue(gateway, &id(session)?).await,
        ("DELETE", ["v1", "sessions", session, "queue", key]) => control::withdraw(gateway, &id(session)?, key).await,
        ("POST", ["v1", "sessions", session, "runs"]) => control::send(gateway, id(session)?, request, peer).await,
        ("POST", ["v1", "sessions", session, "runs", run, "cancel"]) => {
            control::cancel(gateway, &request, peer, id(session)?, run).await
        }
        ("POST", ["v1", "sessions", session, "runs", run, "steer"]) => {
            control::steer(gateway, id(session)?, run, request, peer).await
        }
        ("GET", ["v1", "runs", run]) => find_run(gateway, run).await,
        (_, ["v1", "sessions", _]) => Ok(not_allowed("GET, DELETE")),
        (_, ["v1", "sessions", _, "events"]) => Ok(not_allowed("GET, POST")),
        (
            _,
            ["v1", "sessions"]
            | ["v1", "sessions", _, "queue"]
            | ["v1", "runs", _]
            | ["v1", "sessions", _, "runs", _, "stream"],
        ) => Ok(not_allowed("GET")),
        (_, ["v1", "sessions", _, "queue", _]) => Ok(not_allowed("DELETE")),
        (_, ["v1", "sessions", _, "runs"] | ["v1", "sessions", _, "runs", _, "cancel" | "steer"]) => {
            Ok(not_allowed("POST"))
        }
        _ => Err(Problem::new(Code::NotFound, "there is no such route; see the protocol's HTTP API")),
    }
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let problem = Problem::new(Code::MethodNotAllowed, format!("this route knows {methods}"));
    let mut response = problem.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

/// `GET /sessions/{s}`.
async fn describe(gateway: &Gateway, session: &SessionId) -> Result<Response<Body>, Problem> {
    let bounds = match gateway.log.bounds(session).await.map_err(Problem::store_unavailable)? {
        Bounds::Live(bounds) => bounds,
        Bounds::Expired { last } => {
            return Err(Problem::new(Code::Gone, "the session has expired").with("to", last.to_string()));
        }
        Bounds::Erased | Bounds::NotFound => return Err(Problem::new(Code::NotFound, "there is no such session")),
    };
    let runs: Vec<_> = bounds
        .active
        .iter()
        .map(|run| json!({"run": run.run.as_str(), "started": run.started.to_string(), "state": "active"}))
        .collect();
    Ok(document(&json!({
        "session": session.as_str(),
        "tail": bounds.tail.to_string(),
        "trimmed": bounds.trimmed.to_string(),
        "entries": bounds.entries,
        "bytes": bounds.bytes,
        "created_ms": bounds.created_ms,
        "last_ms": bounds.tail.ms,
        "expires_in_ms": u64::try_from(bounds.expires_in.as_millis()).unwrap_or(u64::MAX),
        "runs": runs,
        "newest_run": bounds.newest_run.as_ref().map(RunId::as_str),
    })))
}

/// `DELETE /sessions/{s}`. Its active runs are told to end; nothing of them is kept.
async fn erase(gateway: &Gateway, session: &SessionId) -> Result<Response<Body>, Problem> {
    gateway.control.end_all(session).await?;
    if !gateway.log.erase(session).await.map_err(Problem::store_unavailable)? {
        return Err(Problem::new(Code::NotFound, "there is no such session"));
    }
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// `GET /runs/{run}`.
async fn find_run(gateway: &Gateway, run: &str) -> Result<Response<Body>, Problem> {
    let not_found = || Problem::new(Code::NotFound, "there is no such run");
    let run = RunId::parse(run).map_err(|error| Problem::new(Code::BadRequest, format!("run: {error}")))?;
    let session = gateway.log.session_of(&run).await.map_err(Problem::store_unavailable)?.ok_or_else(not_found)?;
    let info = gateway.log.run(&session, &run).await.map_err(Problem::store_unavailable)?.ok_or_else(not_found)?;
    Ok(document(&json!({
        "run": run.as_str(),
        "session": session.as_str(),
        "started": info.started.to_string(),
        "state": info.ended.map_or("active", |(_, terminal)| terminal.as_str()),
        "ended": info.ended.map(|(offset, _)| offset.to_string()),
    })))
}

/// Our routes answer preflights themselves; without an allowed origin the browser refuses.
fn preflight() -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    let allowed = HeaderValue::from_static(
        "Authorization, Content-Type, Last-Event-ID, Sidestream-Client, Sidestream-Source, Sidestream-Run, Sidestream-Parent-Run, Producer-Id, \
         Producer-Epoch, Producer-Seq",
    );
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// The request's origin where it is configured, else `*` where that is; the same origin needs no
/// header.
fn allowed_origin(gateway: &Gateway, request: &Request<Incoming>) -> Option<HeaderValue> {
    let origin = request.headers().get(header::ORIGIN)?;
    let configured = |wanted: &[u8]| gateway.cors_origins.iter().any(|allowed| allowed.as_bytes() == wanted);
    match configured(origin.as_bytes()) {
        true => Some(origin.clone()),
        false => configured(b"*").then_some(HeaderValue::from_static("*")),
    }
}

fn id(text: &str) -> Result<SessionId, Problem> {
    // The one character of an id that some clients encode.
    let text = text.replacen("%7E", "~", 1);
    SessionId::from_store(&text).map_err(|error| Problem::new(Code::BadRequest, format!("session: {error}")))
}
