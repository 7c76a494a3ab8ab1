//! One request in, at most one request out.

use crate::support::{End, pair};

#[tokio::test]
async fn an_ambiguous_request_is_refused_and_its_connection_closed() {
    let (backend, proxy) = pair().await;
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "POST / HTTP/1.1\r\n\r\n",
        "POST http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
    ] {
        let mut client = proxy.connect().await;
        client.send(request).await;
        client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (answer, _) = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.is_empty(), "{request:?}: {answer}");
        assert!(!answer.contains("smuggled"));
        assert_eq!(answer.matches("HTTP/1.1 4").count(), usize::from(!answer.is_empty()), "{request:?}: {answer}");
    }
    assert!(backend.is_left_alone().await);
}

#[tokio::test]
async fn a_length_beside_chunks_makes_one_request_and_ends_the_connection() {
    let (backend, proxy) = pair().await;
    for framing in
        ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3"]
    {
        let mut client = proxy.connect().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
            ))
            .await;
        let mut upstream = backend.accept().await;
        let head = upstream.head().await;
        assert_eq!((head.get("transfer-encoding").as_deref(), head.get("content-length")), (Some("chunked"), None));
        assert_eq!(upstream.read_until("0\r\n\r\n").await, "0\r\n\r\n");
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let (answer, end) = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
        assert_eq!(end, End::Closed);
        assert!(backend.is_left_alone().await, "the rest was a second request");
    }
}

#[tokio::test]
async fn connect_is_refused_and_never_becomes_a_tunnel() {
    let (backend, proxy) = pair().await;
    let mut client = proxy.connect().await;
    client.send(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", backend.addr())).await;
    let (answer, _) = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 501 ") && answer.contains("not_supported"), "{answer}");
    assert!(backend.is_left_alone().await);
}
