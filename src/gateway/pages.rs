//! A session as JSON pages: `GET /sessions/{s}/events` with `Accept: application/json`.

use std::fmt::Write;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};

use crate::gateway::Gateway;
use crate::gateway::attachment::Filter;
use crate::gateway::sse::gone;
use crate::log::{Gap, PageLimits, Place, Read};
use crate::server::{Body, Problem, full};
use crate::session::{After, Offset, SessionId};
use crate::wire::{Code, entry_frame};

/// Entries of a page where the client does not say, and at most.
const USUAL_PAGE: usize = 512;
const MAX_PAGE: usize = 1_000;

/// Bytes after which a page ends; the last entry may exceed them.
const PAGE_BYTES: usize = 1 << 20;

/// The JSON form: `{"session", "entries", "next", "tail"}`.
pub(super) async fn page(
    gateway: &Gateway,
    session: &SessionId,
    after: Option<After>,
    limit: Option<usize>,
    filter: &Filter,
) -> Result<Response<Body>, Problem> {
    let limit = limit.unwrap_or(USUAL_PAGE).clamp(1, MAX_PAGE);
    let not_found = || Problem::new(Code::NotFound, "there is no such session");
    let explicit = matches!(after, Some(After::Offset(_)));
    let mut cursor = match after.unwrap_or(After::Start) {
        After::Start => Offset::ZERO,
        After::Offset(offset) => offset,
        After::End => {
            gateway.log.locate(session, Place::End).await.map_err(Problem::store_unavailable)?.ok_or_else(not_found)?
        }
        After::Last(_) | After::Since(_) => return Err(Problem::new(Code::BadOffset, "not in a URL")),
    };
    let mut gap = None;
    let (mut count, mut out) = (0, format!(r#"{{"session":"{session}","entries":["#));
    let tail = loop {
        let limits = PageLimits { entries: limit - count, ..PageLimits::default() };
        let page = match gateway.log.read(session, cursor, limits).await.map_err(Problem::store_unavailable)? {
            Read::Page(page) => page,
            Read::NotFound => return Err(not_found()),
            Read::Gap(found) if explicit => return Err(gone(&found)),
            Read::Gap(found) => {
                cursor = found.to;
                gap = Some(found);
                continue;
            }
        };
        cursor = page.entries.last().map_or(cursor, |entry| entry.offset);
        count += page.entries.len();
        for entry in page.entries.iter().filter(|entry| filter.passes(entry)) {
            if !out.ends_with('[') {
                out.push(',');
            }
            out.push_str(&entry_frame(session, entry));
        }
        if page.entries.is_empty() || cursor == page.tail || count >= limit || out.len() >= PAGE_BYTES {
            break page.tail;
        }
    };
    let next = if cursor == tail { "null".to_owned() } else { format!("\"{cursor}\"") };
    // Writing to a String cannot fail.
    let _ = write!(out, r#"],"next":{next},"last":"{cursor}","tail":"{tail}""#);
    if let Some(Gap { from, to, lost, reason }) = gap {
        let reason = reason.as_str();
        let _ = write!(out, r#","gap":{{"from":"{from}","to":"{to}","lost":{lost},"reason":"{reason}"}}"#);
    }
    out.push('}');
    let mut response = Response::new(full(out));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
