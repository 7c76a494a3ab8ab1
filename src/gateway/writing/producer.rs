//! A body whose events a producer says: read as fast as the log stores it, one append in flight,
//! what arrives meanwhile is the next batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answer::Progress;
use super::reading::{Malformed, Reader};
use super::said::Numbered;
use crate::gateway::Gateway;
use crate::log::{Append, Appended, Closed, Log, Unavailable, Writer};
use crate::server::Problem;
use crate::session::{Kind, Offset, Record, SessionId};
use crate::telemetry::{EventsWritten, Fact, Metrics, WriteRetried, WrittenEventDropped};
use crate::wire::Code;

/// Bounds of one append, and of what waits for it to be stored: then the body is not read on.
const MAX_RECORDS: usize = 512;
const MAX_BYTES: usize = 1 << 20;

/// First and longest pause between attempts of one append.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A body on its way into the log.
pub(super) struct Writing {
    gateway: Arc<Gateway>,
    writer: Writer,
    /// Whether the producer is ours alone: its numbers mean nothing to the agent.
    ours: bool,
    /// The number of the first record that waits.
    next_n: u64,
    waiting: VecDeque<Record>,
    waiting_bytes: usize,
    seen: Option<Offset>,
    progress: Progress,
    /// An event was too large for the log.
    dropped: bool,
}

type Flight = BoxFuture<'static, (Append, Result<Appended, Unavailable>)>;

impl Writing {
    /// A body for `session`. Where no producer is named we are one, for this body alone, so that
    /// repeating an append whose answer was lost never doubles an entry.
    pub(super) fn new(gateway: Arc<Gateway>, session: SessionId, producer: Option<Numbered>) -> Self {
        let ours = producer.is_none();
        let Numbered { id, epoch, seq } = producer.unwrap_or_else(one_time_producer);
        Writing {
            gateway,
            writer: Writer::Producer { id, epoch },
            ours,
            next_n: seq,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            seen: None,
            progress: Progress::new(session),
            dropped: false,
        }
    }

