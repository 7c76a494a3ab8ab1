//! The backend of a benchmark: a process of its own that streams stamped events at an exact pace.
//!
//! Leaner than the demo agent, so that a benchmark measures the sidecar and not its upstream: one
//! thread accepts, one writes, no runtime between the clock and the socket. Pacing by timers of a
//! runtime would also bundle the events of a millisecond. It must never do work that depends on
//! what the reader does: a reader that does not read costs a retry, nothing else.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::clock::now_ns;

/// How long a write that found the socket full waits.
const RETRY: Duration = Duration::from_micros(200);

/// Accepted streams that the pacer has not taken yet; then the next one waits in the kernel.
const ACCEPTED: usize = 256;

/// Bytes of data from which an event has room for its number and time; smaller ones have neither.
const STAMPED: usize = 200;

/// The largest request head that is read.
const MAX_HEAD: usize = 16 << 10;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
                      transfer-encoding: chunked\r\nconnection: close\r\n\r\n";

/// What a request asks for: `POST /stream?events=N&rate=R&bytes=B&burst=K&phase_us=P`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// How many events.
    pub(crate) events: u64,
    /// Events per second; 0: as fast as the reader takes them.
    pub(crate) rate: f64,
    /// About how large each event's data is.
    pub(crate) bytes: usize,
    /// Events per write.
    pub(crate) burst: u64,
    /// Before the first event, so that many streams do not tick together.
    pub(crate) phase: Duration,
}

impl Load {
    /// The request's path.
    pub(crate) fn path(&self) -> String {
        let Load { events, rate, bytes, burst, phase } = self;
        let phase_us = phase.as_micros();
        format!("/stream?events={events}&rate={rate}&bytes={bytes}&burst={burst}&phase_us={phase_us}")
    }

    fn parse(head: &str) -> Option<Load> {
        let (_, query) = head.split_whitespace().nth(1)?.split_once('?')?;
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        Some(Load {
            events: value("events")?.parse().ok()?,
            rate: value("rate")?.parse().ok()?,
            bytes: value("bytes")?.parse().ok()?,
            burst: value("burst")?.parse::<u64>().ok()?.max(1),
            phase: Duration::from_micros(value("phase_us")?.parse().ok()?),
        })
    }
}

/// Serves until the process is killed. Prints its address once it is bound.
pub(crate) fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("the backend cannot listen")?;
    println!("backend listening on {}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let (sender, receiver) = sync_channel(ACCEPTED);
    std::thread::spawn(move || pace(&receiver));
    for socket in listener.incoming().flatten() {
        // A request that makes no sense is answered by the end of its connection.
        let _ = accept(socket, &sender);
    }
    Ok(())
}

fn accept(mut socket: TcpStream, streams: &SyncSender<Stream>) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while memchr::memmem::find(&head, b"\r\n\r\n").is_none() {
        let n = socket.read(&mut buffer)?;
        anyhow::ensure!(n > 0 && head.len() < MAX_HEAD, "no request");
        head.extend_from_slice(&buffer[..n]);
    }
    let load = Load::parse(std::str::from_utf8(&head)?).context("not a load")?;
    socket.write_all(HEAD)?;
    socket.set_nonblocking(true)?;
    streams.send(Stream::new(socket, load))?;
    Ok(())
}

/// Fires every stream when it is due.
fn pace(incoming: &Receiver<Stream>) {
    let mut streams: BinaryHeap<Reverse<Stream>> = BinaryHeap::new();
    loop {
        streams.extend(incoming.try_iter().map(Reverse));
        let wait = match streams.peek() {
            Some(Reverse(next)) => next.due.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        };
        if !wait.is_zero() {
            match incoming.recv_timeout(wait) {
                Ok(stream) => streams.push(Reverse(stream)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            continue;
        }
        if let Some(Reverse(mut stream)) = streams.pop()
            && stream.fire()
        {
            streams.push(Reverse(stream));
        }
    }
}

/// A stream that is being written.
struct Stream {
    socket: TcpStream,
    load: Load,
    content: String,
    /// The number of the newest event written.
    n: u64,
    due: Instant,
    unsent: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn new(socket: TcpStream, load: Load) -> Self {
        let mut stream = Stream {
            socket,
            load,
            content: String::new(),
            n: 0,
            due: Instant::now() + load.phase,
            unsent: Vec::new(),
            ended: false,
        };
        let mut bare = Vec::new();
        stream.event(&mut bare);
        stream.n = 0;
        let text = "Lorem ipsum dolor sit amet, consectetur adipiscing elit. ";
        // `data: ` and the blank line are not data.
        stream.content = text.chars().cycle().take((load.bytes + 8).saturating_sub(bare.len())).collect();
        stream
    }

    /// Writes what is due. `false`: the stream is over.
    fn fire(&mut self) -> bool {
        if self.unsent.is_empty() {
            self.next_write();
        }
        match self.socket.write(&self.unsent) {
            Ok(n) => {
                self.unsent.drain(..n);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        if !self.unsent.is_empty() {
            self.due = Instant::now() + RETRY;
        } else if self.ended {
            let _ = self.socket.shutdown(Shutdown::Write);
            return false;
        } else if self.load.rate > 0.0 {
            self.due += Duration::from_secs_f64(self.load.burst as f64 / self.load.rate);
        } else {
            // Behind all the others that are due.
            self.due = Instant::now();
        }
        true
    }

    fn next_write(&mut self) {
        let mut events = Vec::new();
        for _ in 0..self.load.burst.min(self.load.events - self.n) {
            self.event(&mut events);
        }
        let last: &[u8] = if self.n >= self.load.events { b"data: [DONE]\n\n" } else { b"" };
        events.extend_from_slice(last);
        // Writing to a Vec cannot fail.
        let _ = write!(self.unsent, "{:x}\r\n", events.len());
        self.unsent.extend_from_slice(&events);
        self.unsent.extend_from_slice(b"\r\n");
        if !last.is_empty() {
            self.unsent.extend_from_slice(b"0\r\n\r\n");
            self.ended = true;
        }
    }

    fn event(&mut self, out: &mut Vec<u8>) {
        self.n += 1;
        if self.load.bytes < STAMPED {
            let text = "x".repeat(self.load.bytes);
            let _ = write!(out, "data: {text}\n\n");
            return;
        }
        let (n, t_ns, content) = (self.n, now_ns(), &self.content);
        let _ = write!(
            out,
            "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"n\":{n},\"t_ns\":{t_ns},\
             \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}},\"finish_reason\":null}}]}}\n\n"
        );
    }
}

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Stream {}

impl PartialOrd for Stream {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Stream {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}
