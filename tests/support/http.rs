//! An HTTP client that sees how a body ends: as HTTP says, or broken off.

use std::fmt::Display;

use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use super::wait::within;

/// A request, sent on a connection of its own.
pub(crate) struct Ask {
    authority: String,
    request: http::request::Builder,
    what: String,
    body: Bytes,
}

/// An answer, whose body is read as the test likes. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    arrived: BytesMut,
    body: Incoming,
    what: String,
}

/// How a body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As HTTP says.
    Clean,
    /// Broken off.
    Aborted,
}

impl Ask {
    /// A request to the server at `url`.
    pub(crate) fn new(method: Method, url: &str, path: impl Display) -> Self {
        let authority = url.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        let path = path.to_string();
        let what = format!("{method} {path}");
        let request = Request::builder().method(method).uri(path).header("host", &authority);
        Ask { authority, request, what, body: Bytes::new() }
    }

    /// A GET request.
    pub(crate) fn get(url: &str, path: impl Display) -> Self {
        Ask::new(Method::GET, url, path)
    }

    /// A POST request with a body of JSON.
    pub(crate) fn post(url: &str, path: impl Display) -> Self {
        Ask::new(Method::POST, url, path).header("content-type", "application/json").body("{}")
    }

    /// One more header.
    pub(crate) fn header(mut self, name: &str, value: impl Display) -> Self {
        self.request = self.request.header(name, value.to_string());
        self
    }

    /// The body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it and waits for the answer's head.
    pub(crate) async fn send(self) -> Answer {
        let what = self.what.clone();
        let (head, body) = self.exchange().await.into_parts();
        Answer { status: head.status, headers: head.headers, arrived: BytesMut::new(), body, what }
    }

    /// Sends its head; the body follows as the test likes.
    pub(crate) async fn upload(self) -> Upload {
        let stream = within("a connection", TcpStream::connect(&self.authority)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let (frames, mut waiting) = mpsc::channel::<Result<Bytes, &'static str>>(1);
        let frames_of = stream::poll_fn(move |cx| waiting.poll_recv(cx)).map_ok(Frame::data);
        let request = self.request.body(BodyExt::boxed(StreamBody::new(frames_of))).unwrap();
        let connection = tokio::spawn(connection);
        let answer = tokio::spawn(async move { sender.send_request(request).await });
        Upload { frames, answer, connection: connection.abort_handle(), what: self.what }
    }

    /// The same, for an answer that may be an upgrade.
    pub(crate) async fn exchange(self) -> Response<Incoming> {
        let what = format!("the answer to {}", self.what);
        let exchange = async {
            let stream = TcpStream::connect(&self.authority).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection.with_upgrades());
            let request = self.request.body(Full::new(self.body)).unwrap();
            sender.send_request(request).await.unwrap_or_else(|error| panic!("{}: {error:?}", self.what))
        };
        within(what, exchange).await
    }
}

/// A request whose body is under way.
pub(crate) struct Upload {
    frames: mpsc::Sender<Result<Bytes, &'static str>>,
    answer: JoinHandle<hyper::Result<Response<Incoming>>>,
    connection: AbortHandle,
    what: String,
}

impl Upload {
    /// More of the body. Waits while the server does not read.
    pub(crate) async fn write(&mut self, bytes: impl Into<Bytes>) {
        // A server that has answered already reads no more; what it has answered is for the test to see.
        let _ = within(format!("{} to be read", self.what), self.frames.send(Ok(bytes.into()))).await;
    }

    /// One SSE event with this data.
    pub(crate) async fn event(&mut self, data: impl Display) {
        self.write(format!("data: {data}\n\n")).await;
    }

    /// Ends the body as HTTP does; the answer.
    pub(crate) async fn end(self) -> Answer {
        let Upload { frames, answer, what, .. } = self;
        drop(frames);
        answered(answer, what).await
    }

    /// The answer that comes although the body has not ended.
    pub(crate) async fn refused(self) -> Answer {
        answered(self.answer, self.what).await
    }

    /// Closes the connection in the middle of the body.
    pub(crate) fn break_off(self) {
        self.answer.abort();
        self.connection.abort();
    }
}

async fn answered(answer: JoinHandle<hyper::Result<Response<Incoming>>>, what: String) -> Answer {
    let response = within(format!("the answer to {what}"), answer).await.unwrap();
    let (head, body) = response.unwrap_or_else(|error| panic!("{what}: {error:?}")).into_parts();
    Answer { status: head.status, headers: head.headers, arrived: BytesMut::new(), body, what }
}

impl Answer {
    /// The value of a header; panics where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("{} has no {name}: {self:?}", self.what));
        value.to_str().unwrap()
    }

    /// The next bytes of the body, or how it ends.
    pub(crate) async fn more(&mut self) -> Result<Bytes, End> {
        loop {
            let what = format!("more of {} after {:?}", self.what, last(&self.arrived));
            match within(what, self.body.frame()).await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.arrived.extend_from_slice(&data);
                        return Ok(data);
                    }
                }
                Some(Err(_)) => return Err(End::Aborted),
                None => return Err(End::Clean),
            }
        }
    }

    /// Reads until what has arrived ends with `text`; panics where the body ends before.
    pub(crate) async fn arrives(&mut self, text: &str) {
        while !self.arrived.ends_with(text.as_bytes()) {
            if let Err(end) = self.more().await {
                panic!("{} ended ({end:?}) with {:?}, before {text:?}", self.what, last(&self.arrived));
            }
        }
    }

    /// Everything that has arrived so far.
    pub(crate) fn arrived(&self) -> &[u8] {
        &self.arrived
    }

    /// The whole body, and how it ended.
    pub(crate) async fn whole(mut self) -> (Bytes, End) {
        loop {
            if let Err(end) = self.more().await {
                return (self.arrived.freeze(), end);
            }
        }
    }

    /// The whole body as JSON.
    pub(crate) async fn json(self) -> Value {
        let what = self.what.clone();
        let (body, end) = self.whole().await;
        assert_eq!(end, End::Clean, "{what}");
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{what}: {error} in {:?}", last(&body)))
    }

    /// The problem document that it is.
    pub(crate) async fn problem_document(self) -> Value {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let status = self.status.as_u16();
        let document = self.json().await;
        assert_eq!(document["status"], status, "{document}");
        document
    }

    /// The problem document that it is, by its code (RFC 9457).
    pub(crate) async fn problem(self) -> (u16, String) {
        let status = self.status.as_u16();
        let document = self.problem_document().await;
        (status, document["code"].as_str().unwrap().to_owned())
    }
}

/// The end of a long text, for messages.
fn last(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(120)..]).into_owned()
}
