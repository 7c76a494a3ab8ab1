//! An event stream that an agent uploads as a run of its own: driven like an upstream's answer, and
//! answered when its terminal is in the log.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::said::Said;
use crate::dialect::Format;
use crate::gateway::Gateway;
use crate::gateway::document::document;
use crate::gateway::run_stream::name_run;
use crate::hub::{Cursor, Delivery, NoSession};
use crate::log::{Bounds, OnBusy, Opened};
use crate::run::{BrokenOff, Ending, RunSpec, Started, Tagging};
use crate::server::{Body, BodyError, Problem};
use crate::session::{After, Entry, Offset, Record, RunId, RunState, SessionId, Terminal};
use crate::telemetry::{Fact, RunStarted};
use crate::wire::Code;

/// How soon a store that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Drives `body` as a run and answers with its end.
pub(super) async fn record(
    gateway: &Arc<Gateway>,
    session: SessionId,
    said: Said,
    path: &str,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    if let Some(parent) = &said.parent
        && gateway.log.run(&session, parent).await.map_err(Problem::store_unavailable)?.is_none()
    {
        return Err(Problem::new(Code::NotFound, "this session has no run of the id in Sidestream-Parent-Run"));
    }
    let runs = &gateway.writers.runs;
    let _place = runs.may_begin();
    let run = RunId::from_random(crate::random::u128());
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))]);
    let mut started = Started::new(&Method::POST, path, StatusCode::OK, &headers);
    started.parent = said.parent.as_ref().map(|parent| parent.as_str().to_owned());
    let mut opening = Record::run_state(run.clone(), RunState::Started, started.to_json());
    opening.source.clone_from(&said.source);
    let route = gateway.writers.route(path);
    let spec = RunSpec {
        session: session.clone(),
        run: run.clone(),
        opening: vec![opening],
        status: None,
        source: said.source,
        parent: said.parent,
        key: None,
        route: route.pattern.to_string().into(),
        on_busy: OnBusy::Parallel,
        values: Vec::new(),
        on_cancel: None,
        steer: None,
        format: Format::default(),
        ending: Ending::Upload,
        ids: Tagging::Off,
        stall: route.stall,
        stall_limit: route.stall_limit,
        grace: None,
        // An agent writes for somebody else: the session is not its own.
        subject: None,
    };
    let dialect = spec.format.dialect.as_ref().map(|dialect| &*dialect.name);
    RunStarted { session: &session, run: &run, route: &spec.route, dialect, queued: false }.emit(&gateway.metrics);
    let (upload, done) = Upload::new(body);
    let opening = runs.write(spec, upload.boxed_unsync());
    // It has been read to its end, or the run has ended without it: nobody sends, only the drop is heard.
    let _ = done.await;
    let end = async {
        let opened = match opening {
            Some(opening) => opening.await.ok(),
            None => None,
        };
        match opened {
            Some(Opened::Open { .. }) => end_of(gateway, &session, &run).await,
            _ => Err(Problem::new(Code::StoreUnavailable, "the run could not be opened; nothing was stored")),
        }
    };
    let end = timeout(gateway.writers.patience, end).await.unwrap_or_else(|_| {
        Err(Problem::new(Code::StoreUnavailable, "the store does not answer; the run's end is not confirmed"))
    });
    let end = end.map_err(|problem| problem.with("session", session.as_str()).with("run", run.as_str()))?;
    let mut response = end.answer(&session, &run)?;
    name_run(response.headers_mut(), &session, &run, None);
    Ok(response)
}

/// The agent's body, which says when its reader has done with it.
struct Upload {
    body: Incoming,
    _done: oneshot::Sender<()>,
}

impl Upload {
    fn new(body: Incoming) -> (Self, oneshot::Receiver<()>) {
        let (sender, done) = oneshot::channel();
        (Upload { body, _done: sender }, done)
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map_err(|_| BodyError::from(BrokenOff("writer_reset")))))
    }
}

/// A run's terminal, as the log has it.
struct RunEnd {
    first: Offset,
    offset: Offset,
    state: Terminal,
    details: Value,
}

/// Waits for the terminal of `run`, which is open.
async fn end_of(gateway: &Arc<Gateway>, session: &SessionId, run: &RunId) -> Result<RunEnd, Problem> {
    // Followed before the log is asked: the terminal is in its answer, or comes.
    let mut cursor = loop {
        match gateway.hub.subscribe(session, After::End, false).await {
            Ok(subscription) => break subscription.cursor,
            Err(NoSession::Unavailable(_)) => sleep(ASK_AGAIN).await,
            Err(_) => return Err(erased()),
        }
    };
    loop {
        let (first, offset, state) = match gateway.log.run(session, run).await {
            Ok(Some(info)) => match info.ended {
                Some((offset, state)) => (info.started, offset, state),
                None => {
                    until_ended(&mut cursor, run).await?;
                    continue;
                }
            },
            Ok(None) if matches!(gateway.log.bounds(session).await, Ok(Bounds::Erased)) => return Err(erased()),
            // A store that has lost the run is given it again.
            Ok(None) | Err(_) => {
                sleep(ASK_AGAIN).await;
                continue;
            }
        };
        match gateway.log.entry(session, offset).await {
            Ok(entry) => {
                let details = entry.and_then(|entry| serde_json::from_str(&entry.record.data).ok()).unwrap_or_default();
                return Ok(RunEnd { first, offset, state, details });
            }
            Err(_) => sleep(ASK_AGAIN).await,
        }
    }
}

/// Reads on until the terminal of `run` comes by, or something that may hide it.
async fn until_ended(cursor: &mut Cursor, run: &RunId) -> Result<(), Problem> {
    let ends = |entry: &Entry| {
        entry.record.run.as_ref() == Some(run) && entry.record.state().and_then(RunState::terminal).is_some()
    };
    loop {
        match cursor.next().await {
            Delivery::Items(items) if items.iter().any(|item| ends(item.entry())) => return Ok(()),
            Delivery::Items(_) | Delivery::Live(_) | Delivery::News(_) | Delivery::Whole(_) => {}
            Delivery::Gap(_) => return Ok(()),
            Delivery::Erased => return Err(erased()),
        }
    }
}

fn erased() -> Problem {
    Problem::new(Code::Gone, "the session was erased while it was written to")
}

impl RunEnd {
    /// The agent hears that its stream was stored as a whole, or why it was not and how far it got.
    fn answer(self, session: &SessionId, run: &RunId) -> Result<Response<Body>, Problem> {
        let (first, offset) = (self.first.to_string(), self.offset.to_string());
        let (events, reason) = (&self.details["events"], self.details["reason"].as_str().unwrap_or_default());
        let code = match (self.state, reason) {
            (Terminal::Completed, _) | (Terminal::Failed, "error_event") => {
                return Ok(document(&json!({
                    "session": session.as_str(),
                    "run": run.as_str(),
                    "state": self.state.as_str(),
                    "first": first,
                    "offset": offset,
                    "events": events,
                })));
            }
            (Terminal::Failed, "store_unavailable" | "store_lost_entries") => Code::StoreUnavailable,
            (Terminal::Interrupted, _) => Code::Draining,
            (Terminal::Failed, _) => Code::BadRequest,
            (Terminal::Cancelled, _) => Code::Conflict,
        };
        let state = self.state.as_str();
        let problem = Problem::new(code, format!("the run ended as `{state}` before its stream did ({reason})"));
        let problem = problem.with("session", session.as_str()).with("run", run.as_str()).with("state", state);
        let problem = problem.with("reason", reason).with("events", events.clone());
        Err(problem.with("first", first).with("offset", offset))
    }
}
