//! What becomes of request and status lines and header fields.

use sidestream::config::HostPolicy;
use sidestream::server::Manners;

use crate::support::{Backend, Proxy, pair, settings};

#[tokio::test]
async fn method_path_and_headers_reach_the_upstream_as_they_were_sent() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    let path = "/a//b/../c;d=%7e%2F?x=1&&y=%20{}|";
    client
        .send(format!("PURGE {path} HTTP/1.1\r\nHost: chat.example\r\nX-CaSe: Kept\r\nEmpty:\r\nA: 1\r\nA: 2\r\nX-High: \u{fc}\r\n\r\n"))
        .await;
    let head = backend.accept().await.head().await;
    assert_eq!(head.first, format!("PURGE {path} HTTP/1.1"));
    assert!(head.has("X-CaSe: Kept"), "{head:?}");
    assert!(head.has("Host: chat.example"), "{head:?}");
    assert_eq!(head.get("a").as_deref(), Some("1, 2"));
    assert_eq!(head.get("x-high").as_deref(), Some("\u{fc}"));
    assert_eq!(head.get("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(head.get("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(head.get("x-forwarded-host").as_deref(), Some("chat.example"));
    assert_eq!(head.get("forwarded").as_deref(), Some("for=127.0.0.1;host=\"chat.example\";proto=http"));
    assert_eq!(head.get("via"), None);
    assert_eq!(head.get("accept-encoding"), None);
}

#[tokio::test]
async fn status_reason_and_headers_reach_the_client_as_they_were_sent() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 299 Quite All Right\r\nX-CaSe: Kept\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nDate: then\r\nServer: x\r\nContent-Length: 2\r\n\r\nok")
        .await;
    let head = client.head().await;
    assert_eq!(head.first, "HTTP/1.1 299 Quite All Right");
    let expected =
        ["X-CaSe: Kept", "Set-Cookie: a=1", "Set-Cookie: b=2", "Date: then", "Server: x", "Content-Length: 2"];
    assert_eq!(head.lines, expected);
    assert_eq!(client.read_exactly(2).await, "ok");
}

#[tokio::test]
async fn fields_of_one_hop_do_not_reach_the_next() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Hop\r\nConnection: keep-alive, X-Other\r\nX-Hop: 1\r\nX-Other: 2\r\nKeep-Alive: timeout=9\r\nTE: trailers, gzip\r\nProxy-Authorization: Basic x\r\nUpgrade: h2c\r\nSidestream-Session: mine\r\n\r\n")
        .await;
    let mut upstream = backend.accept().await;
    let head = upstream.head().await;
    for gone in ["x-hop", "x-other", "keep-alive", "proxy-authorization", "upgrade", "sidestream-session"] {
        assert_eq!(head.get(gone), None, "{gone}");
    }
    assert_eq!(head.get("te").as_deref(), Some("trailers"));
    assert_eq!(head.get("connection").as_deref(), Some("TE"));

    upstream
        .send("HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
        .await;
    let head = client.head().await;
    for gone in ["x-hop", "keep-alive", "proxy-authenticate", "connection"] {
        assert_eq!(head.get(gone), None, "{gone}");
    }
}

#[tokio::test]
async fn a_path_prefix_and_the_upstreams_own_host_are_used_when_configured() {
    let backend = Backend::new().await;
    let mut settings = settings(&format!("{}/api/", backend.url()));
    settings.host = Some(HostPolicy::Upstream);
    let proxy = Proxy::with(settings, Manners::default()).await;
    let mut client = proxy.connect().await;
    client.send("GET /x?y HTTP/1.1\r\nHost: chat.example\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    let head = upstream.head().await;
    assert_eq!(head.first, "GET /api/x?y HTTP/1.1");
    assert_eq!(head.get("host"), Some(backend.addr().to_string()));
    assert_eq!(head.get("x-forwarded-host").as_deref(), Some("chat.example"));

    let location = format!("{}/api/threads/1?a#b", backend.url());
    upstream.send(format!("HTTP/1.1 303 See Other\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(client.head().await.get("location").as_deref(), Some("/threads/1?a#b"));
}

#[tokio::test]
async fn an_absolute_request_target_becomes_a_path_and_options_star_stays() {
    let (backend, proxy) = pair().await;
    for (sent, received) in [
        ("GET http://chat.example/x HTTP/1.1\r\nHost: chat.example\r\n\r\n", "GET /x HTTP/1.1"),
        ("OPTIONS * HTTP/1.1\r\nHost: chat.example\r\n\r\n", "OPTIONS * HTTP/1.1"),
    ] {
        let mut client = proxy.connect().await;
        client.send(sent).await;
        let head = backend.accept().await.head().await;
        assert_eq!(head.first, received);
        assert_eq!(head.get("host").as_deref(), Some("chat.example"));
    }
}
