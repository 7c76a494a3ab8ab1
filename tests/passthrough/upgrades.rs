//! Upgrades are tunnelled, after the upstream's own 101 and not before.

use crate::support::pair;

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

#[tokio::test]
async fn bytes_flow_both_ways_once_the_upstream_has_switched() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send(UPGRADE).await;
    client.send("early").await;
    let mut upstream = backend.accept().await;
    let head = upstream.head().await;
    assert_eq!(head.get("upgrade").as_deref(), Some("websocket"));
    assert_eq!(head.get("connection").as_deref(), Some("Upgrade"));
    assert_eq!(head.get("sec-websocket-key").as_deref(), Some("k"));
    assert_eq!(head.get("sec-websocket-protocol").as_deref(), Some("chat"));
    assert!(upstream.is_silent().await, "nothing before the 101");

    upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello").await;
    let head = client.head().await;
    assert_eq!(head.first, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(head.get("upgrade").as_deref(), Some("websocket"));
    assert_eq!(head.get("sec-websocket-accept").as_deref(), Some("x"));
    assert_eq!(client.read_exactly(5).await, "hello");
    assert_eq!(upstream.read_exactly(5).await, "early");
    for i in 0..3 {
        client.send(format!("ping {i}")).await;
        assert_eq!(upstream.read_exactly(6).await, format!("ping {i}"));
        upstream.send(format!("pong {i}")).await;
        assert_eq!(client.read_exactly(6).await, format!("pong {i}"));
    }
    drop(client);
    upstream.rest().await; // ends
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer_on_an_ordinary_connection() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send(UPGRADE).await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nno")
        .await;
    let head = client.head().await;
    assert_eq!(head.first, "HTTP/1.1 426 Upgrade Required");
    assert_eq!(head.get("upgrade").as_deref(), Some("other"));
    assert_eq!(client.read_exactly(2).await, "no");
    client.send("POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(backend.accept().await.head().await.first, "POST /next HTTP/1.1");
}

#[tokio::test]
async fn an_upgrade_to_plain_http_2_is_not_a_way_past_us() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    let head = upstream.head().await;
    for gone in ["upgrade", "connection", "http2-settings"] {
        assert_eq!(head.get(gone), None, "{gone}");
    }
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.head().await.first, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_switch_to_something_that_was_not_offered_is_refused() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send(UPGRADE).await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").await;
    assert_eq!(client.head().await.first, "HTTP/1.1 502 Bad Gateway");
    upstream.rest().await; // ends
}
