//! The sessions of whoever asks: `GET /sessions?subject=me`, so that a new device finds them.

use http::{HeaderMap, Response};

use crate::gateway::Gateway;
use crate::gateway::document::document;
use crate::gateway::query::Query;
use crate::log::{OwnSession, Used};
use crate::server::{Body, Problem};
use crate::wire::{Code, SessionLine, session_list};

/// Sessions on a page unless the caller says otherwise, and at most.
const PAGE: usize = 50;
const MAX_PAGE: usize = 200;

/// `GET /sessions?subject=me&limit&before`.
pub(super) async fn list(gateway: &Gateway, uri: &http::Uri, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
    let query = Query::of(uri);
    match query.text("subject") {
        Some("me") => {}
        Some(_) => {
            let detail = "`subject` is `me`; the sessions of others are listed by the admin listener";
            return Err(Problem::new(Code::Forbidden, detail));
        }
        None => return Err(Problem::new(Code::BadRequest, "whose sessions? write ?subject=me")),
    }
    let Some(subject) = gateway.principal.subject(headers) else {
        return Err(Problem::new(Code::Forbidden, gateway.principal.wanted()));
    };
    let limit = query.number("limit")?.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let before = match query.text("before") {
        None => None,
        Some(text) => {
            let detail = "`before` is the `next` of an earlier page";
            Some(Used::parse(text).ok_or_else(|| Problem::new(Code::BadRequest, detail))?)
        }
    };
    let rows = gateway.log.sessions_of(&subject, limit, before).await;
    let rows = rows.map_err(Problem::store_unavailable)?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|row| row.used.to_string());
    Ok(document(&session_list(rows.iter().map(line), next.as_deref())))
}

fn line(row: &OwnSession) -> SessionLine<'_> {
    SessionLine {
        session: &row.used.session,
        tail: row.tail,
        created_ms: row.created_ms,
        used_ms: row.used.ms,
        active: row.active,
    }
}
