//! The WebSocket handshake (RFC 6455 §4.2), at the reserved path and at any upstream path.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderValue};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::gateway::query::Query;
use crate::gateway::ws::{self, SUBPROTOCOL};
use crate::gateway::{Caller, Gateway};
use crate::server::{Body, Peer, Problem, empty};
use crate::session::After;
use crate::wire::{Attach, Code};

/// Answers a request for a WebSocket: `101`, and the connection is served from then on; or a
/// problem that says what is missing.
///
/// `path` is where `send` goes unless it says otherwise: that of the request, where it is the upstream's.
pub fn upgrade(
    gateway: &Arc<Gateway>,
    mut request: Request<Incoming>,
    peer: Peer,
    path: Option<String>,
) -> Result<Response<Body>, Problem> {
    let key = handshake_key(&request)?;
    check_origin(gateway, request.headers())?;
    let first = first_attach(request.uri())?;
    let caller = Caller::of(&gateway.principal, request.uri(), request.headers())?;
    let Some(place) = gateway.place() else {
        return Err(Problem::new(Code::TooMany, "this instance has all the sockets that it may have; try again later"));
    };
    let client = caller.requester(gateway, peer, request.headers(), path);
    let chosen = offers(request.headers()).any(|offer| offer == SUBPROTOCOL);
    let upgraded = hyper::upgrade::on(&mut request);
    let gateway = gateway.clone();
    gateway.tasks.clone().spawn(async move {
        match upgraded.await {
            Ok(io) => ws::serve(TokioIo::new(io), gateway, caller, client, first).await,
            Err(error) => tracing::debug!(%error, "the client left during the handshake"),
        }
        drop(place);
    });
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    if chosen {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(response)
}

fn handshake_key(request: &Request<Incoming>) -> Result<HeaderValue, Problem> {
    let headers = request.headers();
    let is = |name: HeaderName, token: &str| tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token));
    if request.method() != Method::GET || !is(header::UPGRADE, "websocket") || !is(header::CONNECTION, "upgrade") {
        return Err(Problem::new(Code::BadRequest, "this is a WebSocket endpoint; connect with a WebSocket client"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Problem::new(Code::BadRequest, "Sec-WebSocket-Version must be 13"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err(Problem::new(Code::BadRequest, "Sec-WebSocket-Key must be 16 bytes in base64"));
    }
    HeaderValue::from_str(&derive_accept_key(key)).map_err(|_| Problem::new(Code::Internal, "the key has no answer"))
}

/// A page of another origin may not read sessions through its visitor's browser: it is the browser
/// that can reach us, not the page.
pub(super) fn check_origin(gateway: &Gateway, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let listed = gateway.cors_origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes());
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let hosts = [header::HOST, HeaderName::from_static("x-forwarded-host")];
    let same = |name: &HeaderName| headers.get(name).and_then(|host| host.to_str().ok()) == authority;
    if listed || authority.is_some() && hosts.iter().any(same) {
        return Ok(());
    }
    Err(Problem::new(Code::Forbidden, "this origin may not connect; add it to server.cors_origins"))
}

/// The session that the URL names: `?session=ID&after=OFFSET`.
fn first_attach(uri: &http::Uri) -> Result<Option<Attach>, Problem> {
    let query = Query::of(uri);
    let Some(session) = query.session()? else { return Ok(None) };
    let filter = query.filter()?;
    Ok(Some(Attach {
        session,
        after: query.after()?.unwrap_or(After::Start),
        runs: filter.runs,
        sources: filter.sources,
        compact: query.compact()?.unwrap_or_default(),
        rollup: query.rollup()?,
        create: query.flag("create")?.unwrap_or(false),
    }))
}

fn offers(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    tokens(headers, header::SEC_WEBSOCKET_PROTOCOL)
}

fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().collect::<Vec<_>>();
    lines.into_iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',').map(str::trim))
}
