//! A reader of SSE over HTTP/1.1: as little of it as a benchmark needs, and none of the product's code.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer that is being read.
pub(crate) struct Answer {
    socket: TcpStream,
    raw: BytesMut,
    /// The body without its chunks.
    text: BytesMut,
    /// Bytes of the present chunk that are still to come, its end included.
    chunk: usize,
    ended: bool,
}

/// Posts an empty body and reads the answer's head; anything but 200 with a chunked body is an error.
pub(crate) async fn post(address: SocketAddr, path: &str, session: Option<&str>) -> anyhow::Result<Answer> {
    let mut socket = TcpStream::connect(address).await.context("cannot connect")?;
    socket.set_nodelay(true)?;
    let session = session.map(|id| format!("sidestream-session: {id}\r\n")).unwrap_or_default();
    let request = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\n{session}content-length: 0\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut raw = BytesMut::new();
    let head = head(&mut socket, &mut raw).await?;
    ensure!(
        head.starts_with("HTTP/1.1 200"),
        "not answered with a stream: {}",
        head.lines().next().unwrap_or_default()
    );
    ensure!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "the answer's body is not chunked");
    Ok(Answer { socket, raw, text: BytesMut::new(), chunk: 0, ended: false })
}

/// Reads a head; what follows it stays in `raw`.
pub(crate) async fn head(socket: &mut TcpStream, raw: &mut BytesMut) -> anyhow::Result<String> {
    loop {
        if let Some(end) = memchr::memmem::find(raw, b"\r\n\r\n") {
            return Ok(String::from_utf8_lossy(&raw.split_to(end + 4)).into_owned());
        }
        ensure!(socket.read_buf(raw).await? > 0, "the connection ended before an answer");
    }
}

impl Answer {
    /// Waits for more and gives each whole block of it. `false`: the body has ended properly.
    pub(crate) async fn blocks(&mut self, mut each: impl FnMut(&[u8])) -> anyhow::Result<bool> {
        self.dechunk()?;
        if self.text.is_empty() && !self.ended {
            self.raw.reserve(16 << 10);
            ensure!(self.socket.read_buf(&mut self.raw).await? > 0, "the body broke off");
            self.dechunk()?;
        }
        while let Some(end) = memchr::memmem::find(&self.text, b"\n\n") {
            each(&self.text[..end]);
            self.text.advance(end + 2);
        }
        if !self.text.is_empty() && !self.ended {
            // Half a block: its rest comes with the next read.
            ensure!(self.socket.read_buf(&mut self.raw).await? > 0, "the body broke off");
        }
        Ok(!self.ended)
    }

    /// Undoes the chunked coding (RFC 9112 §7.1) of what has come.
    fn dechunk(&mut self) -> anyhow::Result<()> {
        loop {
            if self.chunk > 2 {
                let n = self.raw.len().min(self.chunk - 2);
                self.text.extend_from_slice(&self.raw.split_to(n));
                self.chunk -= n;
            }
            if self.chunk > 2 || self.raw.len() < self.chunk {
                return Ok(());
            }
            self.raw.advance(self.chunk);
            self.chunk = 0;
            let Some(end) = memchr::memmem::find(&self.raw, b"\r\n") else { return Ok(()) };
            let line = self.raw.split_to(end + 2);
            let size = std::str::from_utf8(&line[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
            match size {
                Some(0) => {
                    self.ended = true;
                    return Ok(());
                }
                Some(size) => self.chunk = size + 2,
                None => bail!("a chunk without a size"),
            }
        }
    }
}
