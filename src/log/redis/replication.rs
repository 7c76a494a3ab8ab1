//! `ack = replicated`: an answer counts once a replica has everything that the server had when it was given.
//!
//! The barrier is a write of our own and a `WAIT` after it, on a connection of its own to the very server that
//! answered. Replicas have what came before a write when they have the write, so one barrier is for everybody who
//! came before it: while one is under way, all others gather for the next. Must never: count a `WAIT` whose own
//! write failed, or one at another server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;

use super::options::plain_reason;

/// How long replicas may take.
const PATIENCE: Duration = Duration::from_millis(1000);
/// How long the write of a barrier is kept, in milliseconds: it has no meaning.
const KEPT_MS: u64 = 1000;
/// The write of a barrier. A server that is full refuses a `SET` alone, and with it everything that it lets through
/// or shows; so it begins with what is always allowed, as in `session.lua`.
const WRITE: &str = "redis.call('PEXPIRE', KEYS[1], ARGV[1]) return redis.call('SET', KEYS[1], '', 'PX', ARGV[1])";

/// The barriers of one connection.
pub(super) struct Barrier {
    connection: MultiplexedConnection,
    /// Barriers that were begun.
    begun: AtomicU64,
    /// Held by the barrier that is under way.
    turn: Mutex<Passed>,
}

/// The last barrier whose outcome is known.
#[derive(Default)]
struct Passed {
    number: u64,
    outcome: Option<String>,
}

impl Barrier {
    /// Barriers over `connection`, which serves nothing else.
    pub(super) fn new(connection: MultiplexedConnection) -> Self {
        Barrier { connection, begun: AtomicU64::new(0), turn: Mutex::default() }
    }

    /// Returns once a replica has all that the server had when this was called. `key` is one of the server's, to be
    /// written to.
    ///
    /// # Errors
    /// No replica has said so in time, or the server did not answer; why.
    pub(super) async fn pass(&self, key: &str) -> Result<(), String> {
        // A barrier that is under way may have begun before.
        let mine = self.begun.load(Ordering::Acquire) + 1;
        let mut passed = self.turn.lock().await;
        if passed.number < mine {
            let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
            let outcome = self.raise(key).await.err();
            *passed = Passed { number, outcome };
        }
        match &passed.outcome {
            None => Ok(()),
            Some(reason) => Err(reason.clone()),
        }
    }

    async fn raise(&self, key: &str) -> Result<(), String> {
        let mut connection = self.connection.clone();
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(WRITE).arg(1).arg(key).arg(KEPT_MS).ignore();
        pipeline.cmd("WAIT").arg(1).arg(u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX));
        let asked = pipeline.query_async::<(u64,)>(&mut connection);
        match tokio::time::timeout(PATIENCE * 2, asked).await {
            Ok(Ok((0,))) => {
                Err(format!("no replica had it within {} ms (store.ack = \"replicated\")", PATIENCE.as_millis()))
            }
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(plain_reason(&error)),
            Err(_) => Err("no answer to WAIT".into()),
        }
    }
}
