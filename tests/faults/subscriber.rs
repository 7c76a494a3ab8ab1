//! A subscriber that keeps everything it sees, checks that it is a slice of a log, and comes back
//! where it was, at the other sidecar if need be.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::support::Offset;

/// How long a sidecar may take to accept a connection, or to answer an attach.
const ANSWER: Duration = Duration::from_secs(5);

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(250);

/// An entry as everybody must see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) offset: Offset,
    /// Whether it is an event.
    pub(crate) event: bool,
    /// Of its kind, its run, its name or state and, for events, its data.
    pub(crate) content: u64,
}

/// What a subscriber has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// After gaps were applied: what it holds for the log.
    pub(crate) view: Vec<Entry>,
    /// The last offset that it knows.
    pub(crate) at: Offset,
    /// Events, also those that a gap took back.
    pub(crate) delivered: u64,
    /// Entries that it had already.
    pub(crate) duplicated: u64,
    /// Entries that were left out without a word.
    pub(crate) missed: u64,
    /// Other breaches, the first few in words.
    pub(crate) wrong: Vec<String>,
    /// The contents of what a gap took back.
    pub(crate) taken_back: HashSet<u64>,
    /// Gaps by reason.
    pub(crate) gaps: HashMap<String, u64>,
    /// Longest time between two events.
    pub(crate) stall: Duration,
    pub(crate) last_event: Option<Instant>,
    /// When it saw the terminal of a run.
    pub(crate) terminals: HashMap<String, Instant>,
    pub(crate) connections: u64,
}

/// What subscribers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Be connected.
    Read,
    /// Be away.
    Leave,
    /// It is over.
    Stop,
}

/// A subscriber under way.
#[derive(Clone)]
pub(crate) struct Subscriber {
    pub(crate) session: String,
    ledger: Arc<Mutex<Ledger>>,
}

/// A message of the server, as far as a subscriber looks.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    session: Option<&'a str>,
    offset: Option<&'a str>,
    run: Option<&'a str>,
    event: Option<&'a str>,
    state: Option<&'a str>,
    from: Option<&'a str>,
    to: Option<&'a str>,
    reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    json: Option<&'a RawValue>,
    text: Option<Cow<'a, str>>,
}

impl Subscriber {
    /// Reads a session from its start as it is told. `urls` of both sidecars, its own first.
    pub(crate) fn start(session: String, urls: [String; 2], told: watch::Receiver<Told>) -> Self {
        let subscriber = Subscriber { session, ledger: Arc::default() };
        tokio::spawn(subscriber.clone().read(urls, told));
        subscriber
    }

    /// What it has seen so far.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(self, urls: [String; 2], mut told: watch::Receiver<Told>) {
        let mut attempt = 0;
        loop {
            let now = told.wait_for(|told| *told != Told::Leave).await.map_or(Told::Stop, |told| *told);
            if now == Told::Stop {
                return;
            }
            tokio::select! {
                // The other one is tried when the own one has just failed.
                _ = self.connection(&urls[attempt % 2]) => {
                    attempt += 1;
                    sleep(AGAIN).await;
                }
                () = async { drop(told.wait_for(|told| *told != Told::Read).await) } => {}
            }
        }
    }

    /// One connection, to its end.
    async fn connection(&self, url: &str) -> Option<()> {
        let authority = url.strip_prefix("http://").unwrap();
        let connecting = async {
            let stream = TcpStream::connect(authority).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let mut request = format!("ws://{authority}/_sidestream/v1/ws").into_client_request().unwrap();
            request.headers_mut().insert("sec-websocket-protocol", "sidestream.v1".parse().unwrap());
            Some(tokio_tungstenite::client_async(request, stream).await.ok()?.0)
        };
        let mut socket = timeout(ANSWER, connecting).await.ok()??;
        self.ledger().connections += 1;
        self.attach(&mut socket).await?;
        loop {
            let Message::Text(text) = socket.next().await?.ok()? else { continue };
            let frame: Frame<'_> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            match frame.kind {
                "ping" => socket.send(Message::text(r#"{"type":"pong"}"#)).await.ok()?,
                "error" | "goaway" => return None,
                _ if frame.session == Some(&self.session) => self.ledger().take(&frame, &text),
                _ => {}
            }
        }
    }

    /// Attaches where it was; until the server says so, which it may refuse while the store is away.
    async fn attach(&self, socket: &mut WebSocketStream<TcpStream>) -> Option<()> {
        let at = self.ledger().at;
        let after = if at == Offset::default() { "start".to_owned() } else { at.to_string() };
        let attach = json!({"type": "attach", "session": self.session, "create": true, "after": after, "ref": "a"});
        socket.send(Message::text(attach.to_string())).await.ok()?;
        loop {
            let Message::Text(text) = timeout(ANSWER, socket.next()).await.ok()??.ok()? else { continue };
            let frame: Frame<'_> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            match frame.kind {
                "attached" => {
                    if frame.offset != Some(&at.to_string()) {
                        self.ledger().breach(|| format!("asked for what follows {at}: {text}"));
                    }
                    return Some(());
                }
                "error" | "goaway" => return None,
                _ => {}
            }
        }
    }
}

