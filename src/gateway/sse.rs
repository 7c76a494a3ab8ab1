//! A session as SSE: `GET /sessions/{s}/events`, which also answers in JSON pages (`pages`).
//!
//! As SSE every entry is one unnamed event whose `data` is the entry's frame, the same JSON as
//! over WebSocket, and whose `id` is its offset. What is not an entry is named: `sidestream.live`,
//! `sidestream.gap`, `sidestream.erased`.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::sleep;

use crate::gateway::Gateway;
use crate::gateway::attachment::{Attachment, FrameText};
use crate::gateway::pages;
use crate::gateway::query::Query;
use crate::hub::{Merge, NoSession};
use crate::log::Gap;
use crate::server::{Body, BodyError, Problem};
use crate::session::{After, Offset, SessionId};
use crate::sse::encode;
use crate::wire::Code;

/// A comment line after so long a silence: shorter than what intermediaries allow.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET /sessions/{session}/events`.
pub async fn events(
    gateway: &Arc<Gateway>,
    session: &SessionId,
    uri: &http::Uri,
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    let query = Query::of(uri);
    let after = match (query.after()?, last_event_id(headers)?) {
        (Some(after), _) => Some(after),
        (None, id) => id.map(After::Offset),
    };
    let (filter, compact) = (query.filter()?, query.compact()?.unwrap_or_default());
    let json = headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"));
    if json {
        return pages::page(gateway, session, after, query.number("limit")?, &filter, compact).await;
    }
    let live = query.flag("live")?.unwrap_or(true);
    let after = after.unwrap_or(After::Start);
    let subscription = gateway.hub.subscribe(session, after, false).await.map_err(problem)?;
    let compacting = gateway.compacting(session, Merge { replay: compact, ..Merge::default() });
    let reader = Reader {
        gateway: gateway.clone(),
        attachment: Some(Attachment::new(subscription.cursor, filter, compacting, subscription.offset)),
        live,
    };
    let stream = stream::unfold(reader, |mut reader| async move {
        let text = reader.next().await?;
        Some((Ok::<_, BodyError>(Frame::data(text)), reader))
    });
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    stream_headers(response.headers_mut());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// Headers without which something on the way may hold a stream back or keep it.
pub(super) fn stream_headers(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}

/// The problem for a subscription that could not be made.
pub(super) fn problem(error: NoSession) -> Problem {
    let code = match &error {
        NoSession::NotFound => Code::NotFound,
        NoSession::Future => Code::BadOffset,
        NoSession::Unavailable(_) => Code::StoreUnavailable,
    };
    Problem::new(code, error.to_string())
}

/// The problem for a cursor whose entry the log does not have.
pub(super) fn gone(gap: &Gap) -> Problem {
    let Gap { from, to, lost, reason } = gap;
    let detail = format!("the log cannot continue after this offset ({}); resume after `to`", reason.as_str());
    Problem::new(Code::Gone, detail)
        .with("from", from.to_string())
        .with("to", to.to_string())
        .with("lost", *lost)
        .with("reason", reason.as_str())
}

/// The offset in `Last-Event-ID`: what this form writes as `id`.
fn last_event_id(headers: &HeaderMap) -> Result<Option<Offset>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let offset = value.to_str().ok().filter(|text| !text.is_empty()).map(str::parse::<Offset>);
    match offset {
        None => Ok(None),
        Some(Ok(offset)) => Ok(Some(offset)),
        Some(Err(error)) => Err(Problem::new(Code::BadOffset, format!("`Last-Event-ID`: {error}"))),
    }
}

/// One reader of the SSE form.
struct Reader {
    gateway: Arc<Gateway>,
    attachment: Option<Attachment>,
    live: bool,
}

impl Reader {
    /// The next text of the stream; `None`: it ends here.
    async fn next(&mut self) -> Option<Bytes> {
        let mut attachment = self.attachment.take()?;
        loop {
            let coming = tokio::select! {
                coming = attachment.next() => coming,
                () = sleep(KEEP_ALIVE) => {
                    self.attachment = Some(attachment);
                    return Some(Bytes::from_static(b":\n"));
                }
                // The client comes back with its last id, to another instance.
                () = self.gateway.shutdown.closing() => return None,
            };
            let ends = coming.is_erased() || coming.is_live() && !self.live;
            let mut out = BytesMut::new();
            attachment.frames(&coming, |offset, frame| {
                let id = offset.to_string();
                match frame {
                    // Who wants only the history is not told where it ends.
                    FrameText::Note("at" | "live", _) if ends => {}
                    FrameText::Shared(text) => encode(None, text, Some(&id), &mut out),
                    FrameText::Owned(text) => encode(None, &text, Some(&id), &mut out),
                    FrameText::Note(kind, text) => {
                        encode(Some(&format!("sidestream.{kind}")), &text, Some(&id), &mut out);
                    }
                }
            });
            if ends {
                return (!out.is_empty()).then(|| out.freeze());
            }
            // All of it may be held back.
            if !out.is_empty() {
                self.attachment = Some(attachment);
                return Some(out.freeze());
            }
        }
    }
}
