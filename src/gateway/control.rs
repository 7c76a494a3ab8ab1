//! Live control over HTTP: the same messages as over WebSocket, with the session and the run in the
//! URL.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use crate::control::{Client, Control};
use crate::gateway::document::document;
use crate::gateway::handshake::check_origin;
use crate::gateway::{Caller, Gateway};
use crate::server::{Body, Peer, Problem};
use crate::session::SessionId;
use crate::wire::{Cancel, Code, Outcome, RunName, SendRun, Sent, Steer, Target};

/// `POST /sessions/{s}/runs`: `202` when the run is there or waits, `200` when it was there.
pub(super) async fn send(
    gateway: &Arc<Gateway>,
    session: SessionId,
    request: Request<Incoming>,
    peer: Peer,
) -> Result<Response<Body>, Problem> {
    let client = client(gateway, &request, peer)?;
    let text = text_of(gateway, request).await?;
    let send = SendRun::parse(&text, session).map_err(|error| Problem::new(Code::BadRequest, error))?;
    let work = |control: Arc<Control>, client| async move { control.send(&client, send).await };
    let outcome = undisturbed(gateway, client, work).await?;
    let begun = matches!(outcome, Outcome::Sent { outcome: Sent::Started | Sent::Queued(_), .. });
    Ok(answer(&outcome, if begun { StatusCode::ACCEPTED } else { StatusCode::OK }))
}

/// `POST /sessions/{s}/runs/{run|active}/cancel`: `404` where there is nothing to cancel.
pub(super) async fn cancel(
    gateway: &Arc<Gateway>,
    request: &Request<Incoming>,
    peer: Peer,
    session: SessionId,
    run: &str,
) -> Result<Response<Body>, Problem> {
    // It has no body, so that a browser would send it for any page without asking first.
    check_origin(gateway, request.headers())?;
    let client = client(gateway, request, peer)?;
    end(gateway, client, Cancel { session, target: Target::Run(run_name(run)?) }).await
}

/// `DELETE /sessions/{s}/queue/{key}`: takes what waits out of the queue; `404` where it does not wait.
pub(super) async fn withdraw(gateway: &Gateway, session: &SessionId, key: &str) -> Result<Response<Body>, Problem> {
    let key = percent_decode_str(key).decode_utf8();
    let key = key.map_err(|_| Problem::new(Code::BadRequest, "the key is not UTF-8"))?;
    Ok(ended(&gateway.control.withdraw(session, &key).await?))
}

/// `POST /sessions/{s}/runs/{run|active}/steer`.
pub(super) async fn steer(
    gateway: &Arc<Gateway>,
    session: SessionId,
    run: &str,
    request: Request<Incoming>,
    peer: Peer,
) -> Result<Response<Body>, Problem> {
    let run = run_name(run)?;
    let client = client(gateway, &request, peer)?;
    let text = text_of(gateway, request).await?;
    let steer = Steer::parse(&text, session, run).map_err(|error| Problem::new(Code::BadRequest, error))?;
    let work = |control: Arc<Control>, client| async move { control.steer(&client, steer).await };
    Ok(answer(&undisturbed(gateway, client, work).await?, StatusCode::OK))
}

/// `GET /sessions/{s}/queue`.
pub(super) async fn queue(gateway: &Gateway, session: &SessionId) -> Result<Response<Body>, Problem> {
    Ok(answer(&gateway.control.queue(session).await?, StatusCode::OK))
}

async fn end(gateway: &Gateway, client: Client, cancel: Cancel) -> Result<Response<Body>, Problem> {
    let work = |control: Arc<Control>, client| async move { control.cancel(&client, cancel).await };
    Ok(ended(&undisturbed(gateway, client, work).await?))
}

fn ended(outcome: &Outcome) -> Response<Body> {
    let json = outcome.to_json();
    let found = json["outcome"] != "not_found";
    with_status(document(&json), if found { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

/// Comes to its end even if the client leaves.
async fn undisturbed<F>(
    gateway: &Gateway,
    client: Client,
    work: impl FnOnce(Arc<Control>, Client) -> F,
) -> Result<Outcome, Problem>
where
    F: Future<Output = Result<Outcome, Problem>> + Send + 'static,
{
    let work = tokio::spawn(work(gateway.control.clone(), client));
    work.await.unwrap_or_else(|defect| Err(Problem::new(Code::Internal, defect.to_string())))
}

fn answer(outcome: &Outcome, status: StatusCode) -> Response<Body> {
    with_status(document(&outcome.to_json()), status)
}

fn with_status(mut response: Response<Body>, status: StatusCode) -> Response<Body> {
    *response.status_mut() = status;
    response
}

fn run_name(run: &str) -> Result<RunName, Problem> {
    RunName::parse(run).map_err(|error| Problem::new(Code::BadRequest, error))
}

/// Who asks.
fn client(gateway: &Gateway, request: &Request<Incoming>, peer: Peer) -> Result<Client, Problem> {
    let caller = Caller::of(&gateway.principal, request.uri(), request.headers())?;
    Ok(caller.requester(gateway, peer, request.headers(), None))
}

/// The body, which is JSON of at most the size of a message.
async fn text_of(gateway: &Gateway, request: Request<Incoming>) -> Result<String, Problem> {
    let kind = request.headers().get(CONTENT_TYPE);
    if !kind.is_some_and(|value| value.as_bytes().starts_with(b"application/json")) {
        // A page of another origin cannot send this type without asking first.
        return Err(Problem::new(Code::BadRequest, "the body is JSON; say so with `Content-Type: application/json`"));
    }
    let limit = gateway.settings.message_bytes;
    let body = Limited::new(request.into_body(), limit).collect().await;
    let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => Problem::new(Code::TooLarge, format!("the body may have {limit} bytes (limits.message_bytes)")),
        None => Problem::new(Code::BadRequest, "the request's body broke off"),
    })?;
    String::from_utf8(body.to_bytes().into()).map_err(|_| Problem::new(Code::BadRequest, "the body is not UTF-8"))
}