impl Ledger {
    fn take(&mut self, frame: &Frame<'_>, text: &str) {
        match frame.kind {
            "event" | "event_dropped" | "run" | "input" | "status" => self.entry(frame, text),
            "gap" => self.gap(frame, text),
            "live" => {
                if frame.offset != Some(&self.at.to_string()) {
                    let at = self.at;
                    self.breach(|| format!("live elsewhere than at {at}: {text}"));
                }
            }
            "erased" => self.breach(|| "erased by nobody".to_owned()),
            _ => {}
        }
    }

    fn entry(&mut self, frame: &Frame<'_>, text: &str) {
        let Some(offset) = frame.offset.map(|offset| offset.parse::<Offset>().unwrap()) else { return };
        let at = self.at;
        if frame.kind == "event" {
            self.delivered += 1;
            let now = Instant::now();
            self.stall = self.stall.max(self.last_event.map_or(Duration::ZERO, |last| now - last));
            self.last_event = Some(now);
        }
        if offset.seq <= at.seq {
            self.duplicated += 1;
            return self.breach(|| format!("after {at} came {text}"));
        }
        if offset.seq > at.seq + 1 {
            self.missed += offset.seq - at.seq - 1;
            self.breach(|| format!("after {at} came {text}"));
        }
        if offset.ms < at.ms {
            self.breach(|| format!("time went back: after {at} came {text}"));
        }
        self.at = offset;
        let data = frame.json.map(RawValue::get).or(frame.text.as_deref());
        let name = frame.event.or(frame.state);
        let content = content(frame.kind, frame.run, name, data.filter(|_| frame.kind == "event"));
        self.view.push(Entry { offset, event: frame.kind == "event", content });
        let ended = matches!(frame.state, Some("completed" | "failed" | "cancelled" | "interrupted"));
        if let (Some(run), true) = (frame.run, frame.kind == "run" && ended) {
            self.terminals.insert(run.to_owned(), Instant::now());
        }
    }

    fn gap(&mut self, frame: &Frame<'_>, text: &str) {
        let at = self.at;
        if frame.from != Some(&at.to_string()) {
            self.breach(|| format!("a gap from elsewhere than {at}: {text}"));
        }
        let to: Offset = frame.to.unwrap().parse().unwrap();
        let reason = frame.reason.as_deref().unwrap();
        *self.gaps.entry(reason.to_owned()).or_default() += 1;
        if reason == "rolled_back" {
            let kept = self.view.partition_point(|entry| entry.offset.seq <= to.seq);
            self.taken_back.extend(self.view.drain(kept..).filter(|entry| entry.event).map(|entry| entry.content));
        } else if to < at {
            self.breach(|| format!("a gap that goes back: {text}"));
        }
        self.at = to;
    }

    fn breach(&mut self, what: impl FnOnce() -> String) {
        self.wrong.push(if self.wrong.len() < 5 { what() } else { String::new() });
    }
}

/// What must be the same everywhere.
pub(crate) fn content(kind: &str, run: Option<&str>, name: Option<&str>, data: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (kind, run, name, data).hash(&mut hasher);
    hasher.finish()
}
