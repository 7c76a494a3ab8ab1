//! An upstream that plays bodies: many at once, each cut and ended as the test says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::scripted::{Asked, ScriptedAgent};

/// The routes of what the player plays, for the sidecar's configuration.
pub(crate) const ROUTES: &str = r#"
[[route]]
match = "POST /lines/*"
dialect = "ollama"
[[route]]
match = "POST /prefixed/*"
dialect = "ai-sdk-4"
[[route]]
match = "POST /array/*"
dialect = "gemini-array"
"#;

/// How one answer is played.
pub(crate) struct Play {
    /// Its head lines, each with its CRLF; what delimits the body is added.
    pub(crate) head: String,
    pub(crate) body: Bytes,
    /// Bytes a chunk of the body has.
    pub(crate) chunk: usize,
    pub(crate) end: Ending,
    /// Before the end: waits until the test says so, if it has anything to say.
    pub(crate) told: Option<oneshot::Receiver<()>>,
}

/// How the upstream ends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As HTTP says: with the last chunk.
    LastChunk,
    /// Closes without it.
    Close,
    /// Resets the connection.
    Reset,
    /// The body has no chunks: its end is the end of the connection (HTTP/1.0).
    Connection,
}

/// An upstream whose answers are known before they are asked for, by their paths.
pub(crate) struct Player {
    url: String,
    plays: Arc<Mutex<HashMap<String, Play>>>,
}

impl Player {
    /// Listens on a free port.
    pub(crate) async fn start() -> Self {
        let mut agent = ScriptedAgent::start().await;
        let (url, plays) = (agent.url(), Arc::<Mutex<HashMap<String, Play>>>::default());
        let known = plays.clone();
        tokio::spawn(async move {
            while let Some(asked) = agent.next().await {
                let play = known.lock().unwrap_or_else(PoisonError::into_inner).remove(&asked.path).unwrap();
                tokio::spawn(play.to(asked));
            }
        });
        Player { url, plays }
    }

    /// Where it listens, `http://…`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What it answers at this path, once.
    pub(crate) fn plays(&self, path: impl Into<String>, play: Play) {
        self.plays.lock().unwrap_or_else(PoisonError::into_inner).insert(path.into(), play);
    }
}

impl Play {
    async fn to(self, mut asked: Asked) {
        let Play { head, body, chunk, end, told } = self;
        let (status, delimiter) = match end {
            Ending::Connection => ("HTTP/1.0 200 OK", ""),
            _ => ("HTTP/1.1 200 OK", "transfer-encoding: chunked\r\n"),
        };
        asked.raw(format!("{status}\r\n{head}{delimiter}\r\n")).await;
        // A write has several small chunks: a reader sees them apart all the same.
        for write in body.chunks(chunk.max(256)) {
            let mut bytes = Vec::new();
            for chunk in write.chunks(chunk) {
                match end {
                    Ending::Connection => bytes.extend_from_slice(chunk),
                    _ => {
                        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                        bytes.extend_from_slice(chunk);
                        bytes.extend_from_slice(b"\r\n");
                    }
                }
            }
            asked.raw(bytes).await;
        }
        if let Some(told) = told {
            // A test that says nothing has gone on.
            let _ = told.await;
        }
        match end {
            Ending::LastChunk => asked.end().await,
            Ending::Close | Ending::Connection => asked.close(),
            Ending::Reset => asked.reset(),
        }
    }
}
