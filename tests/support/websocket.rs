//! A WebSocket client that proves, with every message, that what it reads of a session is an exact
//! slice of its log.

use std::collections::{HashMap, VecDeque};

use futures_util::{SinkExt, StreamExt};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Utf8Bytes, protocol::Role};

use super::http::Ask;
use super::message::{Message, Offset};
use super::slice::Slice;
use super::wait::within;

/// A connected client.
pub(crate) struct WebSocket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    sessions: HashMap<String, Slice>,
    aside: VecDeque<Message>,
    refs: u64,
    /// The subprotocol that the server chose.
    pub(crate) subprotocol: Option<String>,
}

/// The server did not upgrade.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Its status.
    pub(crate) status: StatusCode,
    /// The code of its problem document.
    pub(crate) code: String,
}

/// What came of a read.
enum Read {
    Text(String),
    Closed(Option<u16>),
}

impl WebSocket {
    /// Connects with our subprotocol and `headers`.
    pub(crate) async fn open(url: &str, path: &str, headers: &[(&str, &str)]) -> Result<Self, Refused> {
        let ask = Ask::get(url, path).header("sec-websocket-protocol", "sidestream.v1");
        let ask = headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
        let response = handshake(ask).await;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let document: Value = serde_json::from_slice(&body).unwrap_or_default();
            return Err(Refused { status, code: document["code"].as_str().unwrap_or_default().to_owned() });
        }
        let subprotocol = response.headers().get("sec-websocket-protocol").map(|v| v.to_str().unwrap().to_owned());
        let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let stream = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        Ok(WebSocket { stream, sessions: HashMap::new(), aside: VecDeque::new(), refs: 0, subprotocol })
    }

    /// Attaches to a session from its start, waiting for it where it does not exist yet.
    pub(crate) async fn attach(&mut self, session: &str) -> Message {
        self.attach_with(session, json!({"create": true})).await
    }

    /// Attaches after an offset, or as another form of `after` says.
    pub(crate) async fn attach_after(&mut self, session: &str, after: impl Into<Value>) -> Message {
        self.attach_with(session, json!({"after": after.into()})).await
    }

    /// Attaches with more fields.
    pub(crate) async fn attach_with(&mut self, session: &str, fields: Value) -> Message {
        let mut message = json!({"type": "attach", "session": session});
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let attached = self.ask(message).await;
        assert_eq!(attached.kind(), "attached", "{attached}");
        assert_eq!(attached.session(), Some(session), "{attached}");
        attached
    }

    /// Sends a message and waits for the answer with its `ref`; what comes before it is read later.
    pub(crate) async fn ask(&mut self, mut message: Value) -> Message {
        self.refs += 1;
        let reference = format!("r{}", self.refs);
        message["ref"] = reference.clone().into();
        self.send(message.to_string()).await;
        loop {
            let answer = self.receive().await;
            if answer["ref"] == reference {
                return answer;
            }
            self.aside.push_back(answer);
        }
    }

    /// Sends a text frame as it is.
    pub(crate) async fn send(&mut self, text: impl Into<Utf8Bytes>) {
        self.send_frame(tungstenite::Message::Text(text.into())).await;
    }

    /// Sends any frame.
    pub(crate) async fn send_frame(&mut self, frame: tungstenite::Message) {
        within("the client's write", self.stream.send(frame)).await.unwrap();
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Message {
        match self.aside.pop_front() {
            Some(message) => message,
            None => self.receive().await,
        }
    }

    /// The next message, which must be of this type.
    pub(crate) async fn expect(&mut self, kind: &str) -> Message {
        let message = self.next().await;
        assert_eq!(message.kind(), kind, "{message}");
        message
    }

    /// The next message that is an entry of the log.
    pub(crate) async fn entry(&mut self) -> Message {
        loop {
            let message = self.next().await;
            if message.is_entry() {
                return message;
            }
            assert!(matches!(message.kind(), "live" | "ping" | "at"), "{message}");
        }
    }

    /// Reads until `last` accepts a message; everything read, that one included.
    pub(crate) async fn collect_until(&mut self, mut last: impl FnMut(&Message) -> bool) -> Vec<Message> {
        let mut collected = Vec::new();
        loop {
            let message = self.next().await;
            let done = last(&message);
            collected.push(message);
            if done {
                return collected;
            }
        }
    }

    /// The entries up to the terminal of `run`.
    pub(crate) async fn collect_until_terminal(&mut self, run: &str) -> Vec<Message> {
        let mut all = self.collect_until(|message| message.is_terminal() && message["run"] == run).await;
        all.retain(Message::is_entry);
        all
    }

    /// The entries of what was there when the client attached.
    pub(crate) async fn collect_until_live(&mut self) -> Vec<Message> {
        let mut all = self.collect_until(|message| message.kind() == "live").await;
        all.retain(Message::is_entry);
        all
    }

    /// What had come before the last answer and was not read yet.
    pub(crate) fn set_aside(&mut self) -> Vec<Message> {
        self.aside.drain(..).collect()
    }

    /// The last offset that the client knows of a session: where it resumes.
    pub(crate) fn position(&self, session: &str) -> String {
        self.sessions[session].at().to_string()
    }

    /// Reads until the server closes the connection; its close code.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        loop {
            if let Read::Closed(code) = self.read().await {
                return code;
            }
        }
    }

    async fn receive(&mut self) -> Message {
        match self.read().await {
            Read::Text(text) => {
                let message = Message::parse(&text);
                self.check(&message);
                message
            }
            Read::Closed(code) => panic!("the server closed the socket: {code:?}"),
        }
    }

    async fn read(&mut self) -> Read {
        loop {
            return match within("a message", self.stream.next()).await {
                Some(Ok(tungstenite::Message::Text(text))) => Read::Text(text.to_string()),
                Some(Ok(tungstenite::Message::Close(frame))) => Read::Closed(frame.map(|frame| frame.code.into())),
                Some(Ok(tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_))) => continue,
                Some(Ok(other)) => panic!("the server sent {other:?}"),
                Some(Err(_)) | None => Read::Closed(None),
            };
        }
    }

    fn check(&mut self, message: &Message) {
        let Some(session) = message.session() else { return };
        match (message.kind(), self.sessions.get_mut(session)) {
            ("attached", _) => {
                let began: Offset = message.offset();
                self.sessions.insert(session.to_owned(), Slice::after(began));
            }
            (_, Some(slice)) => slice.take(message),
            (_, None) => assert!(!message.is_entry(), "an entry of a session that is not attached: {message}"),
        }
    }
}

/// The client's half of a handshake (RFC 6455 §4.1).
pub(crate) async fn handshake(ask: Ask) -> Response<Incoming> {
    let ask = ask.header("connection", "Upgrade").header("upgrade", "websocket");
    // The key of the RFC's example: the server must not care.
    ask.header("sec-websocket-version", 13).header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").exchange().await
}
