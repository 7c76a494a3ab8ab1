//! The owner of a run: reads the upstream's answer to its end, appends it, releases the direct
//! caller's bytes, writes exactly one terminal. This file has its state and its one loop; what the
//! upstream says, what the log says and what the direct caller gets stand in files of their own.

mod serving;
mod storing;
mod upstream;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http_body_util::BodyExt;
use sha2::Sha256;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::log::{Append, Fence, OpenRun, Writer};
use crate::run::Runs;
use crate::run::books::Books;
use crate::run::caller::Caller;
use crate::run::commit::{self, Committed};
use crate::run::runs::Life;
use crate::server::Body;
use crate::session::{Offset, Record, RunId, SessionId, Terminal};
use crate::sse::Decoder;

/// Bytes of a run that may wait for the store beside one event of the largest size; then the
/// upstream is not read on.
const WAITING_BYTES: usize = 4 << 20;

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
    /// The upstream's status, for the terminal.
    pub status: u16,
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
            let alarm = self.next_alarm(flight.is_some(), reading);
            let alarm = async {
                match alarm {
                    Some((at, alarm)) => {
                        sleep_until(at).await;
                        alarm
                    }
                    None => std::future::pending().await,
                }
            };
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
                alarm = alarm => self.alarmed(alarm),
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

    /// What happens next if nothing else does, and when. A run that has ended and only waits for
    /// the store has no alarm left: one that is over and cannot be acted on would ring for ever.
    fn next_alarm(&self, in_flight: bool, reading: bool) -> Option<(Instant, Alarm)> {
        let settings = &self.runs.settings;
        let mut alarm = None;
        let mut also = |enabled: bool, at: Instant, what: Alarm| {
            if enabled && alarm.is_none_or(|(first, _)| at < first) {
                alarm = Some((at, what));
            }
        };
        also(!self.ended, self.began + settings.run_duration, Alarm::Duration);
        // Only where bytes or their end wait: what we write ourselves (which is also how a slow store is told) makes
        // nobody wait.
        let waits = self.caller.is_some() && (self.books.holds() || self.ended);
        let hurry = self.durability == Durability::Stored && waits && self.spec.ids == Tagging::Off;
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
            Alarm::Duration => Some(End::broken(Terminal::Cancelled, "duration")),
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
        // A run of which nothing waits for the store may always go on: all it can hold is an event
        // that is not complete, and only reading on frees that. Else such runs wait for each other.
        self.books.bytes() < room && (all < self.runs.settings.pending_bytes || self.books.bytes() == 0)
    }

    /// Keeps the instance's total of bytes that wait.
    fn account(&mut self) {
        let now = (self.books.bytes() + self.decoder.buffered()) as u64;
        self.runs.pending.fetch_add(now, Ordering::AcqRel);
        self.runs.pending.fetch_sub(self.accounted, Ordering::AcqRel);
        self.accounted = now;
    }
}

impl End {
    fn broken(state: Terminal, reason: &'static str) -> Self {
        End { state, reason, caller: CallerEnd::Broken(reason), tail: Bytes::new() }
    }
}

#[cfg(test)]
mod outages;
