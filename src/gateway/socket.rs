//! A WebSocket as the gateway uses it: messages go to a small outbox, many are fed before one
//! flush, and reading goes on while a write waits.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// Buffer sizes: 10,000 idle sockets must fit in memory (the library's default read buffer alone
/// is 128 KiB per socket). What clients say is short; a longer message takes more reads.
const READ_BUFFER: usize = 1 << 10;
const WRITE_BUFFER: usize = 16 << 10;

/// Messages in the outbox at which reading stops, so that answers to a client that does not read
/// cannot pile up.
const OUTBOX: usize = 64;

/// A server-side WebSocket with an outbox. The outbox is bounded by its user: it asks for entries
/// only while the socket is drained.
pub(super) struct Socket<S> {
    stream: WebSocketStream<S>,
    outbox: VecDeque<Message>,
    unflushed: bool,
    moved: bool,
}

/// What happened on a socket.
#[derive(Debug)]
pub(super) enum Happened {
    /// A text message came.
    Text(Utf8Bytes),
    /// A binary message came.
    Binary,
    /// The client is alive: a pong or ping came.
    Alive,
    /// Everything given to `send` has been handed to the operating system.
    Drained,
    /// A message above the limit came; nothing can be read after it.
    TooLarge,
    /// The connection is over.
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// A socket over an upgraded connection.
    pub(super) async fn new(io: S, max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        Socket { stream, outbox: VecDeque::new(), unflushed: false, moved: false }
    }

    /// Puts a text message into the outbox.
    pub(super) fn send(&mut self, text: Utf8Bytes) {
        self.outbox.push_back(Message::Text(text));
    }

    /// Puts a WebSocket ping into the outbox.
    pub(super) fn send_ping(&mut self) {
        self.outbox.push_back(Message::Ping(Default::default()));
    }

    /// Puts a close frame into the outbox; what comes after it is not sent.
    pub(super) fn send_close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from_static(reason) };
        self.outbox.push_back(Message::Close(Some(frame)));
    }

    /// Whether nothing waits to be sent.
    pub(super) fn drained(&self) -> bool {
        self.outbox.is_empty() && !self.unflushed
    }

    /// Whether bytes have moved to the client since the last call.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Waits for the next thing to happen, sending meanwhile. Cancel-safe.
    pub(super) async fn next(&mut self) -> Happened {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        if !self.drained() {
            match self.poll_send(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Happened::Drained),
                Poll::Ready(Err(_)) => return Poll::Ready(Happened::Closed),
                Poll::Pending => {}
            }
        }
        if self.outbox.len() >= OUTBOX {
            // The client sends and does not read: it waits until it does.
            return Poll::Pending;
        }
        loop {
            return Poll::Ready(match std::task::ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => Happened::Text(text),
                Some(Ok(Message::Binary(_))) => Happened::Binary,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => Happened::Alive,
                // The library answers the close; the end of the stream follows.
                Some(Ok(Message::Close(_) | Message::Frame(_))) => continue,
                Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => Happened::TooLarge,
                Some(Err(_)) | None => Happened::Closed,
            });
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.outbox.is_empty() {
            std::task::ready!(Pin::new(&mut self.stream).poll_ready(cx))?;
            if let Some(message) = self.outbox.pop_front() {
                Pin::new(&mut self.stream).start_send(message)?;
                (self.unflushed, self.moved) = (true, true);
            }
        }
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        (self.unflushed, self.moved) = (false, true);
        Poll::Ready(Ok(()))
    }
}
