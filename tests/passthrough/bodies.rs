//! Bodies: nothing is buffered, framing and trailers stay, a slow reader slows the writer.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::support::{End, Wire, pair, soon};

#[tokio::test]
async fn both_bodies_stream_piece_by_piece() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let mut upstream = backend.accept().await;
    assert_eq!(upstream.head().await.get("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(upstream.read_until("one\r\n").await, "3\r\none\r\n", "before the client sends more");

    upstream.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(client.head().await.first, "HTTP/1.1 200 OK", "before the request has ended");
    upstream.send("b\r\ndata: one\n\n\r\n").await;
    assert_eq!(client.read_until("\n\n\r\n").await, "B\r\ndata: one\n\n\r\n");
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(upstream.read_until("0\r\n\r\n").await, "3\r\ntwo\r\n0\r\n\r\n");
    upstream.send("0\r\n\r\n").await;
    assert_eq!(client.read_until("0\r\n\r\n").await, "0\r\n\r\n");
}

#[tokio::test]
async fn an_upload_goes_on_after_an_early_answer() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.read_until("one\r\n").await;
    upstream.send("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok").await;
    client.head().await;
    assert_eq!(client.read_exactly(2).await, "ok");
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(upstream.read_until("0\r\n\r\n").await, "3\r\ntwo\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_length_stays_a_length() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    let mut upstream = backend.accept().await;
    let head = upstream.head().await;
    assert_eq!((head.get("content-length").as_deref(), head.get("transfer-encoding")), (Some("5"), None));
    assert_eq!(upstream.read_exactly(5).await, "hello");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nanswers").await;
    let head = client.head().await;
    assert_eq!((head.get("content-length").as_deref(), head.get("transfer-encoding")), (Some("7"), None));
    assert_eq!(client.read_exactly(7).await, "answers");
}

#[tokio::test]
async fn a_body_of_a_get_or_delete_is_not_lost() {
    let (backend, proxy) = pair().await;
    for method in ["GET", "DELETE"] {
        let mut client = proxy.connect().await;
        client
            .send(format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"))
            .await;
        let mut upstream = backend.accept().await;
        assert_eq!(upstream.head().await.get("transfer-encoding").as_deref(), Some("chunked"));
        assert_eq!(upstream.read_until("0\r\n\r\n").await, "3\r\none\r\n0\r\n\r\n");
    }
}

#[tokio::test]
async fn trailers_travel_both_ways() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
        .await;
    client.send("3\r\none\r\n0\r\nX-Sum: 1\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    assert_eq!(upstream.head().await.get("trailer").as_deref(), Some("X-Sum"));
    assert_eq!(upstream.read_until("\r\n\r\n").await.to_lowercase(), "3\r\none\r\n0\r\nx-sum: 1\r\n\r\n");
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n").await;
    upstream.send("3\r\ntwo\r\n0\r\nX-Sum: 2\r\n\r\n").await;
    assert_eq!(client.head().await.get("trailer").as_deref(), Some("X-Sum"));
    assert_eq!(client.read_until("\r\n\r\n").await.to_lowercase(), "3\r\ntwo\r\n0\r\nx-sum: 2\r\n\r\n");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_headers_and_the_connection() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    let mut upstream: Option<Wire> = None;
    for (method, answer, length) in [
        ("HEAD", "200 OK\r\nContent-Length: 1234", Some("1234")),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked", None),
        ("GET", "204 No Content", None),
        ("GET", "304 Not Modified\r\nETag: \"x\"", None),
        ("GET", "304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1234", None),
        ("GET", "200 OK\r\nContent-Length: 0", Some("0")),
    ] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let upstream = match &mut upstream {
            Some(upstream) => upstream,
            none => none.insert(backend.accept().await),
        };
        assert!(upstream.head().await.first.starts_with(method));
        upstream.send(format!("HTTP/1.1 {answer}\r\n\r\n")).await;
        let head = client.head().await;
        assert!(head.first.ends_with(answer.split("\r\n").next().unwrap()), "{head:?}");
        assert_eq!(head.get("content-length").as_deref(), length, "{answer}");
        assert!(client.is_silent().await, "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_the_upstream() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    const TOTAL: usize = 64 << 20;
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n")).await;
    let piece = vec![b'x'; 64 << 10];
    let mut written = 0;
    while let Ok(sent) = tokio::time::timeout(Duration::from_millis(500), upstream.stream.write(&piece)).await {
        written += sent.unwrap();
        assert!(written < TOTAL, "everything was taken although nobody reads");
    }
    let writer = tokio::spawn(async move {
        while written < TOTAL {
            let n = piece.len().min(TOTAL - written);
            written += soon(upstream.stream.write(&piece[..n])).await.unwrap();
        }
        upstream
    });
    client.head().await;
    let (body, end) = client.rest().await;
    assert_eq!((body.len(), end), (TOTAL, End::Closed));
    drop(writer.await.unwrap());
}
