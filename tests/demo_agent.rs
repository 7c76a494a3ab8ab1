//! The demo agent is the "real backend" of other tests: what it promises is tested here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

const RECORDINGS: &str = "tests/data/sse/visible";

/// A running demo agent, stopped when it is dropped.
struct Agent {
    process: Child,
    address: SocketAddr,
}

impl Agent {
    fn start(options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo-agent"));
        let mut process = command.args(options).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("demo-agent listening on http://").expect(&line).parse().unwrap();
        Agent { process, address }
    }

    /// Sends a request on a connection of its own.
    async fn send(&self, method: &str, path: &str, body: &'static str) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "agent").header("x-test", "1");
        sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
    }

    async fn bytes(&self, method: &str, path: &str) -> Bytes {
        let response = self.send(method, path, "").await;
        assert_eq!(response.status(), 200, "{path}");
        response.into_body().collect().await.unwrap().to_bytes()
    }

    async fn json(&self, method: &str, path: &str, body: &'static str) -> Value {
        let response = self.send(method, path, body).await;
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    /// Waits until the agent counts what `is` expects of this path.
    async fn until_counted(&self, path: &str, is: impl Fn(&Value) -> bool) {
        let counted = async {
            loop {
                if is(&self.json("GET", "/requests", "").await["paths"][path]) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), counted).await.expect("counted in time");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What arrived before the body ended, and whether it ended as HTTP says.
async fn read_all(response: Response<Incoming>) -> (Vec<u8>, Result<(), hyper::Error>) {
    let mut body = response.into_body();
    let mut arrived = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => arrived.extend_from_slice(frame.data_ref().unwrap()),
            Err(error) => return (arrived, Err(error)),
        }
    }
    (arrived, Ok(()))
}

/// What the operating system or the framing said about how a body broke.
fn cause(error: &hyper::Error) -> Option<ErrorKind> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

#[tokio::test]
async fn every_recording_is_replayed_byte_for_byte_however_it_is_written() {
    let agent = Agent::start(&["--rate", "0"]);
    assert_eq!(agent.json("GET", "/health", "").await["status"], "ok");
    let folder = PathBuf::from(RECORDINGS);
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if !file.contains("__") {
            continue;
        }
        let recorded = std::fs::read(&path).unwrap();
        assert_eq!(agent.bytes("POST", &format!("/replay/{file}")).await, recorded, "{file} by event");
        assert_eq!(agent.bytes("GET", &format!("/replay/{file}?write=1000")).await, recorded, "{file}");
        if recorded.len() < 3000 {
            assert_eq!(agent.bytes("GET", &format!("/replay/{file}?write=1")).await, recorded, "{file} byte by byte");
        }
        replayed += 1;
    }
    assert_eq!(replayed, 96);
}

#[tokio::test]
async fn an_answer_is_served_as_its_manifest_says() {
    let agent = Agent::start(&["--rate", "0"]);
    for (file, name, value) in [
        ("openai-chat__openai-text.sse", "content-type", "text/event-stream; charset=utf-8"),
        ("gemini-sse__text.sse", "content-type", "text/event-stream"),
        ("anthropic-messages__schema-gzip.sse.gz", "content-type", "text/event-stream; charset=utf-8"),
        ("anthropic-messages__schema-gzip.sse.gz", "content-encoding", "gzip"),
        ("ollama-ndjson__chat.ndjson", "content-type", "application/x-ndjson"),
        ("vercel-ui-message-stream__text.sse", "x-vercel-ai-ui-message-stream", "v1"),
        ("vercel-data-stream-v4__text.txt", "x-vercel-ai-data-stream", "v1"),
    ] {
        let response = agent.send("GET", &format!("/replay/{file}"), "").await;
        assert_eq!(response.headers().get(name).unwrap(), value, "{file}");
    }
}

#[tokio::test]
async fn an_answer_can_be_compressed_with_a_flush_for_each_event() {
    let agent = Agent::start(&[]);
    let path = "/replay/openai-chat__openai-text.sse?gzip=1&rate=0";
    let compressed = agent.bytes("POST", path).await;
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, std::fs::read(format!("{RECORDINGS}/openai-chat__openai-text.sse")).unwrap());
    let flushes = compressed.windows(4).filter(|w| w == b"\x00\x00\xff\xff").count();
    assert!(flushes >= 12, "{flushes} flushes for 12 events");
}

