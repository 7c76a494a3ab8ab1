//! Agents write to a session themselves, without a relay: `POST /sessions/{s}/events`.
//!
//! A body of events (JSON, a line each, or SSE) is stored as it arrives and acknowledged at its
//! end: with the last offset, or with how far it got. Never is more read than the log takes, and
//! never is an entry stored twice because an answer of the store was lost.

mod answer;
mod event;
mod lines;
mod producer;
mod reading;
mod recorded;
mod said;
mod writers;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::gateway::Gateway;
use crate::log::{Bounds, StoreHealth};
use crate::server::{Body, Problem};
use crate::session::SessionId;
use crate::wire::Code;

pub use writers::Writers;

use producer::Writing;
use reading::Reader;
use said::{Form, Said};

/// Writes the request's body to the session.
///
/// An event stream that names neither a run nor a producer is a run of its own; everything else is
/// what a producer says, in the run that it names or in none.
pub(super) async fn write(
    gateway: &Arc<Gateway>,
    session: SessionId,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let (head, body) = request.into_parts();
    let form = Form::of(&head.headers)?;
    let said = Said::of(&head.headers)?;
    if gateway.log.health_of(&session) != StoreHealth::Up {
        return Err(Problem::new(Code::StoreUnavailable, "the store does not answer; nothing was stored"));
    }
    known(gateway, &session).await?;
    if form == Form::Stream && said.run.is_none() && said.producer.is_none() {
        return recorded::record(gateway, session, said, head.uri.path(), body).await;
    }
    if said.parent.is_some() {
        let detail = "Sidestream-Parent-Run is for an event stream that is a run of its own: without Sidestream-Run \
                      and without Producer-Id";
        return Err(Problem::new(Code::BadRequest, detail));
    }
    let cap = gateway.writers.event_bytes;
    let labels = said.labels();
    let (reader, body) = match form {
        Form::One => (Reader::one(event::record(&whole(body, cap).await?, &labels).map_err(bad)?), None),
        Form::Lines => (Reader::lines(labels, cap), Some(body)),
        Form::Stream => (Reader::events(labels, cap), Some(body)),
    };
    let writing = Writing::new(gateway.clone(), session, said.producer);
    // What has arrived is stored even if the agent leaves before its end.
    match gateway.tasks.spawn(writing.store(reader, body)).await {
        Ok((progress, None)) => Ok(progress.into_response()),
        Ok((progress, Some(problem))) => Err(progress.told_by(problem)),
        Err(defect) => Err(Problem::new(Code::Internal, defect.to_string())),
    }
}

/// An id that rules derive names a session only where a rule has made it.
pub(super) async fn known(gateway: &Gateway, session: &SessionId) -> Result<(), Problem> {
    if !session.as_str().starts_with('~') {
        return Ok(());
    }
    match gateway.log.bounds(session).await.map_err(Problem::store_unavailable)? {
        Bounds::Live(_) => Ok(()),
        _ => {
            let detail = "there is no such session, and an id that begins with `~` makes none";
            Err(Problem::new(Code::NotFound, detail))
        }
    }
}

/// The body, where it is one event.
async fn whole(body: Incoming, cap: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, cap).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("an event may have {cap} bytes (limits.event_bytes); nothing was stored");
            Err(Problem::new(Code::TooLarge, detail))
        }
        Err(_) => Err(Problem::new(Code::BadRequest, "the body broke off; nothing was stored")),
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(Code::BadRequest, detail)
}
