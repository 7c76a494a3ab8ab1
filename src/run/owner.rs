//! The owner of a run: reads the upstream's answer to its end, appends it, releases the direct
//! caller's bytes, writes exactly one terminal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http_body_util::BodyExt;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::log::{Append, Appended, Closed, Fence, OpenRun, Opened, Writer};
use crate::run::books::{Books, Held};
use crate::run::caller::Caller;
use crate::run::commit::{self, Committed};
use crate::run::runs::Life;
use crate::run::{Runs, TaggedId};
use crate::server::Body;
use crate::session::{Kind, Offset, Record, RunId, RunState, SessionId, Terminal};
use crate::sse::{Decoder, Event, Frame};
use crate::telemetry::{EventDropped, Fact, RunEnded, RunResumed, RunStalled};

/// Bytes of a run that may wait for the store beside one event of the largest size; then the
/// upstream is not read on.
const WAITING_BYTES: usize = 4 << 20;

/// How much of an unfinished last block is kept on the terminal entry.
const TAIL_BYTES: usize = 8 << 10;

/// How often a run that waits for other runs' memory looks again.
const MEMORY_RETRY: Duration = Duration::from_millis(20);

/// A run to drive.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// Where.
    pub session: SessionId,
    /// The run's id.
    pub run: RunId,
    /// Its first entries, the last of them its `started`.
    pub opening: Vec<Record>,
    /// The name of the agent, on every entry.
    pub source: Option<ByteString>,
    /// Whether the direct caller gets tagged ids; such a caller is never served before the log has
    /// the event.
    pub ids: Tagging,
    /// Silence after which the run is said to be stalled.
    pub stall: Duration,
    /// Silence after which it has failed.
    pub stall_limit: Duration,
}

/// How a run ended.
struct End {
    state: Terminal,
    reason: &'static str,
    caller: CallerEnd,
    tail: Bytes,
}

/// What happens next if nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    /// The run is too long.
    Duration,
    /// The direct caller has waited for the store long enough.
    Hurry,
    /// The run has waited for the store long enough.
    GiveUp,
    /// The upstream has been silent.
    Silence,
    /// Other runs may have freed memory.
    Memory,
}

/// Whether the direct caller's events get our ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagging {
    /// No.
    Off,
    /// Yes, in place of the upstream's.
    On,
    /// Yes, unless the upstream's first event has an id of its own.
    UnlessTheirs,
}

/// What durability the direct caller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    /// Bytes are released when their entries are stored.
    Stored,
    /// The store is slow or away: bytes go at once, until everything is stored; entries from
    /// `first_n` on were served before they were stored.
    Eager { first_n: u64 },
    /// Nothing more of this run will be stored: fenced, closed by others, or given up.
    Over,
}

/// The owner's state.
pub(super) struct Owner {
    runs: Arc<Runs>,
    life: Life,
    spec: RunSpec,
    fence: Fence,
    caller: Option<Caller>,
    opened: Option<oneshot::Sender<Option<Offset>>>,
    decoder: Decoder,
    books: Books,
    durability: Durability,
    stored_n: u64,
    seen: Option<Offset>,
    oversize: Option<(Sha256, u64)>,
    stalled: bool,
    last_event_failed: bool,
    events: u64,
    bytes: u64,
    began: Instant,
    heard: Instant,
    flight_began: Instant,
    accounted: u64,
    /// The terminal is in the books; the upstream is closed.
    ended: bool,
    /// The store was away for too long once.
    gave_up: bool,
    /// How the caller's body ends, once it may.
    caller_end: Option<CallerEnd>,
}

/// How the direct caller's body ends.
#[derive(Debug)]
enum CallerEnd {
    Clean(Option<HeaderMap>),
    Broken(&'static str),
}

impl Owner {
    pub(super) fn new(runs: Arc<Runs>, spec: RunSpec, caller: Caller, opened: oneshot::Sender<Option<Offset>>) -> Self {
        let fence = Fence { counter: 1, nonce: format!("{:032x}", crate::random::u128()).into() };
        Owner {
            decoder: Decoder::new(runs.settings.event_bytes),
            books: Books::new(spec.opening.len() as u64),
            durability: Durability::Stored,
            stored_n: 0,
            seen: None,
            oversize: None,
            stalled: false,
            last_event_failed: false,
            events: 0,
            bytes: 0,
            began: Instant::now(),
            heard: Instant::now(),
            flight_began: Instant::now(),
            accounted: 0,
            ended: false,
            gave_up: false,
            caller_end: None,
            caller: Some(caller),
            opened: Some(opened),
            fence,
            life: runs.life(),
            runs,
            spec,
        }
    }

