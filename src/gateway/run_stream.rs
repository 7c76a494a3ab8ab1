//! One run in its original dialect: `GET /sessions/{s}/runs/{run|active}/stream`, and what a
//! caller that comes back with `Last-Event-ID` or repeats its request is given.
//!
//! The same dispatched events in the canonical form of their framing, with the status, content type and dialect
//! headers that the upstream gave. From the run's start its history comes with deltas merged; behind a cursor it
//! comes as it was. The body ends cleanly only if the upstream's did: any other end
//! is an abort, so that no client takes half an answer for a whole one.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::dialect::compact::Compacted;
use crate::framing::{Encoder, Framing};
use crate::gateway::Gateway;
use crate::gateway::query::Query;
use crate::gateway::sse::{gone, problem, stream_headers};
use crate::hub::{Compacting, Cursor, Delivery, Item, Merge};
use crate::log::{Bounds, Gap, PageLimits, Read};
use crate::run::{Started, TaggedId};
use crate::server::{Body, BodyError, KeptAlive, Problem, empty};
use crate::session::{After, Entry, Kind, Offset, RunId, RunState, SessionId, Terminal};
use crate::wire::Code;

/// In how many runs of a session an id of the upstream's own is looked for at most.
const SEARCHED: usize = 16;

/// What to send of a run.
#[derive(Clone, Debug)]
pub struct RunStream {
    /// Where.
    pub session: SessionId,
    /// Which run.
    pub run: RunId,
    /// Only what comes after this entry; `None`: from the run's start.
    pub after: Option<Offset>,
    /// From the run's start, the history comes with its deltas merged.
    pub merged: bool,
    /// Write our tagged ids in place of the upstream's.
    pub ids: bool,
    /// The page that asks at the upstream's own URL, where it says so: it may read what the
    /// upstream let it read.
    pub origin: Option<HeaderValue>,
}

/// `GET /sessions/{session}/runs/{run}/stream`; `run` is an id or `active`.
pub async fn stream_of(
    gateway: &Arc<Gateway>,
    session: &SessionId,
    run: &str,
    uri: &http::Uri,
) -> Result<Response<Body>, Problem> {
    let (after, merged) = (cursor(uri)?, Query::of(uri).compact()?.unwrap_or(true));
    let run = match run {
        "active" => match active(gateway, session).await? {
            Some(run) => run,
            None => return Ok(no_content()),
        },
        id => RunId::parse(id).map_err(|error| Problem::new(Code::BadRequest, format!("run: {error}")))?,
    };
    serve(gateway, RunStream { session: session.clone(), run, after, merged, ids: false, origin: None }).await
}

/// The offset in the `after` of a URL; `None`: from the run's start.
pub fn cursor(uri: &http::Uri) -> Result<Option<Offset>, Problem> {
    match Query::of(uri).after()? {
        None | Some(After::Start) => Ok(None),
        Some(After::Offset(offset)) => Ok(Some(offset)),
        Some(_) => Err(Problem::new(Code::BadOffset, "`after` is an offset here")),
    }
}

/// The answer for a run: `204` when it is over and everything after the cursor was delivered.
pub async fn serve(gateway: &Arc<Gateway>, wanted: RunStream) -> Result<Response<Body>, Problem> {
    let RunStream { session, run, after, merged, ids, origin } = wanted;
    let Some(info) = gateway.log.run(&session, &run).await.map_err(Problem::store_unavailable)? else {
        return Err(unknown_run(gateway, &session).await);
    };
    let head = head_of(gateway, &session, &run, info.started).await?;
    let open = |mut response: Response<Body>| {
        if let Some(origin) = &origin {
            head.put_cors(response.headers_mut(), origin);
        }
        response
    };
    // A cursor from before the run means the run's start.
    let from = after.filter(|after| *after > info.started).unwrap_or(info.started);
    if info.ended.is_some_and(|(end, _)| from >= end) {
        return Ok(open(no_content()));
    }
    let subscription = gateway.hub.subscribe(&session, After::Offset(from), false).await.map_err(problem)?;
    let compacting = match after {
        None if merged => gateway.compacting(&session, Merge { replay: true, ..Merge::default() }),
        _ => None,
    };
    let encoder = Encoder::new(framing(gateway, &head));
    let (gateway, cursor) = (gateway.clone(), subscription.cursor);
    let mut reader = Reader { gateway, cursor, compacting, run, ids, encoder, ended: None, over: false };
    let first = match reader.next().await {
        Next::Gap(gap) => return Err(gone(&gap)),
        // Any other end is one of this answer only: a `204` would tell the client to ask no more.
        Next::End(_) if after.is_some() && reader.over => return Ok(open(no_content())),
        next => next,
    };
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::OK);
    stream_headers(response.headers_mut());
    head.put_headers(response.headers_mut());
    name_run(response.headers_mut(), &session, &reader.run, Some(info.started));
    let every = keepalive(&reader.gateway, &head, response.headers(), ids);
    Ok(open(response.map(|_| match every {
        Some(every) => KeptAlive::of(body(first, reader), every),
        None => body(first, reader),
    })))
}

