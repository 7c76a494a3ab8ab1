//! An agent that does exactly what the test says, when it says it: raw bytes over TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::wait::within;

/// A backend under the test's control. One request a connection.
pub(crate) struct ScriptedAgent {
    address: SocketAddr,
    requests: mpsc::Receiver<Asked>,
    count: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

/// A request that waits for what the test answers. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    stream: TcpStream,
}

impl ScriptedAgent {
    /// Listens on a free port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let (sender, requests) = mpsc::channel(64);
        let connections = Arc::new(AtomicUsize::new(0));
        let (counter, accepted) = (count.clone(), connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (sender, counter) = (sender.clone(), counter.clone());
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    let Some(asked) = read_request(stream).await else { return };
                    counter.fetch_add(1, Ordering::SeqCst);
                    // A test that has ended asks no more.
                    let _ = sender.send(asked).await;
                });
            }
        });
        ScriptedAgent { address, requests, count, connections }
    }

    /// Where it listens, `http://…`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request.
    pub(crate) async fn asked(&mut self) -> Asked {
        within("a request to the upstream", self.requests.recv()).await.unwrap()
    }

    /// The next request, whenever it comes.
    #[allow(dead_code, reason = "used by some of the test binaries")]
    pub(crate) async fn next(&mut self) -> Option<Asked> {
        self.requests.recv().await
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many requests have come.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Asked {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.as_str())
    }

    /// Bytes as they are.
    pub(crate) async fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        within("the upstream's write", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// The head of a chunked event stream.
    pub(crate) async fn sse(&mut self) {
        self.sse_with("").await;
    }

    /// The same with more header lines, each with its CRLF.
    pub(crate) async fn sse_with(&mut self, headers: &str) {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n";
        self.raw(format!("{head}{headers}\r\n")).await;
    }

    /// A whole answer of JSON.
    pub(crate) async fn json(mut self, body: &str) {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
        self.raw(format!("{head}: {}\r\n\r\n{body}", body.len())).await;
    }

    /// One chunk of the body.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).await.unwrap();
    }

    /// The same, where the sidecar may have closed the connection.
    pub(crate) async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let bytes = bytes.as_ref();
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        within("the upstream's write", self.stream.write_all(&chunk)).await
    }

    /// One event with this data, in a chunk of its own.
    pub(crate) async fn event(&mut self, data: impl std::fmt::Display) {
        self.write(format!("data: {data}\n\n")).await;
    }

    /// The end of the body, as HTTP says.
    pub(crate) async fn end(mut self) {
        self.raw("0\r\n\r\n").await;
    }

    /// Closes the connection, whatever the body lacks.
    pub(crate) fn close(self) {}

    /// Resets the connection.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The connection itself.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Waits until the other side has closed the connection.
    pub(crate) async fn closed_by_the_sidecar(&mut self) {
        let mut rest = [0; 256];
        let closed = async { while matches!(self.stream.read(&mut rest).await, Ok(n) if n > 0) {} };
        within("the end of the upstream connection", closed).await;
    }
}

async fn read_request(mut stream: TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            break end;
        }
        more(&mut stream, &mut bytes).await?;
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut body = bytes.split_off(head_end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let path = first.nth(1)?.to_owned();
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(':')).map(|(n, v)| (n.to_owned(), v.trim().to_owned())).collect();
    let value = |name: &str| headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone());
    if let Some(length) = value("content-length") {
        let length: usize = length.parse().unwrap();
        while body.len() < length {
            more(&mut stream, &mut body).await?;
        }
    } else if value("transfer-encoding").is_some() {
        while !body.ends_with(b"0\r\n\r\n") {
            more(&mut stream, &mut body).await?;
        }
    }
    Some(Asked { path, headers, body, stream })
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 << 10];
    let n = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
    bytes.extend_from_slice(&buffer[..n]);
    Some(())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