    /// Drives the run to its end.
    pub(super) async fn drive(mut self, upstream: Body) {
        let mut upstream = Some(upstream);
        let mut flight: Option<BoxFuture<'static, Committed>> = Some(self.open());
        let (runs, interrupt) = (self.runs.clone(), self.life.interrupt.clone());
        loop {
            if flight.is_none() {
                match self.next_append() {
                    Some(append) => {
                        flight = Some(Box::pin(commit::append(
                            runs.log.clone(),
                            runs.metrics.clone(),
                            self.spec.run.clone(),
                            append,
                        )));
                        self.flight_began = Instant::now();
                    }
                    None if self.ended => break,
                    None => {}
                }
            }
            self.account();
            let reading = upstream.is_some() && self.may_read();
            if upstream.is_some() && !reading {
                // While we do not read, silence is not the upstream's.
                self.heard = Instant::now();
            }
            let (alarm_at, alarm) = self.next_alarm(flight.is_some(), reading);
            let chunk = async {
                match upstream.as_mut() {
                    Some(body) if reading => body.frame().await,
                    _ => std::future::pending().await,
                }
            };
            let committed = async {
                match flight.as_mut() {
                    Some(flight) => flight.await,
                    None => std::future::pending().await,
                }
            };
            let end = tokio::select! {
                committed = committed => {
                    flight = None;
                    self.committed(committed);
                    None
                }
                chunk = chunk => self.chunk(chunk),
                () = sleep_until(alarm_at) => self.alarmed(alarm),
                () = interrupt.cancelled(), if !self.ended => Some(End::broken(Terminal::Interrupted, "shutdown")),
            };
            let unwanted = self.durability == Durability::Over && self.caller.is_none() && !self.ended;
            let end = end.or_else(|| unwanted.then(|| End::broken(Terminal::Interrupted, "not_kept")));
            if let Some(end) = end {
                // Dropping the body closes the upstream connection where it is still open.
                upstream = None;
                self.end(end);
            }
        }
        self.finish_caller();
        self.runs.pending.fetch_sub(self.accounted, Ordering::AcqRel);
        // The run has its terminal; whether it is still listed matters to nobody but the sweeper.
        let _ = self.runs.log.unlist(&self.life.instance, &self.spec.session, &self.spec.run).await;
    }

    /// What happens next if nothing else does, and when.
    fn next_alarm(&self, in_flight: bool, reading: bool) -> (Instant, Alarm) {
        let settings = &self.runs.settings;
        let mut alarm = (self.began + settings.run_duration, Alarm::Duration);
        let mut also = |enabled: bool, at: Instant, what: Alarm| {
            if enabled && (at < alarm.0 || alarm.1 == Alarm::Duration && self.ended) {
                alarm = (at, what);
            }
        };
        let hurry = self.durability == Durability::Stored && self.caller.is_some() && self.spec.ids == Tagging::Off;
        also(in_flight && hurry, self.flight_began + settings.eager_after, Alarm::Hurry);
        let give_up = self.durability != Durability::Over && !self.gave_up;
        also(in_flight && give_up, self.flight_began + settings.outage_limit, Alarm::GiveUp);
        let patience = if self.stalled { self.spec.stall_limit } else { self.spec.stall };
        also(reading, self.heard + patience, Alarm::Silence);
        also(!self.ended && !reading, Instant::now() + MEMORY_RETRY, Alarm::Memory);
        alarm
    }

    fn alarmed(&mut self, alarm: Alarm) -> Option<End> {
        match alarm {
            Alarm::Duration => (!self.ended).then(|| End::broken(Terminal::Cancelled, "duration")),
            Alarm::Hurry => {
                self.hurry();
                None
            }
            Alarm::GiveUp => self.give_up(),
            Alarm::Silence => self.silent(),
            Alarm::Memory => None,
        }
    }

    fn open(&self) -> BoxFuture<'static, Committed> {
        let open = OpenRun::new(
            self.spec.session.clone(),
            self.spec.run.clone(),
            self.life.instance.clone(),
            self.fence.nonce.clone(),
            self.spec.opening.clone(),
        );
        let (runs, instance) = (&self.runs, self.life.instance.clone());
        Box::pin(commit::open(runs.log.clone(), runs.metrics.clone(), instance, open))
    }