/// How often the reader of a run gets a comment line, as its route says.
fn keepalive(gateway: &Gateway, head: &Started, headers: &HeaderMap, ids: bool) -> Option<Duration> {
    let method = head.method.parse().unwrap_or(Method::POST);
    let route = gateway.routes.of(&method, &head.path, None);
    let content_type = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    route.keepalive.every(ids).filter(|_| content_type.starts_with(b"text/event-stream"))
}

/// What the upstream said when it answered. A run that was open before has to wait for that.
async fn head_of(
    gateway: &Arc<Gateway>,
    session: &SessionId,
    run: &RunId,
    started: Offset,
) -> Result<Started, Problem> {
    let entry = gateway.log.entry(session, started).await.map_err(Problem::store_unavailable)?;
    // Where the beginning is trimmed nobody knows; what is left of the run can still be read.
    let Some(entry) = entry else { return Ok(Started::default()) };
    let head = Started::parse(&entry.record.data);
    if head.status != 0 {
        return Ok(head);
    }
    let subscription = gateway.hub.subscribe(session, After::Offset(started), false).await.map_err(problem)?;
    let mut cursor = subscription.cursor;
    loop {
        let delivery = tokio::select! {
            delivery = cursor.next() => delivery,
            () = gateway.shutdown.closing() => return Err(Problem::new(Code::Draining, "this instance is leaving")),
        };
        let items = match delivery {
            Delivery::Items(items) => items,
            Delivery::Live(_) | Delivery::News(_) | Delivery::Whole(_) => continue,
            Delivery::Gap(gap) => return Err(gone(&gap)),
            Delivery::Erased => return Err(Problem::new(Code::NotFound, "the session was erased")),
        };
        for record in items.iter().map(|item| &item.entry().record).filter(|record| record.run.as_ref() == Some(run)) {
            match record.kind {
                Kind::Status => {
                    if let Some(answered) = Started::of_answer(&record.data) {
                        return Ok(answered);
                    }
                }
                // It ended without an answer.
                Kind::Run if record.state().and_then(RunState::terminal).is_some() => return Ok(head),
                _ => {}
            }
        }
    }
}

/// How the events of a run are framed: as its dialect says; where nobody here knows that (it is in the
/// configuration of another instance), as its content type says.
fn framing(gateway: &Gateway, head: &Started) -> Framing {
    let Some(name) = &head.dialect else { return Framing::Sse };
    if let Some(dialect) = gateway.dialects.named(name) {
        return dialect.framing;
    }
    head.headers.get("content-type").and_then(|value| Framing::of(value)).unwrap_or_default()
}

/// Tells the caller which session and run it has.
pub fn name_run(headers: &mut HeaderMap, session: &SessionId, run: &RunId, started: Option<Offset>) {
    let mut put = |name: &'static str, value: String| {
        // Ids and offsets are plain ASCII by their types.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put("sidestream-session", session.to_string());
    put("sidestream-run", run.to_string());
    if let Some(started) = started {
        put("sidestream-offset", started.to_string());
    }
}

fn body(first: Next, reader: Reader) -> Body {
    let stream = stream::unfold((Some(first), Some(reader)), |(first, reader)| async move {
        let mut reader = reader?;
        let next = match first {
            Some(first) => first,
            None => reader.next().await,
        };
        match next {
            Next::Chunk(chunk) => Some((Ok(Frame::data(chunk)), (None, Some(reader)))),
            Next::End(Ok(())) => None,
            Next::End(Err(reason)) => Some((Err(BodyError::from(reason)), (None, None))),
            Next::Gap(_) => Some((Err(BodyError::from("the log lost a part of this run")), (None, None))),
        }
    });
    StreamBody::new(stream).boxed_unsync()
}