#[tokio::test]
async fn the_chat_shows_another_dialect_in_turn_or_the_one_that_is_asked_for() {
    let agent = Agent::start(&["--rate", "0"]);
    let mut shown = std::collections::HashSet::new();
    for _ in 0..9 {
        let response = agent.send("POST", "/api/chat", r#"{"message":"hello","id":"chat-1"}"#).await;
        let (answer, end) = read_all(response).await;
        end.unwrap();
        shown.insert(answer);
    }
    assert_eq!(shown.len(), 9);
    let response = agent.send("POST", "/api/chat", r#"{"dialect":"vercel-ui-message-stream"}"#).await;
    assert_eq!(response.headers()["x-vercel-ai-ui-message-stream"], "v1");
    let file = "cohere-v2__text.sse";
    assert_eq!(
        agent.bytes("POST", &format!("/api/chat?recording={file}")).await,
        std::fs::read(format!("{RECORDINGS}/{file}")).unwrap()
    );
    assert_eq!(agent.send("POST", "/api/chat?dialect=klingon", "").await.status(), 404);
    assert_eq!(agent.send("POST", "/api/chat", "{").await.status(), 400);
}

#[tokio::test]
async fn a_synthetic_stream_counts_its_events_and_stamps_them() {
    let agent = Agent::start(&[]);
    let stream = agent.bytes("POST", "/lorem?events=500&bytes=300&rate=0&stamp=1").await;
    let text = std::str::from_utf8(&stream).unwrap();
    let events: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!((events.len(), events[500]), (501, "data: [DONE]"));
    let mut before = 0;
    for (i, event) in events[..500].iter().enumerate() {
        let data: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["n"], i + 1);
        assert!(data["t_ns"].as_u64().unwrap() >= before);
        before = data["t_ns"].as_u64().unwrap();
        assert!((295..=300).contains(&(event.len() + 2)), "{} bytes", event.len() + 2);
    }
    assert_eq!(agent.send("POST", "/lorem?events=many", "").await.status(), 400);
}

#[tokio::test]
async fn each_fault_goes_wrong_in_its_own_way() {
    let agent = Agent::start(&["--rate", "0"]);
    let good = b"data: {\"n\":1}\n\ndata: {\"n\":2}\n\ndata: {\"n\":3}\n\n";

    let (arrived, end) = read_all(agent.send("POST", "/fault/reset-mid-event", "").await).await;
    assert!(arrived.starts_with(good) && arrived.len() > good.len() && !arrived.ends_with(b"\n\n"));
    assert_eq!(cause(&end.unwrap_err()), Some(ErrorKind::ConnectionReset));

    let (arrived, end) = read_all(agent.send("POST", "/fault/truncate", "").await).await;
    assert_eq!(arrived, good);
    assert_eq!(cause(&end.unwrap_err()), Some(ErrorKind::UnexpectedEof), "closed without the last chunk");

    let (arrived, end) = read_all(agent.send("POST", "/fault/close?events=1", "").await).await;
    end.unwrap();
    assert_eq!(&arrived[..], b"data: {\"n\":1}\n\ndata: {\"n\":\"never whol");

    let (arrived, end) = read_all(agent.send("POST", "/fault/error-event", "").await).await;
    end.unwrap();
    assert!(arrived[good.len()..].starts_with(b"event: error\ndata: {"));

    let (arrived, end) = read_all(agent.send("POST", "/fault/oversize?bytes=1000000", "").await).await;
    end.unwrap();
    assert_eq!(arrived.iter().filter(|&&b| b == b'x').count(), 1_000_000);
    assert!(arrived.ends_with(b"x\n\ndata: {\"n\":2}\n\n"));

    for kind in ["non-utf8", "malformed"] {
        let (arrived, end) = read_all(agent.send("POST", &format!("/fault/{kind}"), "").await).await;
        end.unwrap();
        assert!(arrived.ends_with(b"data: {\"n\":0}\n\n"), "{kind}");
        assert_eq!(std::str::from_utf8(&arrived).is_err(), kind == "non-utf8");
    }
    assert_eq!(agent.send("POST", "/fault/unheard-of", "").await.status(), 404);
}

#[tokio::test]
async fn a_client_that_goes_away_stops_its_answer_and_is_counted() {
    let agent = Agent::start(&[]);
    for path in ["/fault/silent", "/lorem?events=100000&rate=100", "/lorem?events=100000000&rate=0"] {
        let mut response = agent.send("POST", path, "").await;
        assert!(response.body_mut().frame().await.unwrap().unwrap().data_ref().unwrap().starts_with(b"data: {"));
        drop(response);
    }
    agent.until_counted("POST /fault/silent", |counts| counts["aborted"] == 1).await;
    agent.until_counted("POST /lorem", |counts| counts["aborted"] == 2 && counts["completed"] == 0).await;
}

#[tokio::test]
async fn every_request_is_counted_by_its_path() {
    let agent = Agent::start(&["--rate", "0"]);
    for _ in 0..3 {
        agent.bytes("POST", "/api/chat").await;
    }
    agent.send("GET", "/nowhere?x=1", "").await;
    agent.until_counted("POST /api/chat", |counts| counts["received"] == 3 && counts["completed"] == 3).await;
    let report = agent.json("GET", "/requests", "").await;
    assert_eq!(report["paths"]["GET /nowhere"]["received"], 1);
    assert_eq!(report["total"]["received"], 4, "looking at the counts does not count");
}

#[tokio::test]
async fn an_echo_says_what_was_asked() {
    let agent = Agent::start(&[]);
    let echo = agent.json("PUT", "/echo?a=b", "the body").await;
    assert_eq!(echo["method"], "PUT");
    assert_eq!((&echo["path"], &echo["query"]), (&"/echo".into(), &"a=b".into()));
    assert_eq!((&echo["body"], &echo["body_bytes"]), (&"the body".into(), &8.into()));
    assert!(echo["headers"].as_array().unwrap().contains(&serde_json::json!(["x-test", "1"])));
}

#[test]
fn a_folder_without_recordings_is_an_error_that_says_what_to_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo-agent")).args(["--recordings", "src/session"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--recordings"));
}