    fn next_append(&mut self) -> Option<Append> {
        let (first_n, records) = self.books.take_batch()?;
        Some(Append {
            session: self.spec.session.clone(),
            writer: Writer::Run { run: self.spec.run.clone(), fence: self.fence.clone() },
            first_n,
            records,
            seen: self.seen,
        })
    }

    /// Whether the upstream may be read on: its events have room to wait for the store.
    fn may_read(&self) -> bool {
        let room = WAITING_BYTES + self.runs.settings.event_bytes;
        let all = self.runs.pending.load(Ordering::Acquire);
        // A run that holds nothing may always go on, so that no run waits for ever for the others.
        self.books.bytes() < room && (all < self.runs.settings.pending_bytes || self.accounted == 0)
    }

    /// Keeps the instance's total of bytes that wait.
    fn account(&mut self) {
        let now = (self.books.bytes() + self.decoder.buffered()) as u64;
        self.runs.pending.fetch_add(now, Ordering::AcqRel);
        self.runs.pending.fetch_sub(self.accounted, Ordering::AcqRel);
        self.accounted = now;
    }

    // What the upstream says.

    fn chunk(&mut self, chunk: Option<Result<http_body::Frame<Bytes>, crate::server::BodyError>>) -> Option<End> {
        let frame = match chunk {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                tracing::debug!(run = %self.spec.run, %error, "the upstream's answer broke off");
                return Some(End::broken(Terminal::Failed, "upstream_reset"));
            }
            None => return Some(self.upstream_end(None)),
        };
        match frame.into_data() {
            Ok(data) => {
                self.heard = Instant::now();
                self.bytes += data.len() as u64;
                if std::mem::take(&mut self.stalled) {
                    RunResumed { session: &self.spec.session, run: &self.spec.run }.emit(&self.runs.metrics);
                    self.state(RunState::Resumed, "{}");
                }
                self.decoder.feed(&data);
                while let Some(frame) = self.decoder.next() {
                    self.frame(frame);
                }
                if matches!(self.durability, Durability::Eager { .. } | Durability::Over) {
                    self.release(u64::MAX);
                } else {
                    // Comments after what is stored already need not wait.
                    self.release(self.stored_n);
                }
                None
            }
            Err(frame) => frame.into_trailers().ok().map(|trailers| self.upstream_end(Some(trailers))),
        }
    }

    fn frame(&mut self, frame: Frame) {
        match frame {
            Frame::Filler(raw) => self.books.filler(raw),
            Frame::Event { raw, event } => {
                self.last_event_failed = event.name.as_deref() == Some("error");
                if self.spec.ids == Tagging::UnlessTheirs {
                    self.spec.ids = if event.id.is_some() { Tagging::Off } else { Tagging::On };
                }
                let record = self.record(Kind::Event, event);
                self.keep(record, raw);
            }
            Frame::OversizePart(raw) => {
                self.oversize_bytes(&raw);
                self.books.filler(raw);
            }
            Frame::OversizeEnd { raw, event } => {
                self.oversize_bytes(&raw);
                let Some((hash, bytes)) = self.oversize.take() else { return };
                if !event {
                    return self.books.filler(raw);
                }
                let sha256: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                let data = json!({"bytes": bytes, "sha256": sha256}).to_string();
                let (session, run) = (&self.spec.session, &self.spec.run);
                EventDropped { session, run, bytes }.emit(&self.runs.metrics);
                let record = self.record(Kind::EventDropped, Event { name: None, data: data.into(), id: None });
                self.keep(record, raw);
            }
        }
    }

    fn keep(&mut self, record: Record, raw: Bytes) {
        self.events += 1;
        if self.durability == Durability::Over { self.books.filler(raw) } else { self.books.event(record, raw) }
    }

    fn record(&self, kind: Kind, event: Event) -> Record {
        Record {
            kind,
            run: Some(self.spec.run.clone()),
            source: self.spec.source.clone(),
            event: event.name,
            id: event.id,
            data: event.data,
        }
    }

    fn oversize_bytes(&mut self, raw: &Bytes) {
        let (hash, bytes) = self.oversize.get_or_insert_with(|| (Sha256::new(), 0));
        hash.update(raw);
        *bytes += raw.len() as u64;
    }

    fn upstream_end(&mut self, trailers: Option<HeaderMap>) -> End {
        let decoder = std::mem::replace(&mut self.decoder, Decoder::new(self.runs.settings.event_bytes));
        let tail = decoder.finish().raw;
        if !tail.is_empty() {
            self.books.filler(tail.clone());
        }
        let (state, reason) = match self.last_event_failed {
            true => (Terminal::Failed, "error_event"),
            false => (Terminal::Completed, "end"),
        };
        End { state, reason, caller: CallerEnd::Clean(trailers), tail }
    }

    /// The upstream has been silent for too long, or for long enough to say so.
    fn silent(&mut self) -> Option<End> {
        if self.stalled {
            return Some(End::broken(Terminal::Failed, "stalled"));
        }
        self.stalled = true;
        let (session, run, silent_for) = (&self.spec.session, &self.spec.run, self.spec.stall);
        RunStalled { session, run, silent_for }.emit(&self.runs.metrics);
        self.state(RunState::Stalled, &json!({ "silent_ms": silent_for.as_millis() }).to_string());
        None
    }

    fn state(&mut self, state: RunState, details: &str) {
        if self.durability != Durability::Over {
            let mut record = Record::run_state(self.spec.run.clone(), state, details.to_owned());
            record.source.clone_from(&self.spec.source);
            self.books.record(record);
        }
    }

    /// Writes the terminal into the books.
    fn end(&mut self, end: End) {
        if let Durability::Eager { first_n } = self.durability {
            self.say_eager(first_n);
        }
        self.ended = true;
        let duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut details = json!({
            "reason": end.reason, "events": self.events, "bytes": self.bytes, "duration_ms": duration_ms,
        });
        if !end.tail.is_empty() {
            let kept = &end.tail[..end.tail.len().min(TAIL_BYTES)];
            details["tail"] = String::from_utf8_lossy(kept).into();
            details["tail_bytes"] = end.tail.len().into();
        }
        self.state(RunState::Ended(end.state), &details.to_string());
        let (session, run, terminal) = (&self.spec.session, &self.spec.run, end.state);
        let (reason, events, took) = (Some(end.reason), self.events, self.began.elapsed());
        RunEnded { session, run, terminal, reason, events, took }.emit(&self.runs.metrics);
        self.caller_end = Some(end.caller);
        if self.durability != Durability::Stored {
            self.finish_caller();
        }
    }

    // What the log says.

    fn committed(&mut self, committed: Committed) {
        match committed {
            Committed::Opened(Opened::Open { started, .. }) => {
                self.stored_n = self.spec.opening.len() as u64;
                self.seen = Some(started);
                self.tell_opened(Some(started));
                self.advance(started);
            }
            Committed::Opened(other) => {
                let (session, run) = (&self.spec.session, &self.spec.run);
                tracing::warn!(%session, %run, outcome = ?other, "the run could not be opened; it is served but not kept");
                self.tell_opened(None);
                self.over();
            }
            Committed::Appended(append, outcome) => self.appended(&append, outcome),
        }
    }

    fn appended(&mut self, append: &Append, outcome: Appended) {
        let count = append.records.len() as u64;
        match outcome {
            Appended::Stored { last, .. } | Appended::Duplicate { last, .. } => {
                self.seen = Some(last);
                self.stored_n = append.first_n + count - 1;
                self.advance(last);
            }
            // Our own terminal, by an attempt whose answer was lost.
            Appended::Closed(Closed::Terminal { offset, .. }) if ends_run(append) => {
                self.stored_n = append.first_n + count - 1;
                self.advance(offset);
            }
            lost => {
                let (session, run) = (&self.spec.session, &self.spec.run);
                tracing::error!(%session, %run, outcome = ?lost, "the log takes no more of this run; its caller is served on");
                self.over();
            }
        }
    }

    /// The entries of the newest append are stored, the last of them at `last`.
    fn advance(&mut self, last: Offset) {
        match self.durability {
            Durability::Stored => {
                while let Some(held) = self.books.release(self.stored_n) {
                    // The entries of one append stand side by side, with one `ms`.
                    let behind = self.stored_n - held.n;
                    self.forward(held, Offset::new(last.ms, last.seq.saturating_sub(behind)));
                }
            }
            Durability::Eager { first_n } if !self.ended && (self.books.is_settled() || self.caller.is_none()) => {
                self.durability = Durability::Stored;
                self.say_eager(first_n);
            }
            Durability::Eager { .. } | Durability::Over => {}
        }
    }

    /// Says which entries the direct caller had before they were stored.
    fn say_eager(&mut self, first_n: u64) {
        let data = json!({"code": "eager", "first_n": first_n, "last_n": self.books.last_n()}).to_string();
        let record = self.record(Kind::Status, Event { name: None, data: data.into(), id: None });
        self.books.record(record);
    }

    // The direct caller.

    fn tell_opened(&mut self, started: Option<Offset>) {
        if let Some(opened) = self.opened.take() {
            // The caller may have stopped waiting.
            let _ = opened.send(started);
        }
    }

    fn hurry(&mut self) {
        let (session, run) = (&self.spec.session, &self.spec.run);
        tracing::warn!(%session, %run, "the store is slow; the direct caller is served ahead of it");
        self.durability = Durability::Eager { first_n: self.stored_n + 1 };
        self.release(u64::MAX);
    }

    /// The store has been away for longer than a run waits. With a caller who is served all the
    /// same the run goes on without being kept; without one there is nobody to go on for. The
    /// terminal waits in memory for the store's return.
    fn give_up(&mut self) -> Option<End> {
        self.gave_up = true;
        if self.ended {
            return None;
        }
        let (session, run) = (&self.spec.session, &self.spec.run);
        tracing::error!(%session, %run, "the store has been away for store.outage_limit; the rest of this run is not kept");
        self.books.abandon();
        if self.caller.is_none() || self.spec.ids != Tagging::Off {
            return Some(End::broken(Terminal::Failed, "store_unavailable"));
        }
        let details = json!({"reason": "store_unavailable", "events": self.events, "bytes": self.bytes});
        self.state(RunState::Ended(Terminal::Failed), &details.to_string());
        self.over();
        None
    }

    /// Nothing more will be stored; the caller is served on.
    fn over(&mut self) {
        self.durability = Durability::Over;
        self.release(u64::MAX);
    }

    /// Lets bytes go whose entries need not be waited for (any more).
    fn release(&mut self, n: u64) {
        while let Some(held) = self.books.release(n) {
            self.forward(held, Offset::ZERO);
        }
    }

    /// Ends the caller's body, after everything that was read for it.
    fn finish_caller(&mut self) {
        self.release(u64::MAX);
        match (self.caller.take(), self.caller_end.take()) {
            (Some(caller), Some(CallerEnd::Clean(trailers))) => caller.end(trailers),
            (Some(caller), Some(CallerEnd::Broken(reason))) => caller.abort(reason),
            _ => {}
        }
    }

    fn forward(&mut self, held: Held, offset: Offset) {
        let Some(caller) = &self.caller else { return };
        let raw = match self.spec.ids == Tagging::On && held.event && offset != Offset::ZERO {
            true => with_id(&held.raw, &TaggedId::of(&self.spec.session, &self.spec.run, offset)),
            false => held.raw,
        };
        if !caller.send(raw) {
            self.caller = None;
        }
    }
}

