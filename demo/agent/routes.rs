//! The backend's routes.
//!
//! - `POST /api/chat` (any JSON body): a recorded answer, in turn of several dialects. `dialect` or
//!   `recording` (body or query) choose one. `team` (body): an orchestrator answers, which has three
//!   others answer the same `message` at the same time.
//! - `POST|GET /replay/{file}?write=N&rate=R&gzip=1`: the exact bytes of a recording, in writes of
//!   N bytes (default: by event), R writes a second; `gzip`: compressed, with a flush per event.
//! - `POST /lorem?events=N&bytes=B&rate=R&stamp=1`: a synthetic stream.
//! - `POST /fault/{kind}?events=N&bytes=B`: a stream that goes wrong.
//! - `ANY /echo`: the request as JSON. `GET /health`. `GET /requests`: what was asked, and how it ended.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request, Response, Uri};
use serde::Deserialize;
use serde_json::json;

use crate::answer::{Answer, Body, Refusal, json, paced};
use crate::fault::fault;
use crate::ledger::Ledger;
use crate::lorem::lorem;
use crate::pace::Pace;
use crate::query::Query;
use crate::recordings::{Recording, Recordings};
use crate::socket::ResetSwitch;
use crate::team::team;

/// The largest request body that is read, in bytes.
const MAX_BODY: usize = 64 << 20;

/// The backend: what it has to say, and what it was asked.
pub(crate) struct Agent {
    recordings: Recordings,
    rate: Option<f64>,
    seed: u64,
    answers: AtomicU64,
    chats: AtomicU64,
    ledger: Ledger,
}

/// What we understand of a chat request.
#[derive(Default, Deserialize)]
struct Chat {
    dialect: Option<String>,
    recording: Option<String>,
    rate: Option<f64>,
    #[serde(default)]
    team: bool,
    #[serde(default)]
    message: serde_json::Value,
}

/// What came of a request.
enum Outcome {
    Stream(Answer),
    Whole(Response<Body>),
}

impl Agent {
    /// A backend that streams `rate` events a second (none: 20 to 80, another for each answer).
    pub(crate) fn new(recordings: Recordings, rate: Option<f64>, seed: u64) -> Self {
        let (answers, chats) = (AtomicU64::new(0), AtomicU64::new(0));
        Agent { recordings, rate, seed, answers, chats, ledger: Ledger::default() }
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>, reset: ResetSwitch) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/health") => return json(br#"{"status":"ok"}"#.to_vec()),
            (&Method::GET, "/requests") => {
                return self
                    .ledger
                    .report()
                    .map(json)
                    .unwrap_or_else(|e| Refusal::bad_request(e.to_string()).into_response());
            }
            _ => {}
        }
        let mut ticket = self.ledger.received(request.method().as_str(), request.uri().path());
        let whole = match self.route(request).await {
            Ok(Outcome::Stream(answer)) => return answer.into_response(ticket, reset),
            Ok(Outcome::Whole(response)) => response,
            Err(refusal) => refusal.into_response(),
        };
        ticket.complete();
        whole
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Outcome, Refusal> {
        let (head, body) = request.into_parts();
        let collected = Limited::new(body, MAX_BODY).collect().await;
        let collected = collected.map_err(|e| Refusal::bad_request(format!("cannot read the body: {e}")))?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let body = collected.to_bytes();
        let query = Query::of(&head.uri);
        let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        match (&head.method, &path[..]) {
            (_, ["echo"]) => Ok(Outcome::Whole(echo(&head.method, &head.uri, &head.headers, &body, &trailers))),
            (&Method::POST, ["api", "chat"]) => self.chat(query, &head.headers, &body).map(Outcome::Stream),
            (&Method::POST | &Method::GET, ["replay", file]) => self.replay(file, query).await.map(Outcome::Stream),
            (&Method::POST, ["lorem"]) => lorem(query, self.pace(query.value("rate")?)).map(Outcome::Stream),
            (&Method::POST, ["fault", kind]) => fault(kind, query).map(Outcome::Stream),
            _ => Err(Refusal::not_found(format!("no route {} {}", head.method, head.uri.path()))),
        }
    }

    fn chat(&self, query: Query<'_>, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Refusal> {
        let chat = if body.is_empty() { Ok(Chat::default()) } else { serde_json::from_slice(body) };
        let chat: Chat = chat.map_err(|e| Refusal::bad_request(format!("the body is not a chat request: {e}")))?;
        let rate = query.value("rate")?.or(chat.rate);
        let pace = self.pace(rate);
        if chat.team {
            return team(headers, chat.message.as_str().unwrap_or_default(), rate, pace);
        }
        let turn = self.chats.fetch_add(1, Ordering::Relaxed);
        let file = query.text("recording").or(chat.recording.as_deref());
        let dialect = query.text("dialect").or(chat.dialect.as_deref());
        let recording = match (file, dialect) {
            (Some(file), _) => self.recordings.named(file),
            (None, Some(dialect)) => self.recordings.of_dialect(dialect, turn),
            (None, None) => self.recordings.in_turn(turn),
        };
        let recording = recording.ok_or_else(|| Refusal::not_found("no such recording, or none of this dialect"))?;
        Ok(recorded(recording, None, pace))
    }

    async fn replay(&self, file: &str, query: Query<'_>) -> Result<Answer, Refusal> {
        let recording = self.recordings.named(file);
        let recording = recording.ok_or_else(|| Refusal::not_found(format!("no recording `{file}`")))?;
        let (write, pace) = (query.value("write")?, self.pace(query.value("rate")?));
        if !query.flag("gzip") || recording.is_gzip() {
            return Ok(recorded(recording, write, pace));
        }
        let gzipped = recording.gzipped().await.map_err(|e| Refusal::bad_request(e.to_string()))?;
        Ok(recorded(&gzipped, write, pace))
    }

    /// The pace of the next answer.
    fn pace(&self, rate: Option<f64>) -> Pace {
        let answer = self.answers.fetch_add(1, Ordering::Relaxed);
        Pace::new(rate.or(self.rate), self.seed.wrapping_mul(0x9E37_79B9).wrapping_add(answer))
    }
}

fn recorded(recording: &Recording, write: Option<usize>, pace: Pace) -> Answer {
    let steps: Box<dyn Iterator<Item = _> + Send> = match write {
        Some(len) => Box::new(paced(recording.in_writes_of(len), pace)),
        None => Box::new(paced(recording.by_event(), pace)),
    };
    Answer { headers: recording.headers.clone(), steps }
}

fn echo(method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes, trailers: &HeaderMap) -> Response<Body> {
    let pairs = |map: &HeaderMap| -> Vec<[String; 2]> {
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        map.iter().map(|(name, value)| [name.to_string(), text(value)]).collect()
    };
    let echo = json!({
        "method": method.as_str(),
        "path": uri.path(),
        "query": uri.query(),
        "headers": pairs(headers),
        "body": String::from_utf8_lossy(body),
        "body_bytes": body.len(),
        "trailers": pairs(trailers),
    });
    json(echo.to_string().into_bytes())
}