/// What comes next of a run.
enum Next {
    Chunk(Bytes),
    /// The run is over; an error where its end was not a clean one.
    End(Result<(), &'static str>),
    Gap(Gap),
}

struct Reader {
    gateway: Arc<Gateway>,
    cursor: Cursor,
    /// What merges, where it began at the run's start.
    compacting: Option<Compacting>,
    run: RunId,
    ids: bool,
    encoder: Encoder,
    ended: Option<Result<(), &'static str>>,
    /// Everything up to the run's terminal was delivered.
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Next {
        loop {
            if let Some(end) = self.ended {
                return Next::End(end);
            }
            let delivery = tokio::select! {
                delivery = self.cursor.next() => delivery,
                () = self.gateway.shutdown.closing() => return Next::End(Err("this instance is shutting down")),
            };
            match delivery {
                Delivery::Items(items) => {
                    let mut out = BytesMut::new();
                    for item in items {
                        self.take(item, &mut out).await;
                    }
                    if !out.is_empty() {
                        return Next::Chunk(out.freeze());
                    }
                }
                // What was there is sent; the head must not wait for what is to come.
                Delivery::Live(_) => {
                    let mut out = BytesMut::new();
                    self.release(Compacting::now_live, &mut out);
                    return Next::Chunk(out.freeze());
                }
                Delivery::Gap(gap) => return Next::Gap(gap),
                // It did not ask for them.
                Delivery::News(_) | Delivery::Whole(_) => {}
                Delivery::Erased => return Next::End(Err("the session was erased")),
            }
        }
    }

    /// Writes an entry, or what it is not merged with.
    async fn take(&mut self, item: Arc<Item>, out: &mut BytesMut) {
        if item.entry().record.run.as_ref() != Some(&self.run) {
            return;
        }
        match &mut self.compacting {
            Some(compacting) => {
                compacting.meet(item.entry()).await;
                self.release(|compacting, merged| compacting.push(item, merged), out);
            }
            None => self.write(item.entry(), out),
        }
    }

    fn release(&mut self, from: impl FnOnce(&mut Compacting, &mut Vec<Compacted<Arc<Item>>>), out: &mut BytesMut) {
        let mut compacted = Vec::new();
        if let Some(compacting) = &mut self.compacting {
            from(compacting, &mut compacted);
        }
        for one in &compacted {
            match one {
                Compacted::Entry(item) => self.write(item.entry(), out),
                Compacted::Merged(merged) => self.write(&merged.entry, out),
            }
        }
    }

