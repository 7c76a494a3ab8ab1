//! An answer as a script of writes, pauses and breakages, and how it is played.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::time::{Instant, sleep, sleep_until};

use crate::ledger::Ticket;
use crate::pace::Pace;
use crate::socket::ResetSwitch;

/// What hyper sends.
pub(crate) type Body = UnsyncBoxBody<Bytes, Broken>;

/// The answer ends here without its HTTP end, as asked.
#[derive(Debug, thiserror::Error)]
#[error("broken off, as asked")]
pub(crate) struct Broken;

/// One step of an answer.
pub(crate) enum Step {
    /// These bytes in one write.
    Write(Bytes),
    /// What this comes to, in one write.
    When(BoxFuture<'static, Bytes>),
    /// Nothing for this long.
    Pause(Duration),
    /// Nothing ever again, with the connection open.
    Hang,
    /// Closes the connection without the body's end.
    Truncate,
    /// Resets the connection.
    Reset,
}

/// A streamed answer: its head, and what happens after it.
pub(crate) struct Answer {
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Read one by one as the client takes them: an answer of any length costs no memory.
    pub(crate) steps: Box<dyn Iterator<Item = Step> + Send>,
}

/// The request cannot be answered.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    /// The request makes no sense.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Refusal { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Refusal { status: StatusCode::NOT_FOUND, message: message.into() }
    }

    /// As a response, in the shape that LLM services use.
    pub(crate) fn into_response(self) -> Response<Body> {
        let body = serde_json::json!({"error": {"message": self.message}}).to_string();
        let mut response = json(body.into_bytes());
        *response.status_mut() = self.status;
        response
    }
}

impl Answer {
    /// An answer of an event stream.
    pub(crate) fn event_stream(steps: impl Iterator<Item = Step> + Send + 'static) -> Self {
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"))];
        Answer { headers, steps: Box::new(steps) }
    }

    /// As a response. The ticket is completed when the last step has been taken.
    pub(crate) fn into_response(self, ticket: Ticket, reset: ResetSwitch) -> Response<Body> {
        let player = Player { steps: self.steps, ticket, reset, due: Instant::now() };
        let mut response = Response::new(StreamBody::new(stream::unfold(player, Player::play)).boxed_unsync());
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        headers.extend(self.headers);
        response
    }
}

/// A JSON response, complete.
pub(crate) fn json(body: Vec<u8>) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The writes of an answer, each after a pause.
pub(crate) fn paced(writes: impl Iterator<Item = Bytes> + Send, mut pace: Pace) -> impl Iterator<Item = Step> + Send {
    writes.flat_map(move |write| pace.pause().map(Step::Pause).into_iter().chain([Step::Write(write)]))
}

/// Takes the steps of an answer as its client reads.
struct Player {
    steps: Box<dyn Iterator<Item = Step> + Send>,
    ticket: Ticket,
    reset: ResetSwitch,
    /// When the last pause was due to end: pauses add up exactly, whatever the timer's grain.
    due: Instant,
}

impl Player {
    async fn play(mut self) -> Option<(Result<Frame<Bytes>, Broken>, Self)> {
        loop {
            match self.steps.next() {
                Some(Step::Write(bytes)) => return Some((Ok(Frame::data(bytes)), self)),
                Some(Step::When(writing)) => {
                    let bytes = writing.await;
                    self.due = Instant::now();
                    return Some((Ok(Frame::data(bytes)), self));
                }
                Some(Step::Pause(pause)) => {
                    self.due += pause;
                    sleep_until(self.due).await;
                }
                Some(Step::Hang) => std::future::pending().await,
                Some(Step::Truncate) => return Some((Err(self.break_off().await), self)),
                Some(Step::Reset) => {
                    let broken = self.break_off().await;
                    self.reset.arm();
                    return Some((Err(broken), self));
                }
                None => {
                    self.ticket.complete();
                    return None;
                }
            }
        }
    }

    async fn break_off(&mut self) -> Broken {
        self.ticket.complete();
        // Hyper drops what it has not written yet when a body fails; let it write first.
        sleep(Duration::from_millis(50)).await;
        Broken
    }
}
