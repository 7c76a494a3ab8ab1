//! The listener's manners: limits, deadlines, and how it stops.

use std::time::Duration;

use sidestream::server::Manners;

use crate::support::{Backend, End, Proxy, settings, soon};

#[tokio::test]
async fn a_client_that_never_sends_a_whole_request_head_is_let_go() {
    let backend = Backend::new().await;
    let manners = Manners { first_request: Duration::from_millis(300), ..Manners::default() };
    let proxy = Proxy::with(settings(&backend.url()), manners).await;
    for said in ["", "P", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX"] {
        let mut client = proxy.connect().await;
        client.send(said).await;
        client.rest().await; // ends
    }
}

#[tokio::test]
async fn a_request_that_takes_long_to_answer_is_not_cut_by_the_heads_deadline() {
    let backend = Backend::new().await;
    let manners = Manners { first_request: Duration::from_millis(100), ..Manners::default() };
    let proxy = Proxy::with(settings(&backend.url()), manners).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    tokio::time::sleep(Duration::from_millis(300)).await; // longer than the deadline
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.head().await.first, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn an_idle_connection_is_let_go() {
    let backend = Backend::new().await;
    let manners = Manners { next_request: Duration::from_millis(200), ..Manners::default() };
    let proxy = Proxy::with(settings(&backend.url()), manners).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    client.head().await;
    assert_eq!(client.rest().await, ("ok".into(), End::Closed));
}

#[tokio::test]
async fn above_the_limit_a_connection_waits_for_its_turn() {
    let backend = Backend::new().await;
    let manners = Manners { connections: 1, ..Manners::default() };
    let proxy = Proxy::with(settings(&backend.url()), manners).await;
    let mut first = proxy.connect().await;
    first.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    let mut second = proxy.connect().await;
    second.send("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert!(backend.is_left_alone().await, "the second waits");
    drop(first);
    assert_eq!(backend.accept().await.head().await.first, "POST /2 HTTP/1.1");
}

#[tokio::test]
async fn a_stop_lets_answers_end_and_idle_clients_go() {
    let backend = Backend::new().await;
    let proxy = Proxy::with(settings(&backend.url()), Manners::default()).await;
    let mut idle = proxy.connect().await;
    let mut silent = proxy.connect().await;
    let mut busy = proxy.connect().await;
    busy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    busy.read_until("one\r\n").await;
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut other = backend.accept().await;
    other.head().await;
    other.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    idle.head().await;

    let addr = proxy.addr;
    let serving = proxy.stop();
    assert_eq!(idle.rest().await.1, End::Closed);
    silent.rest().await; // ends
    assert!(!serving.is_finished(), "an answer is still on its way");
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "nobody new");
    upstream.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(busy.rest().await, ("3\r\ntwo\r\n0\r\n\r\n".into(), End::Closed));
    soon(serving).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_outlasts_the_drain_is_cut_off() {
    let backend = Backend::new().await;
    let manners = Manners { drain: Duration::from_millis(200), ..Manners::default() };
    let proxy = Proxy::with(settings(&backend.url()), manners).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    client.read_until("one\r\n").await;
    soon(proxy.stop()).await.unwrap();
    assert_eq!(client.rest().await.0, "", "no last chunk");
    upstream.rest().await; // ends
}
