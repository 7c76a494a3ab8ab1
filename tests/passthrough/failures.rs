//! What goes wrong is said as it is: a problem before the answer's head, an abort after it.

use std::time::Duration;

use sidestream::server::Manners;

use crate::support::{Backend, End, Proxy, Wire, pair, settings};

/// The status line and the problem document of an answer.
async fn problem(client: &mut Wire) -> (String, serde_json::Value) {
    let head = client.head().await;
    assert_eq!(head.get("content-type").as_deref(), Some("application/problem+json"), "{head:?}");
    let length = head.get("content-length").unwrap().parse().unwrap();
    (head.first, serde_json::from_str(&client.read_exactly(length).await).unwrap())
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_502_that_says_what_to_do() {
    let (backend, proxy) = pair().await;
    let url = backend.url();
    drop(backend);
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    let (status, problem) = problem(&mut client).await;
    assert_eq!(status, "HTTP/1.1 502 Bad Gateway");
    assert_eq!(problem["code"], "upstream_unreachable");
    assert_eq!(problem["retryable"], true);
    assert_eq!(problem["detail"], format!("cannot reach upstream {url}: connection refused; is the agent running?"));
}

#[tokio::test]
async fn a_long_upload_to_an_upstream_that_is_not_there_still_gets_its_answer() {
    let (backend, proxy) = pair().await;
    drop(backend);
    let mut client = proxy.connect().await;
    let body = vec![b'x'; 16 << 20]; // more than the sockets hold
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    client.send(&body).await;
    assert_eq!(problem(&mut client).await.1["code"], "upstream_unreachable");
}

#[tokio::test]
async fn an_upstream_that_never_finishes_connecting_is_given_up() {
    let backend = Backend::new().await; // accepts in the kernel, and never speaks TLS
    let mut settings = settings(&backend.url().replace("http:", "https:"));
    settings.connect_timeout = Duration::from_millis(200);
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let proxy = Proxy::trusting(settings, Manners::default(), vec![key.cert.der().clone()]).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (status, problem) = problem(&mut client).await;
    assert_eq!(status, "HTTP/1.1 502 Bad Gateway");
    assert!(problem["detail"].as_str().unwrap().contains("no connection within 200 ms"), "{problem}");
}

#[tokio::test]
async fn an_upstream_that_does_not_begin_in_time_is_a_504_and_is_left() {
    let backend = Backend::new().await;
    let mut settings = settings(&backend.url());
    settings.first_byte_timeout = Some(Duration::from_millis(200));
    let proxy = Proxy::with(settings, Manners::default()).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    let mut upstream = backend.accept().await;
    let (status, problem) = problem(&mut client).await;
    assert_eq!(status, "HTTP/1.1 504 Gateway Timeout");
    assert_eq!((problem["code"].as_str(), problem["retryable"].as_bool()), (Some("upstream_timeout"), Some(false)));
    upstream.rest().await; // ends
}

#[tokio::test]
async fn the_time_to_answer_counts_from_the_end_of_a_slow_upload() {
    let backend = Backend::new().await;
    let mut settings = settings(&backend.url());
    settings.first_byte_timeout = Some(Duration::from_millis(400));
    let proxy = Proxy::with(settings, Manners::default()).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await; // the passing of time is the point
        client.send("x").await;
    }
    upstream.read_until("xxxxxxxx").await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.head().await.first, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_body_that_stands_still_is_aborted() {
    let backend = Backend::new().await;
    let mut settings = settings(&backend.url());
    settings.idle_timeout = Some(Duration::from_millis(200));
    let proxy = Proxy::with(settings, Manners::default()).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    client.head().await;
    assert_eq!(client.rest().await.0, "3\r\none\r\n", "no last chunk");
    upstream.rest().await; // ends
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_ended_politely() {
    let (backend, proxy) = pair().await;
    for reset in [true, false] {
        for (framing, sent) in [
            ("Transfer-Encoding: chunked", "3\r\none\r\n"),
            ("Transfer-Encoding: chunked", "9\r\none"),
            ("Content-Length: 9", "one"),
        ] {
            let mut client = proxy.connect().await;
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
            let mut upstream = backend.accept().await;
            upstream.head().await;
            upstream.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{sent}")).await;
            client.head().await;
            client.read_until("one").await;
            if reset {
                upstream.reset()
            } else {
                drop(upstream)
            }
            let (rest, _) = client.rest().await;
            assert!(rest == "\r\n" || rest.is_empty(), "no last chunk, no more bytes: {rest:?}");
        }
    }
}

#[tokio::test]
async fn an_http_1_0_client_sees_a_broken_answer_as_a_reset() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.0\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let head = client.head().await;
    assert!(head.get("transfer-encoding").is_none() && head.get("content-length").is_none());
    client.read_until("one").await;
    drop(upstream);
    assert_eq!(client.rest().await, (String::new(), End::Reset));
}

#[tokio::test]
async fn a_request_that_may_have_begun_is_not_sent_twice() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    let mut upstream = backend.accept().await;
    upstream.read_until("hello").await;
    drop(upstream);
    let (status, problem) = problem(&mut client).await;
    assert_eq!(status, "HTTP/1.1 502 Bad Gateway");
    assert_eq!((problem["code"].as_str(), problem["retryable"].as_bool()), (Some("upstream_reset"), Some(false)));
    assert!(backend.is_left_alone().await);
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_said_to_be_so() {
    let (backend, proxy) = pair().await;
    for answer in [
        "-ERR unknown command\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ] {
        let mut client = proxy.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
        let mut upstream = backend.accept().await;
        upstream.head().await;
        upstream.send(answer).await;
        assert_eq!(problem(&mut client).await.1["code"], "upstream_invalid", "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_closes_the_upstreams_connection() {
    let (backend, proxy) = pair().await;
    for answer in ["", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"] {
        let mut client = proxy.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
        let mut upstream = backend.accept().await;
        upstream.read_until("hello").await;
        upstream.send(answer).await;
        if !answer.is_empty() {
            client.read_until("one").await;
        }
        drop(client);
        upstream.rest().await; // ends
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_does_not_look_complete_to_the_upstream() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.read_until("one\r\n").await;
    drop(client);
    assert_eq!(upstream.rest().await.0, "", "no last chunk");
}

#[tokio::test]
async fn a_kept_connection_that_has_died_is_replaced_for_a_get() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut kept = backend.accept().await;
    kept.head().await;
    kept.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    client.head().await;

    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(kept.head().await.first, "GET /2 HTTP/1.1", "on the kept connection");
    drop(kept); // as a server does whose keep-alive time ends just now
    let mut fresh = backend.accept().await;
    assert_eq!(fresh.head().await.first, "GET /2 HTTP/1.1");
    fresh.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.head().await.first, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_request_with_an_effect_never_uses_a_kept_connection() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut kept = backend.accept().await;
    kept.head().await;
    kept.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    client.head().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(backend.accept().await.head().await.first, "POST / HTTP/1.1");
}

#[tokio::test]
async fn a_connection_whose_answer_was_not_read_to_its_end_is_never_used_again() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\none").await;
    client.read_until("one").await;
    drop(client);
    upstream.rest().await; // ends
    let mut client = proxy.connect().await;
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(backend.accept().await.head().await.first, "GET /2 HTTP/1.1");
}
