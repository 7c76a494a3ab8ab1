//! HTTP/1.0, HTTP/1.1 and HTTP/2 on either side, and TLS to the upstream.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use sidestream::config::Http2;
use sidestream::server::Manners;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig};

use crate::support::{Backend, End, Proxy, pair, settings, soon};

#[tokio::test]
async fn an_http_1_0_client_gets_an_answer_that_it_can_read() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\none").await;
    let mut upstream = backend.accept().await;
    let head = upstream.head().await;
    assert_eq!(head.first, "POST / HTTP/1.1");
    assert_eq!(head.get("host"), Some(backend.addr().to_string()), "HTTP/1.1 needs one");
    assert_eq!(head.get("expect"), None);
    assert_eq!(upstream.read_exactly(3).await, "one");
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.first.ends_with(" 200 OK") && head.get("transfer-encoding").is_none(), "{head:?}");
    assert_eq!(client.rest().await, ("two".into(), End::Closed));
}

#[tokio::test]
async fn an_http_1_0_upstream_may_end_its_answer_with_the_connection() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n").await;
    let head = client.head().await;
    assert_eq!(head.first, "HTTP/1.1 200 OK");
    assert_eq!(head.get("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(client.read_until("\n\n\r\n").await, "B\r\ndata: one\n\n\r\n");
    drop(upstream);
    assert_eq!(client.read_until("0\r\n\r\n").await, "0\r\n\r\n");
}

#[tokio::test]
async fn an_http_2_client_by_prior_knowledge_is_served() {
    let (backend, proxy) = pair().await;
    let stream = TcpStream::connect(proxy.addr).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, driver) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    let request = Request::post("http://chat.example/x?y")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::new(Bytes::from_static(b"hello")))
        .unwrap();
    let answer = tokio::spawn(async move { (sender.send_request(request).await, sender) });
    let mut upstream = backend.accept().await;
    let head = upstream.head().await;
    assert_eq!(head.first, "POST /x?y HTTP/1.1");
    assert_eq!(head.get("host").as_deref(), Some("chat.example"));
    assert!(head.lines.iter().any(|line| line.eq_ignore_ascii_case("cookie: a=1; b=2")), "{head:?}");
    assert_eq!(upstream.read_exactly(5).await, "hello");
    upstream.send("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let (answer, _sender) = soon(answer).await.unwrap();
    let mut body = answer.unwrap().into_body();
    let first = soon(body.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "one");
    drop(upstream);
    assert!(soon(body.frame()).await.unwrap().is_err(), "the broken answer resets the stream");
}

/// Answers with the request's version, host and body.
async fn echo(request: Request<Incoming>) -> Result<http::Response<Full<Bytes>>, hyper::Error> {
    let authority = request.uri().authority().map(ToString::to_string);
    let host = request.headers().get("host").map(|h| h.to_str().unwrap().to_owned());
    let text = format!("{:?} {} ", request.version(), authority.or(host).unwrap_or_default());
    let mut body = text.into_bytes();
    body.extend(request.into_body().collect().await?.to_bytes());
    Ok(http::Response::new(Full::new(body.into())))
}

/// A TLS backend that speaks HTTP/1.1 and HTTP/2; its certificate.
async fn tls_backend() -> (String, rustls::pki_types::CertificateDer<'static>) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = key.cert.der().clone();
    let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private.into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
            });
        }
    });
    (url, certificate)
}

#[tokio::test]
async fn a_tls_upstream_is_verified_and_sees_its_own_host() {
    let (url, certificate) = tls_backend().await;
    let authority = url.strip_prefix("https://").unwrap();
    for (http2, version) in [(Http2::Off, Version::HTTP_11), (Http2::Alpn, Version::HTTP_2)] {
        let mut settings = settings(&url);
        settings.http2 = http2;
        let proxy = Proxy::trusting(settings, Manners::default(), vec![certificate.clone()]).await;
        let mut client = proxy.connect().await;
        for _ in 0..2 {
            client.send("POST / HTTP/1.1\r\nHost: chat.example\r\nContent-Length: 5\r\n\r\nhello").await;
            let head = client.head().await;
            assert_eq!(head.first, "HTTP/1.1 200 OK");
            let expected = format!("{version:?} {authority} hello");
            assert_eq!(client.read_exactly(expected.len()).await, expected);
        }
    }
}

#[tokio::test]
async fn a_tls_upstream_that_nobody_vouches_for_gets_no_request() {
    let (url, _) = tls_backend().await;
    let (_, other) = tls_backend().await;
    let proxy = Proxy::trusting(settings(&url), Manners::default(), vec![other]).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (answer, _) = {
        let head = client.head().await;
        (head.first.clone(), head)
    };
    assert_eq!(answer, "HTTP/1.1 502 Bad Gateway");
}

#[tokio::test]
async fn an_upstream_may_speak_http_2_by_prior_knowledge() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(&format!("http://{}", listener.local_addr().unwrap()));
    settings.http2 = Http2::H2c;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service_fn(echo)));
        }
    });
    let proxy = Proxy::with(settings, Manners::default()).await;
    let mut client = proxy.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: chat.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.head().await.first, "HTTP/1.1 200 OK");
    let expected = "HTTP/2.0 chat.example hello";
    assert_eq!(client.read_exactly(expected.len()).await, expected);
}

#[tokio::test]
async fn one_connection_serves_request_after_request() {
    let backend = Backend::new().await;
    let proxy = Proxy::to(&backend.url()).await;
    let mut client = proxy.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = backend.accept().await;
    for path in ["/1", "/2"] {
        assert_eq!(upstream.head().await.first, format!("GET {path} HTTP/1.1"));
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        client.head().await;
    }
}
