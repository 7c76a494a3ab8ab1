//! `Expect: 100-continue` end to end.

use crate::support::{End, pair};

const REQUEST: &str = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[tokio::test]
async fn the_client_is_asked_for_its_body_only_when_the_upstream_asks() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send(REQUEST).await;
    let mut upstream = backend.accept().await;
    assert_eq!(upstream.head().await.get("expect").as_deref(), Some("100-continue"));
    assert!(client.is_silent().await, "nobody has asked yet");
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head().await.first, "HTTP/1.1 100 Continue");
    client.send("hello").await;
    assert_eq!(upstream.read_exactly(5).await, "hello");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let head = client.head().await;
    assert_eq!((head.first.as_str(), head.get("connection")), ("HTTP/1.1 200 OK", None));
    assert_eq!(client.read_exactly(2).await, "ok");
}

#[tokio::test]
async fn an_upstream_that_refuses_never_makes_the_client_send_its_body() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send(REQUEST).await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
    let head = client.head().await;
    assert_eq!(head.first, "HTTP/1.1 417 Expectation Failed", "without a 100 before it");
    assert_eq!(head.get("connection").as_deref(), Some("close"));
    assert_eq!(client.rest().await, ("no".into(), End::Closed));
    assert_eq!(upstream.rest().await.0, "", "no body");
}

#[tokio::test]
async fn an_upstream_that_does_not_know_100_gets_the_body_all_the_same() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send(REQUEST).await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    assert_eq!(client.head().await.first, "HTTP/1.1 100 Continue");
    client.send("hello").await;
    assert_eq!(upstream.read_exactly(5).await, "hello");
}

#[tokio::test]
async fn other_informational_answers_do_not_disturb_the_final_one() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.head().await.first, "HTTP/1.1 200 OK");
    assert_eq!(client.read_exactly(2).await, "ok");
}
