//! One accepted socket: closes so that the client can tell a complete answer from a broken one.
//!
//! Two traps of TCP are handled here and nowhere else. A body that is delimited by the end of the
//! connection (HTTP/1.0) and breaks off must end with a reset, because an orderly close would say
//! "complete". And a socket closed while the client still sends is reset by the kernel, which can
//! destroy the answer before the client has read it; so the rest is read and dropped for a moment.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::body::{Body, BodyError};
use super::late_abort::Flushes;

/// How long a client may go on sending after we have answered and closed.
const LINGER: Duration = Duration::from_secs(2);

/// Set: this connection ends with a reset.
#[derive(Clone, Debug, Default)]
pub(super) struct Reset(Arc<AtomicBool>);

impl Reset {
    fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// An accepted socket, with its place among the allowed connections. It keeps that place through
/// an upgrade and until it is closed.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Option<TcpStream>,
    reset: Reset,
    flushes: Flushes,
    permit: Option<OwnedSemaphorePermit>,
    /// The client has closed its side.
    ended: bool,
    /// We have closed our side in an orderly way.
    closed: bool,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, permit: OwnedSemaphorePermit, reset: Reset, flushes: Flushes) -> Self {
        Connection { stream: Some(stream), reset, flushes, permit: Some(permit), ended: false, closed: false }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("the stream is only taken on drop"))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let (Some(stream), permit) = (self.stream.take(), self.permit.take()) else { return };
        if self.reset.is_requested() {
            // Best effort: without it the close is orderly, which is all that the system allows.
            let _ = stream.set_zero_linger();
        } else if self.closed && !self.ended && tokio::runtime::Handle::try_current().is_ok() {
            tokio::spawn(linger(stream, permit));
        }
    }
}

/// Reads and drops what the client still sends, for a while.
async fn linger(mut stream: TcpStream, permit: Option<OwnedSemaphorePermit>) {
    let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
    drop(permit);
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(self.stream().poll_read(cx, buf));
        self.ended |= result.is_err() || (buf.filled().len() == before && buf.remaining() > 0);
        Poll::Ready(result)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream().poll_flush(cx))?;
        self.flushes.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.is_requested() {
            return Poll::Ready(Ok(())); // an orderly close now would say "complete"
        }
        self.closed = true;
        self.stream().poll_shutdown(cx)
    }
}

/// A body whose end is the end of the connection: if it breaks off, the connection is reset.
pub(super) struct EndsConnection {
    pub(super) body: Body,
    pub(super) reset: Reset,
}

impl http_body::Body for EndsConnection {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(_)) = frame {
            self.reset.request();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
