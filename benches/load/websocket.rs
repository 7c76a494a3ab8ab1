//! A WebSocket client (RFC 6455) that does nothing but read fast: the load must cost less than what
//! it measures.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::sse::head;

/// 16 bytes in base64, as the handshake asks; they need not be random for a server under our control.
const KEY: &str = "c2lkZXN0cmVhbS1iZW5jaA==";

/// A masked pong without a payload. The mask of nothing is nothing.
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

/// A connected client.
pub(crate) struct WebSocket {
    socket: TcpStream,
    raw: BytesMut,
}

/// Connects; `query` is that of the URL, as `session=…&create=1`.
pub(crate) async fn connect(address: SocketAddr, query: &str) -> anyhow::Result<WebSocket> {
    let mut socket = TcpStream::connect(address).await.context("cannot connect")?;
    socket.set_nodelay(true)?;
    let request = format!(
        "GET /_sidestream/v1/ws?{query} HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\nsec-websocket-protocol: sidestream.v1\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut raw = BytesMut::new();
    let head = head(&mut socket, &mut raw).await?;
    ensure!(head.starts_with("HTTP/1.1 101"), "no WebSocket: {}", head.lines().next().unwrap_or_default());
    Ok(WebSocket { socket, raw })
}

impl WebSocket {
    /// Waits for more and gives each whole message of it. `false`: the server has closed.
    pub(crate) async fn messages(&mut self, mut each: impl FnMut(&[u8])) -> anyhow::Result<bool> {
        let mut pinged = false;
        if self.frame_len().is_none_or(|(head, len)| self.raw.len() < head + len) {
            self.raw.reserve(4 << 10);
            ensure!(self.socket.read_buf(&mut self.raw).await? > 0, "the connection broke off");
        }
        while let Some((head, len)) = self.frame_len() {
            if self.raw.len() < head + len {
                // A large frame takes one buffer at once.
                self.raw.reserve(head + len - self.raw.len());
                break;
            }
            ensure!(self.raw[0] & 0x80 != 0, "a fragmented message");
            match self.raw[0] & 0x0f {
                0x1 => each(&self.raw[head..head + len]),
                0x8 => return Ok(false),
                0x9 => pinged = true,
                0xa => {}
                other => bail!("a frame of kind {other}"),
            }
            self.raw.advance(head + len);
        }
        if pinged {
            self.socket.write_all(&PONG).await?;
        }
        Ok(true)
    }

    /// Sends a text message of at most 125 bytes, masked with zeros: it stands as it is (RFC 6455 §5.3).
    pub(crate) async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        let len = u8::try_from(text.len()).ok().filter(|len| *len < 126).context("too long for a short frame")?;
        let mut frame = vec![0x81, 0x80 | len, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        Ok(self.socket.write_all(&frame).await?)
    }

    /// The lengths of the next frame's head and payload, once its head is here.
    fn frame_len(&self) -> Option<(usize, usize)> {
        let raw = &self.raw;
        match raw.get(1)? & 0x7f {
            126 => Some((4, usize::from(u16::from_be_bytes(raw.get(2..4)?.try_into().ok()?)))),
            127 => Some((10, usize::try_from(u64::from_be_bytes(raw.get(2..10)?.try_into().ok()?)).ok()?)),
            len => Some((2, usize::from(len))),
        }
    }
}
