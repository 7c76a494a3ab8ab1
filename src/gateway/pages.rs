//! A session as JSON pages: `GET /sessions/{s}/events` with `Accept: application/json`.

use std::fmt::Write;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};

use crate::dialect::compact::{Compacted, Compactor};
use crate::gateway::Gateway;
use crate::gateway::attachment::Filter;
use crate::gateway::sse::gone;
use crate::log::{Gap, PageLimits, Place, Read};
use crate::server::{Body, Problem, full};
use crate::session::{After, Entry, Offset, SessionId};
use crate::wire::{Code, entry_frame, merged_frame};

/// Entries of a page where the client does not say, and at most.
const USUAL_PAGE: usize = 512;
const MAX_PAGE: usize = 1_000;

/// Entries that one merged page is made of, at most.
const MAX_READ: usize = 32_768;

/// Bytes after which a page ends; the last entry may exceed them.
const PAGE_BYTES: usize = 1 << 20;

/// The JSON form: `{"session", "entries", "next", "tail"}`. A `compact` one has deltas merged; its `limit` counts
/// what it has then.
pub(super) async fn page(
    gateway: &Gateway,
    session: &SessionId,
    after: Option<After>,
    limit: Option<usize>,
    filter: &Filter,
    compact: bool,
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
    let mut merging = compact.then(|| (gateway.run_dialects(session), Compactor::default()));
    let mut entries = Entries { session, count: 0, text: String::new() };
    let mut read = 0;
    let tail = loop {
        let most = if compact { USUAL_PAGE } else { limit - read };
        let limits = PageLimits { entries: most, ..PageLimits::default() };
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
        let mut compacted = Vec::new();
        for entry in &page.entries {
            // Where the page ends it ends in the log: at the last entry that was looked at.
            if entries.count + compacted.len() >= limit {
                break;
            }
            (cursor, read) = (entry.offset, read + 1);
            if !filter.passes(entry) {
                continue;
            }
            match &mut merging {
                Some((dialects, compactor)) => {
                    dialects.meet(entry).await;
                    compactor.push(entry.clone(), |run| dialects.of(run), &mut compacted);
                }
                None => compacted.push(Compacted::Entry(entry.clone())),
            }
        }
        compacted.drain(..).for_each(|one| entries.put(&one));
        let most = if compact { MAX_READ } else { limit };
        let full = entries.count >= limit || entries.text.len() >= PAGE_BYTES || read >= most;
        if page.entries.is_empty() || cursor == page.tail || full {
            if let Some((_, compactor)) = &mut merging {
                compactor.flush(&mut compacted);
            }
            compacted.iter().for_each(|one| entries.put(one));
            break page.tail;
        }
    };
    let mut out = format!(r#"{{"session":"{session}","entries":[{}"#, entries.text);
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

/// The entries of a page, as they are written.
struct Entries<'a> {
    session: &'a SessionId,
    count: usize,
    text: String,
}

impl Entries<'_> {
    fn put(&mut self, entry: &Compacted<Arc<Entry>>) {
        if self.count > 0 {
            self.text.push(',');
        }
        self.count += 1;
        self.text.push_str(&match entry {
            Compacted::Entry(entry) => entry_frame(self.session, entry),
            Compacted::Merged(merged) => merged_frame(self.session, &merged.entry, merged.first, merged.part),
        });
    }
}