    fn write(&mut self, entry: &Entry, out: &mut BytesMut) {
        let record = &entry.record;
        if self.ended.is_some() {
            return;
        }
        match record.kind {
            Kind::Event => {
                let tagged = self.ids.then(|| TaggedId::of(self.cursor.session(), &self.run, entry.offset).to_string());
                let id = tagged.as_deref().or(record.id.as_deref());
                self.encoder.write(record.event.as_deref(), &record.data, id, out);
            }
            // The event is not in the log: a body without it would look whole.
            Kind::EventDropped => self.ended = Some(Err("the run has an event that was too large to keep")),
            Kind::Run => {
                self.over = record.state().and_then(RunState::terminal).is_some();
                self.ended = record.state().and_then(RunState::terminal).map(|terminal| match terminal {
                    Terminal::Completed => Ok(()),
                    Terminal::Failed if ended_in_order(&record.data) => Ok(()),
                    Terminal::Failed => Err("the run failed"),
                    Terminal::Cancelled if self.says_cancelled(&record.data, out) => Ok(()),
                    Terminal::Cancelled => Err("the run was cancelled"),
                    Terminal::Interrupted => Err("the run was interrupted"),
                });
                if self.ended == Some(Ok(())) {
                    self.encoder.end(out);
                }
            }
            Kind::Result => out.extend_from_slice(record.data.as_bytes()),
            Kind::Input | Kind::Steer | Kind::Status => {}
        }
    }
}

impl Reader {
    /// A run was cancelled: whether its stream has a clean end all the same. It has where the upstream itself has
    /// said so, and where its dialect has words for it, which are written then.
    fn says_cancelled(&mut self, details: &str, out: &mut BytesMut) -> bool {
        let details: serde_json::Value = serde_json::from_str(details).unwrap_or_default();
        if details["reason"] == "upstream" {
            return true;
        }
        let dialect = details["dialect"].as_str().and_then(|name| self.gateway.dialects.named(name));
        let Some(dialect) = dialect.filter(|dialect| !dialect.on_cancelled.is_empty()) else { return false };
        for event in &dialect.on_cancelled {
            self.encoder.write(event.event.as_deref(), &event.data, None, out);
        }
        true
    }
}

/// Why there is no such run. An expired session is said to be one, so that a client which comes
/// back late does not begin again as if nothing had been.
async fn unknown_run(gateway: &Gateway, session: &SessionId) -> Problem {
    match gateway.log.bounds(session).await {
        Ok(Bounds::Expired { last }) => {
            Problem::new(Code::Gone, "the session has expired").with("reason", "expired").with("to", last.to_string())
        }
        Ok(_) => Problem::new(Code::NotFound, "there is no such run in this session"),
        Err(error) => Problem::store_unavailable(error),
    }
}

/// The run of this session that an upstream's own SSE id belongs to, and the last entry with that id:
/// among the newest run and those that are active (an MCP session has several at once), as far as
/// they were answered at `path`. The newest that has the id counts, for ids may be mere counters.
pub async fn find_upstream_id(
    gateway: &Gateway,
    session: &SessionId,
    path: &str,
    id: &str,
) -> Result<Option<(RunId, Offset)>, Problem> {
    let Bounds::Live(bounds) = gateway.log.bounds(session).await.map_err(Problem::store_unavailable)? else {
        return Ok(None);
    };
    let others = bounds.active.iter().rev().map(|run| &run.run).filter(|run| bounds.newest_run.as_ref() != Some(*run));
    for run in bounds.newest_run.iter().chain(others).take(SEARCHED) {
        if let Some(offset) = find_in_run(gateway, session, run, path, id).await? {
            return Ok(Some((run.clone(), offset)));
        }
    }
    Ok(None)
}

/// The last entry with this id of a run that was answered at `path`.
async fn find_in_run(
    gateway: &Gateway,
    session: &SessionId,
    run: &RunId,
    path: &str,
    id: &str,
) -> Result<Option<Offset>, Problem> {
    let Some(info) = gateway.log.run(session, run).await.map_err(Problem::store_unavailable)? else { return Ok(None) };
    let head = gateway.log.entry(session, info.started).await.map_err(Problem::store_unavailable)?;
    if head.is_none_or(|entry| Started::parse(&entry.record.data).path != path) {
        return Ok(None);
    }
    let (mut at, mut found) = (info.started, None);
    while let Read::Page(page) =
        gateway.log.read(session, at, PageLimits::default()).await.map_err(Problem::store_unavailable)?
    {
        let Some(last) = page.entries.last() else { break };
        at = last.offset;
        let mut ours = page.entries.iter().filter(|entry| entry.record.run.as_ref() == Some(run));
        found = ours.rfind(|entry| entry.record.id.as_deref() == Some(id)).map(|entry| entry.offset).or(found);
        if at == page.tail {
            break;
        }
    }
    Ok(found)
}

/// Whether the upstream ended its answer as HTTP says although the run failed: then the last event
/// says that it has, and the first caller got it with a clean end.
fn ended_in_order(details: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(details).is_ok_and(|details| {
        // A whole answer that is an error is whole.
        details["reason"] == "error_event" || details["reason"] == "upstream_status"
    })
}

/// The session's newest active run.
async fn active(gateway: &Gateway, session: &SessionId) -> Result<Option<RunId>, Problem> {
    match gateway.log.bounds(session).await.map_err(Problem::store_unavailable)? {
        Bounds::Live(bounds) => Ok(bounds.active.last().map(|run| run.run.clone())),
        Bounds::Expired { .. } => Ok(None),
        Bounds::Erased | Bounds::NotFound => Err(Problem::new(Code::NotFound, "there is no such session")),
    }
}

/// There is nothing (more) to send.
pub fn no_content() -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