impl End {
    fn broken(state: Terminal, reason: &'static str) -> Self {
        End { state, reason, caller: CallerEnd::Broken(reason), tail: Bytes::new() }
    }
}

/// Whether the append holds the run's terminal.
fn ends_run(append: &Append) -> bool {
    append.records.last().and_then(Record::state).and_then(RunState::terminal).is_some()
}

/// The block with our id as its last field, so that it wins over one of the upstream's: before the
/// blank line that ends every block.
fn with_id(raw: &Bytes, id: &TaggedId) -> Bytes {
    let blank = if raw.ends_with(b"\r\n") { 2 } else { 1 };
    let (fields, blank) = raw.split_at(raw.len().saturating_sub(blank));
    let line = format!("id: {id}\n");
    let mut out = BytesMut::with_capacity(line.len() + raw.len());
    out.put_slice(fields);
    out.put_slice(line.as_bytes());
    out.put_slice(blank);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_id_wins_whatever_the_line_ends() {
        let session = SessionId::parse("s").unwrap();
        let id = TaggedId::of(&session, &RunId::parse("r").unwrap(), Offset::new(7, 3));
        for block in ["data: x\n\n", "data: x\r\n\r\n", "data: x\r\r", "id: theirs\ndata: x\n\n", "data: x\n\r\n"] {
            let mut decoder = Decoder::new(1 << 10);
            decoder.feed(&with_id(&Bytes::copy_from_slice(block.as_bytes()), &id));
            let events: Vec<_> = std::iter::from_fn(|| decoder.next())
                .filter_map(|frame| match frame {
                    Frame::Event { event, .. } => Some((event.data.to_string(), event.id.map(|id| id.to_string()))),
                    _ => None,
                })
                .collect();
            assert_eq!(events, [("x".to_owned(), Some("ss1.s.r.7-3".to_owned()))], "{block:?}");
        }
    }
}
