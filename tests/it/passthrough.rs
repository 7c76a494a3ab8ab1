//! Whatever is not an intercepted stream passes through the binary unchanged. (Byte by byte this is
//! tested in `tests/passthrough`.)

use futures_util::{SinkExt, StreamExt};
use http::Method;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::support::{Agent, Ask, End, Sidecar, Stage, Store, handshake, within};

#[tokio::test]
async fn plain_answers_pass_through() {
    let agent = Agent::recordings().await;
    let sidecar = Sidecar::of(agent.url()).start().await;
    let straight = Ask::get(agent.url(), "/health").send().await.whole().await;
    assert_eq!(sidecar.get("/health").send().await.whole().await, straight);
    let missing = sidecar.get("/nowhere?a=b%20c").send().await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json().await["error"]["message"], "no route GET /nowhere");
    let echo = sidecar.get("/echo?a=b%20c&d").header("x-own", "1").send().await.json().await;
    assert_eq!(echo["query"], "a=b%20c&d");
    let headers = echo["headers"].to_string();
    assert!(headers.contains(r#"["x-own","1"]"#) && headers.contains("x-forwarded-for"), "{headers}");
    assert_eq!(agent.received("GET /echo").await, 1);
}

#[tokio::test]
async fn an_upload_arrives_whole() {
    let agent = Agent::recordings().await;
    let sidecar = Sidecar::of(agent.url()).start().await;
    let body = "0123456789abcdef".repeat(1 << 18);
    let echo = Ask::new(Method::PUT, &sidecar.url(), "/echo").body(body.clone()).send().await.json().await;
    assert_eq!(echo["body_bytes"], body.len());
    assert_eq!(echo["body"], body);
}

#[tokio::test]
async fn an_upstream_that_is_down_is_said_with_a_hint() {
    let stage = Stage::on(Store::Embedded).await;
    let upstream = stage.agent.url();
    // The port is free again.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sidecar = Sidecar::of(format!("http://{nobody}")).start().await;
    for ask in [sidecar.get("/page"), sidecar.post("/chat")] {
        let answer = ask.send().await;
        assert_eq!(answer.status, 502);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let problem = answer.json().await;
        assert_eq!((&problem["code"], &problem["retryable"]), (&"upstream_unreachable".into(), &true.into()));
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("connection refused") && detail.contains("is the agent running?"), "{detail}");
        assert!(detail.contains(&nobody.to_string()) && !detail.contains(&upstream), "{detail}");
    }
}

#[tokio::test]
async fn an_upstream_that_closes_before_it_answers_is_an_error_that_is_not_retried() {
    let mut stage = Stage::on(Store::Embedded).await;
    let (answer, ()) = tokio::join!(stage.sidecar.post("/chat").send(), async {
        stage.agent.asked().await.reset();
    });
    assert_eq!(answer.problem().await, (502, "upstream_reset".into()));
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn a_websocket_without_our_subprotocol_is_tunnelled_to_the_upstream() {
    let mut stage = Stage::on(Store::Embedded).await;
    let ask = stage.sidecar.get("/their/socket?room=1").header("sec-websocket-protocol", "graphql-ws");
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        assert_eq!(upstream.path, "/their/socket?room=1");
        assert_eq!(upstream.header("sec-websocket-protocol"), Some("graphql-ws"));
        let accept = derive_accept_key(upstream.header("sec-websocket-key").unwrap().as_bytes());
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket";
        let head = format!("{head}\r\nsec-websocket-protocol: graphql-ws\r\nsec-websocket-accept: {accept}\r\n\r\n");
        upstream.raw(head).await;
        upstream.into_stream()
    };
    let (response, upstream) = tokio::join!(handshake(ask), upstream);
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-protocol"], "graphql-ws");
    let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut client = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    let mut server = WebSocketStream::from_raw_socket(upstream, Role::Server, None).await;
    for text in ["hello", "{\"type\":\"attach\"}"] {
        client.send(Message::text(text)).await.unwrap();
        let heard = within("the client's message", server.next()).await.unwrap().unwrap();
        server.send(heard).await.unwrap();
        assert_eq!(within("the echo", client.next()).await.unwrap().unwrap(), Message::text(text));
    }
    client.close(None).await.unwrap();
    assert!(matches!(within("the close", server.next()).await, Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn a_stream_of_an_endless_page_reaches_its_reader_in_time_and_ends_with_it() {
    let mut stage = Stage::on(Store::Embedded).await;
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.raw("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n").await;
        upstream
    };
    let (mut reader, mut upstream) = tokio::join!(stage.sidecar.get("/page").send(), upstream);
    for n in 0..5 {
        upstream.write(format!("<p>{n}")).await;
        reader.arrives(&format!("<p>{n}")).await;
    }
    drop(reader);
    upstream.closed_by_the_sidecar().await;
}

#[tokio::test]
async fn a_passed_through_answer_that_breaks_off_never_ends_politely() {
    let mut stage = Stage::on(Store::Embedded).await;
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.raw("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n").await;
        upstream.write("half").await;
        upstream
    };
    let (mut reader, upstream) = tokio::join!(stage.sidecar.get("/page").send(), upstream);
    reader.arrives("half").await;
    upstream.close();
    assert_eq!(reader.whole().await, ("half".into(), End::Aborted));
}

#[tokio::test]
async fn http2_by_prior_knowledge_works_on_the_listener() {
    let agent = Agent::recordings().await;
    let sidecar = Sidecar::of(agent.url()).start().await;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", sidecar.port())).await.unwrap();
    // The client's preface and an empty SETTINGS frame (RFC 9113 §3.4).
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frame = [0; 9];
    within("the server's preface", stream.read_exact(&mut frame)).await.unwrap();
    assert_eq!(frame[3], 4, "its first frame is SETTINGS");
}
