//! Compressed answers: every event as soon as the upstream has flushed it, and never garbage.

use async_compression::tokio::write::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use rstest::rstest;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::fidelity::kept;
use crate::support::{Answer, Asked, End, Stage, Store, until};

/// Each event compressed and flushed, then the end: a piece each. `raw`: deflate as some servers send it.
async fn pieces(coding: &str, events: &[&str]) -> Vec<Vec<u8>> {
    macro_rules! pieces {
        ($encoder:ident) => {{
            let (mut encoder, mut pieces, mut at) = ($encoder::new(Vec::new()), Vec::new(), 0);
            for event in events {
                encoder.write_all(event.as_bytes()).await.unwrap();
                encoder.flush().await.unwrap();
                pieces.push(encoder.get_ref()[at..].to_vec());
                at = encoder.get_ref().len();
            }
            encoder.shutdown().await.unwrap();
            pieces.push(encoder.get_ref()[at..].to_vec());
            pieces
        }};
    }
    match coding {
        "gzip" => pieces!(GzipEncoder),
        "deflate" => pieces!(ZlibEncoder),
        "raw" => pieces!(DeflateEncoder),
        "br" => pieces!(BrotliEncoder),
        "zstd" => pieces!(ZstdEncoder),
        _ => unreachable!("{coding}"),
    }
}

/// A run in session `s` whose upstream says that it encodes its answer.
async fn encoded(stage: &mut Stage, coding: &str) -> (Answer, Asked) {
    let coding = if coding == "raw" { "deflate" } else { coding };
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse_with(&format!("content-encoding: {coding}\r\n")).await;
        upstream
    };
    let ask = stage.sidecar.post("/chat").header("sidestream-session", "s").header("accept-encoding", "gzip, br, zstd");
    tokio::join!(ask.send(), upstream)
}

#[rstest]
#[tokio::test]
async fn a_flushed_event_reaches_the_caller_and_every_device_at_once(
    #[values("gzip", "deflate", "raw", "br", "zstd")] coding: &str,
) {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    device.expect("live").await;
    let (mut caller, mut upstream) = encoded(&mut stage, coding).await;
    assert!(caller.headers.get("content-encoding").is_none() && caller.headers.get("content-length").is_none());
    assert_eq!(upstream.header("accept-encoding"), Some("identity"));
    assert_eq!(device.entry().await["state"], "started");
    let events = ["data: 0\n\n", "data: 1\n\n", "data: 2\n\n"];
    let mut pieces = pieces(coding, &events).await;
    let end = pieces.pop().unwrap();
    for (n, (event, piece)) in events.iter().zip(pieces).enumerate() {
        // Nothing more is sent before this event is here and there.
        upstream.write(piece).await;
        caller.arrives(event).await;
        assert_eq!(device.entry().await["json"], n, "{coding}");
    }
    upstream.write(end).await;
    upstream.end().await;
    assert_eq!(caller.whole().await, (events.concat().into(), End::Clean));
    assert_eq!(device.entry().await["state"], "completed");
}

#[tokio::test]
async fn codings_on_top_of_each_other_come_off() {
    let mut stage = Stage::on(Store::Embedded).await;
    let (caller, mut upstream) = encoded(&mut stage, "deflate, gzip").await;
    let inner = pieces("deflate", &["data: 0\n\n"]).await.concat();
    let mut outer = GzipEncoder::new(Vec::new());
    outer.write_all(&inner).await.unwrap();
    outer.shutdown().await.unwrap();
    upstream.write(outer.into_inner()).await;
    upstream.end().await;
    assert_eq!(caller.whole().await, ("data: 0\n\n".into(), End::Clean));
}

/// What an upstream can do wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    /// It is not compressed at all.
    Header,
    /// It ends as HTTP says before the compressed data has.
    Cut,
    /// Something follows the compressed data.
    Behind,
}

#[rstest]
#[tokio::test]
async fn garbage_breaks_off_and_its_run_says_why(
    #[values("gzip", "deflate", "raw", "br", "zstd")] coding: &str,
    #[values(Wrong::Header, Wrong::Cut, Wrong::Behind)] wrong: Wrong,
) {
    let mut stage = Stage::on(Store::Embedded).await;
    let (caller, mut upstream) = encoded(&mut stage, coding).await;
    let run = caller.header("sidestream-run").to_owned();
    let mut pieces = pieces(coding, &["data: 0\n\n", "data: 1\n\n"]).await;
    match wrong {
        Wrong::Header => pieces = vec![b"data: 0\n\ndata: 1\n\n".to_vec()],
        Wrong::Cut => pieces.truncate(1),
        Wrong::Behind => pieces.push(b"<html>".to_vec()),
    }
    for piece in &pieces {
        // It may have closed the connection already.
        let _ = upstream.try_write(piece).await;
    }
    upstream.end().await;
    let (body, end) = caller.whole().await;
    assert_eq!(end, End::Aborted);
    let whole: &[u8] = match wrong {
        Wrong::Header => b"",
        Wrong::Cut => b"data: 0\n\n",
        Wrong::Behind => b"data: 0\n\ndata: 1\n\n",
    };
    assert_eq!(body, whole);
    let (events, terminal) = kept(&stage.sidecar, "s", &run).await;
    assert_eq!(events.len(), whole.len() / 9);
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("failed"), &json!("content_coding")), "{terminal}");
    let said = until("the line that says what is wrong", async || {
        let log = stage.sidecar.log();
        log.lines().find(|line| line.contains("not encoded as its Content-Encoding says")).map(str::to_owned)
    })
    .await;
    for words in [&*run, "route", "let the backend send gzip, deflate, br, zstd or none"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn a_coding_that_nobody_here_knows_passes_through_untouched() {
    let mut stage = Stage::on(Store::Embedded).await;
    let (caller, mut upstream) = encoded(&mut stage, "x-own").await;
    upstream.write("\u{1}\u{2}").await;
    upstream.end().await;
    assert_eq!((caller.header("content-encoding"), caller.header("sidestream-durable")), ("x-own", "no"));
    assert_eq!(caller.whole().await, ("\u{1}\u{2}".into(), End::Clean));
    let (_, upstream) = encoded(&mut stage, "x-own").await;
    upstream.end().await;
    let log = stage.sidecar.log();
    let said: Vec<_> = log.lines().filter(|line| line.contains("x-own")).collect();
    assert!(
        matches!(said[..], [line] if line.contains("gzip, deflate, br, zstd") && line.contains("POST /chat")),
        "{log}"
    );
    assert_eq!(log.matches("stream not recorded").count(), 1, "{log}");
}
