//! The backend: every request is a stream of numbered events at a steady pace, until its time has
//! come. It remembers how many it has said.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// When a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    /// Everything goes well; nobody ends.
    Before,
    /// The fault is there: streams of the path `/short/…` end.
    During,
    /// It is over: all end.
    After,
}

/// A backend of any number of streams.
pub(crate) struct Agents {
    address: SocketAddr,
    act: watch::Sender<Act>,
    said: Arc<Mutex<HashMap<String, u64>>>,
}

impl Agents {
    /// Listens on a free port.
    pub(crate) async fn start(pace: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (act, acts) = watch::channel(Act::Before);
        let said = Arc::<Mutex<HashMap<String, u64>>>::default();
        let counts = said.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, pace, acts.clone(), counts.clone()));
            }
        });
        Agents { address, act, said }
    }

    /// Where it listens, `http://…`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Goes on to the next act.
    pub(crate) fn begin(&self, act: Act) {
        self.act.send_replace(act);
    }

    /// How many events it has said to the call of this path.
    pub(crate) fn said(&self, path: &str) -> u64 {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied().unwrap_or(0)
    }
}

/// The data of the `n`th event of a call: nobody else's, so that a mix-up shows.
pub(crate) fn data(path: &str, n: u64) -> String {
    let padding = format!("{path} {n} ").repeat(6);
    format!(r#"{{"call":"{path}","n":{n},"text":"{padding}"}}"#)
}

async fn answer(
    mut stream: TcpStream,
    pace: Duration,
    mut act: watch::Receiver<Act>,
    said: Arc<Mutex<HashMap<String, u64>>>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..n]);
    }
    let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
    let last = if path.contains("/short/") { Act::During } else { Act::After };
    stream.write_all(HEAD).await?;
    // Not all at the same moment.
    let phase = path.bytes().map(u32::from).sum::<u32>() % 97;
    let mut due = Instant::now() + pace * phase / 97;
    for n in 1.. {
        tokio::select! {
            () = sleep_until(due) => {}
            ended = async { act.wait_for(|act| *act >= last).await.is_ok() } => {
                if ended {
                    stream.write_all(b"0\r\n\r\n").await?;
                }
                return Ok(());
            }
        }
        due += pace;
        let event = format!("data: {}\n\n", data(&path, n));
        said.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), n);
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
    }
    Ok(())
}
