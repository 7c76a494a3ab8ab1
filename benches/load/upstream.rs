//! An upstream inside the load that knows when its connections are closed.
//!
//! What is measured against it is the end of a connection, by the clock of whoever asked for it; so
//! it must be here. Its events are numbered and slow: they show that nothing is lost, not how fast
//! they are.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::clock::now_ns;
use crate::sse::head;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A running upstream; ends with the runtime.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    closed: Arc<Mutex<Vec<Option<u64>>>>,
}

impl Upstream {
    /// Answers `POST /stream/I`, for `I` below `streams`, with an event every `interval`, for ever.
    pub(crate) async fn start(streams: usize, interval: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the upstream cannot listen")?;
        let (address, closed) = (listener.local_addr()?, Arc::new(Mutex::new(vec![None; streams])));
        let all = closed.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let all = all.clone();
                tokio::spawn(async move {
                    // A request that makes no sense is answered by the end of its connection.
                    let Ok(i) = stream(socket, interval).await else { return };
                    let now = now_ns();
                    if let Some(closed) = all.lock().unwrap_or_else(PoisonError::into_inner).get_mut(i) {
                        *closed = Some(now);
                    }
                });
            }
        });
        Ok(Upstream { address, closed })
    }

    /// The path of a stream.
    pub(crate) fn path(i: usize) -> String {
        format!("/stream/{i}")
    }

    /// When the connection of a stream was closed by the other side.
    pub(crate) fn closed_ns(&self, i: usize) -> Option<u64> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).get(i).copied().flatten()
    }
}

/// Streams until the other side closes; the number of the stream.
async fn stream(mut socket: TcpStream, interval: Duration) -> anyhow::Result<usize> {
    socket.set_nodelay(true)?;
    let asked = head(&mut socket, &mut BytesMut::new()).await?;
    let path = asked.split_whitespace().nth(1).context("no path")?;
    let i: usize = path.strip_prefix("/stream/").context("not a stream")?.parse()?;
    socket.write_all(HEAD.as_bytes()).await?;
    // Not all at once.
    let begin = Instant::now() + interval.mul_f64((i as f64 * 0.618_034).fract());
    let mut ticks = interval_at(begin, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut n = 0u64;
    let mut nothing = [0; 64];
    loop {
        tokio::select! {
            biased;
            read = socket.read(&mut nothing) => match read {
                Ok(0) | Err(_) => return Ok(i),
                Ok(_) => {}
            },
            _ = ticks.tick() => {
                n += 1;
                let event = format!("data: {{\"n\":{n},\"t_ns\":{}}}\n\n", now_ns());
                let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                if socket.write_all(chunk.as_bytes()).await.is_err() {
                    return Ok(i);
                }
            }
        }
    }
}