    /// Stores what `reader` finds in `body` (`None`: it has it already). How far it got, and what
    /// stopped it before the end, if something did.
    pub(super) async fn store(mut self, mut reader: Reader, mut body: Option<Incoming>) -> (Progress, Option<Problem>) {
        let gateway = self.gateway.clone();
        let mut stopped: Option<Problem> = None;
        let mut flight: Option<Flight> = None;
        loop {
            // Whether everything that has arrived was taken: the body goes on, or ends, only after that.
            let mut dry = false;
            while !dry && self.has_room() {
                match reader.next().map(|read| self.keep(read)) {
                    Some(Ok(())) => {}
                    Some(Err(problem)) => (stopped, body) = (Some(problem), None),
                    None => dry = true,
                }
            }
            if flight.is_none() {
                match self.take_batch() {
                    Some(append) => flight = Some(self.append(append)),
                    None if body.is_none() => return (self.progress, stopped),
                    None => {}
                }
                if !dry {
                    continue;
                }
            }
            let stored = async {
                match flight.as_mut() {
                    Some(flight) => flight.await,
                    None => std::future::pending().await,
                }
            };
            let frame = async {
                match body.as_mut() {
                    Some(body) if dry => body.frame().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                (append, outcome) = stored => {
                    flight = None;
                    if let Err(problem) = self.stored(append, outcome) {
                        return (self.progress, Some(stopped.unwrap_or(problem)));
                    }
                }
                frame = frame => match frame {
                    Some(Ok(frame)) => {
                        if let Some(data) = frame.data_ref() {
                            reader.feed(data);
                        }
                    }
                    Some(Err(error)) => {
                        tracing::debug!(session = %self.progress.session, %error, "a writer's body broke off");
                        (stopped, body) = (Some(Problem::new(Code::BadRequest, "the body broke off")), None);
                    }
                    None => {
                        body = None;
                        let last = reader.finish().map_or(Ok(()), |read| self.keep(read));
                        stopped = last.err();
                    }
                },
                () = gateway.shutdown.closing(), if stopped.is_none() => {
                    let detail = "this instance is shutting down; send what is not stored to another one";
                    (stopped, body) = (Some(Problem::new(Code::Draining, detail)), None);
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < MAX_RECORDS && self.waiting_bytes < MAX_BYTES
    }

    fn keep(&mut self, read: Result<Record, Malformed>) -> Result<(), Problem> {
        let record = read.map_err(|Malformed { line, detail }| {
            Problem::new(Code::BadRequest, format!("line {line}: {detail}")).with("line", line)
        })?;
        if record.kind == Kind::EventDropped {
            let first = !std::mem::replace(&mut self.dropped, true);
            WrittenEventDropped { session: &self.progress.session, first }.emit(&self.gateway.metrics);
        }
        self.waiting_bytes += record.size();
        self.waiting.push_back(record);
        Ok(())
    }

    /// What waits, as far as it belongs to one run and fits.
    fn take_batch(&mut self) -> Option<Append> {
        let run = &self.waiting.front()?.run;
        let mut bytes = 0;
        let fits = |record: &&Record| {
            bytes += record.size();
            record.run == *run && bytes <= MAX_BYTES
        };
        let count = self.waiting.iter().take(MAX_RECORDS).take_while(fits).count().max(1);
        let records: Vec<_> = self.waiting.drain(..count).collect();
        self.waiting_bytes -= records.iter().map(Record::size).sum::<usize>();
        let first_n = self.next_n;
        self.next_n += count as u64;
        let (session, writer, seen) = (self.progress.session.clone(), self.writer.clone(), self.seen);
        Some(Append { session, writer, first_n, records, seen, skips: false })
    }

    fn append(&self, append: Append) -> Flight {
        let (log, metrics) = (self.gateway.log.clone(), self.gateway.metrics.clone());
        let (publisher, ours) = (self.gateway.publisher.clone(), self.ours);
        let patience = self.gateway.writers.patience;
        let appending = repeated(log, metrics, append, patience);
        Box::pin(async move {
            let (append, outcome) = appending.await;
            if ours {
                // Nobody else has what the store may lose of it.
                match &outcome {
                    Ok(Appended::Stored { last, .. } | Appended::Duplicate { last, .. }) => {
                        publisher.keep(&append.session, &append.records, *last).await;
                    }
                    Ok(Appended::RolledBack { .. } | Appended::Gap { .. }) => {
                        // It goes on without us where the store is away once more.
                        let _ = timeout(patience, publisher.restore_lost(&append.session)).await;
                    }
                    _ => {}
                }
            }
            (append, outcome)
        })
    }

    /// What the log says of an append, and what follows for the rest of the body.
    fn stored(&mut self, append: Append, outcome: Result<Appended, Unavailable>) -> Result<(), Problem> {
        let count = append.records.len() as u64;
        let numbered = |problem: Problem, n: u64| if self.ours { problem } else { problem.with("expected", n) };
        let conflict = |detail: &str| Problem::new(Code::Conflict, detail);
        match outcome {
            Ok(Appended::Stored { first, last, .. }) => {
                let added = last.seq + 1 - first.seq;
                self.progress.first.get_or_insert(first);
                self.progress.duplicates += count.saturating_sub(added);
                self.advance(count, last);
                Ok(())
            }
            Ok(Appended::Duplicate { last, .. }) => {
                self.progress.duplicates += count;
                self.advance(count, last);
                Ok(())
            }
            // The store went back in time, and has by now what it had lost; or the session has met a thousand
            // producers since, and forgotten ours: we are another one.
            Ok(Appended::Gap { .. } | Appended::RolledBack { .. }) if self.ours => {
                self.begin_again(append);
                Ok(())
            }
            Ok(Appended::Gap { expected }) => Err(numbered(
                conflict("events before Producer-Seq are missing: send the producer's events from `expected` on"),
                expected,
            )),
            Ok(Appended::Fenced) => Err(Problem::new(
                Code::Fenced,
                "a newer epoch of this producer writes now; stop, or begin a newer epoch from Producer-Seq 1",
            )),
            Ok(Appended::Closed(Closed::Terminal { offset, state })) => {
                let problem = conflict("the run has ended; nothing can be written into it any more");
                Err(problem.with("state", state.as_str()).with("ended", offset.to_string()))
            }
            Ok(Appended::Closed(Closed::Unknown)) => {
                Err(Problem::new(Code::NotFound, "this session has no such run, or it ended long ago"))
            }
            Ok(Appended::Closed(Closed::Erased)) => Err(Problem::new(Code::Gone, "the session was erased")),
            Ok(Appended::Closed(Closed::Expired)) => Err(Problem::new(Code::Gone, "the session has expired")),
            Ok(Appended::RolledBack { n, .. }) => {
                Err(numbered(conflict("the store has lost entries of this body that it had acknowledged"), n + 1))
            }
            Err(error) => {
                let detail = "the store does not answer: whether the `unconfirmed` events after those that are stored \
                              came in is unknown; with Producer headers the same request may be sent again";
                tracing::warn!(session = %self.progress.session, detail = error.detail, "a write was given up: the store does not answer");
                Err(Problem::new(Code::StoreUnavailable, detail).with("unconfirmed", count))
            }
        }
    }

    fn advance(&mut self, count: u64, last: Offset) {
        self.progress.events += count;
        self.progress.last = Some(last);
        self.seen = Some(last);
    }

    /// Sends `append`, of which nothing was stored, as the first of a new producer.
    fn begin_again(&mut self, append: Append) {
        let Numbered { id, epoch, seq } = one_time_producer();
        (self.writer, self.next_n, self.seen) = (Writer::Producer { id, epoch }, seq, None);
        for record in append.records.into_iter().rev() {
            self.waiting_bytes += record.size();
            self.waiting.push_front(record);
        }
    }
}

/// A producer for one body. Agents cannot name its id.
fn one_time_producer() -> Numbered {
    Numbered { id: format!("~{:032x}", crate::random::u128()).into(), epoch: 1, seq: 1 }
}

/// One append, repeated until the answer is definite, but not for longer than `patience`.
async fn repeated(
    log: Arc<dyn Log>,
    metrics: Metrics,
    append: Append,
    patience: Duration,
) -> (Append, Result<Appended, Unavailable>) {
    let (began, session) = (Instant::now(), &append.session);
    let (mut tries, mut pause) = (1, BACKOFF.0);
    let outcome = loop {
        let late = || Unavailable::new("no answer in time");
        let answer = timeout_at(began + patience, log.append(append.clone())).await;
        let error = match answer.unwrap_or_else(|_| Err(late())) {
            Ok(appended) => {
                let bytes = append.records.iter().map(Record::size).sum::<usize>() as u64;
                let (events, took) = (append.records.len() as u64, began.elapsed());
                EventsWritten { session, events, bytes, took }.emit(&metrics);
                break Ok(appended);
            }
            Err(error) => error,
        };
        let wait = pause / 2 + crate::random::up_to(pause);
        if began.elapsed() + wait >= patience {
            break Err(error);
        }
        WriteRetried { session, tries, detail: &error.detail }.emit(&metrics);
        sleep(wait).await;
        (tries, pause) = (tries + 1, (pause * 2).min(BACKOFF.1));
    };
    (append, outcome)
}
