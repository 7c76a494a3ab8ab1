//! The owner of a run: reads the upstream's answer to its end, appends it, releases the direct
//! caller's bytes, writes exactly one terminal. This file has its state and its one loop; what the
//! upstream says, what the log says and what the direct caller gets stand in files of their own.

mod alarms;
mod end;
mod ended;
mod feed;
mod judging;
mod serving;
mod spec;
mod storing;
mod upstream;
mod whole;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::dialect::{Observed, Observer};
use crate::framing::Decoder;
use crate::log::{Append, Fence, Lost, OnBusy, OpenRun, Opened, Writer};
use crate::run::books::{Batch, Books};
use crate::run::call::Found;
use crate::run::caller::Caller;
use crate::run::commit::{self, Committed};
use crate::run::orders::{Order, Orders};
use crate::run::runs::Life;
use crate::run::{Dropped, Runs};
use crate::session::{InstanceId, Kind, Offset, Record, RunId, SessionId, Terminal};

/// Bytes of a run that may wait for the store beside one event of the largest size; then the
/// upstream is not read on.
const WAITING_BYTES: usize = 4 << 20;

/// Bytes of what it has appended that the owner of one run keeps for the case that the store loses it.
const RETAINED_BYTES: usize = 4 << 20;

/// The same for all runs of an instance, those that have ended included.
const ALL_RETAINED_BYTES: usize = 64 << 20;

/// The first pause before an append to a log that goes back again and again; each is longer by as much.
const GOES_BACK_PAUSE: Duration = Duration::from_millis(50);

use end::{CallerEnd, End};
pub(super) use ended::Ended;
pub(super) use feed::Feed;
use feed::Heard;
pub use spec::{Ending, RunSpec, Tagging};
use whole::Whole;

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
    opened: Option<oneshot::Sender<Opened>>,
    decoder: Decoder,
    books: Books,
    durability: Durability,
    stored_n: u64,
    seen: Option<Offset>,
    oversize: Option<Dropped>,
    /// How many events were too large for the log.
    dropped: u64,
    stalled: bool,
    last_event_failed: bool,
    /// Looks at the events; `None`: it has said what it saw.
    observer: Option<Observer>,
    observed: Observed,
    events: u64,
    bytes: u64,
    began: Instant,
    heard: Instant,
    flight_began: Instant,
    accounted: u64,
    accounted_retained: usize,
    /// When the log answered last.
    answered_at: Instant,
    /// The run is to be opened, for the first time or because the log has lost it.
    opens: bool,
    /// The log is to be asked whether it has the newest entry, by appending it as it was.
    probes: bool,
    /// It is to be asked whether somebody wants the run to end, and whether it has what it had.
    looks: bool,
    /// The log may have lost something: the run is to be on its instance's list.
    relists: bool,
    /// How often in succession the log has said that it went back.
    went_back: u32,
    /// Where the terminal stands that this owner wrote.
    terminal_at: Option<Offset>,
    /// The newest doubt when the newest call began.
    sure_at: u64,
    found: Found,
    /// An answer that is no stream, as far as it has come.
    whole: Option<Whole>,
    /// The log has opened the run.
    open: bool,
    /// The log has not, and never will: nothing was begun.
    refused: bool,
    /// The terminal may have made the route free for a queued run.
    frees: bool,
    /// The terminal is in the books; the upstream is closed.
    ended: bool,
    /// The store was away for too long once.
    gave_up: bool,
    /// How the caller's body ends, once it may.
    caller_end: Option<CallerEnd>,
}

impl Owner {
    pub(super) fn new(
        runs: Arc<Runs>,
        spec: RunSpec,
        found: Found,
        caller: Option<Caller>,
        opened: oneshot::Sender<Opened>,
    ) -> Self {
        let fence = Fence { counter: 1, nonce: format!("{:032x}", crate::random::u128()).into() };
        Owner {
            decoder: Decoder::new(spec.format.framing, runs.settings.event_bytes),
            books: Books::new(spec.opening.len() as u64),
            durability: Durability::Stored,
            stored_n: 0,
            seen: None,
            oversize: None,
            dropped: 0,
            stalled: false,
            last_event_failed: false,
            observer: Some(Observer::new(runs.settings.dialects.clone(), spec.format.dialect.clone())),
            observed: Observed::default(),
            events: 0,
            bytes: 0,
            began: Instant::now(),
            heard: Instant::now(),
            flight_began: Instant::now(),
            accounted: 0,
            accounted_retained: 0,
            answered_at: Instant::now(),
            opens: true,
            probes: false,
            looks: false,
            relists: false,
            went_back: 0,
            terminal_at: None,
            sure_at: 0,
            found,
            whole: None,
            open: false,
            refused: false,
            frees: false,
            ended: false,
            gave_up: false,
            caller_end: None,
            caller,
            opened: Some(opened),
            fence,
            life: runs.life(),
            runs,
            spec,
        }
    }

    /// The run's session, its id, and its owner's.
    pub(super) fn names(&self) -> (SessionId, RunId, InstanceId) {
        (self.spec.session.clone(), self.spec.run.clone(), self.life.instance.clone())
    }

    /// Drives the run to its end.
    pub(super) async fn drive(mut self, mut feed: Feed, mut orders: Orders) {
        let mut flight: Option<BoxFuture<'static, Committed>> = None;
        let (runs, interrupt) = (self.runs.clone(), self.life.interrupt.clone());
        let mut doubts = runs.doubts.subscribe();
        loop {
            if flight.is_none() {
                flight = self.next_flight();
                if flight.is_none() && (self.ended || self.refused) {
                    break;
                }
                self.flight_began = Instant::now();
                self.sure_at = runs.doubts.count();
            }
            self.account();
            let reading = feed.is_open() && self.may_read();
            if !reading {
                // While we do not read, silence is not the upstream's.
                self.heard = Instant::now();
            }
            let crowded = feed.is_open() && !reading;
            let alarm = self.next_alarm(flight.is_some(), reading, crowded);
            let alarm = async {
                match alarm {
                    Some((at, alarm)) => {
                        sleep_until(at).await;
                        alarm
                    }
                    None => std::future::pending().await,
                }
            };
            let heard = async {
                match reading {
                    true => feed.next().await,
                    false => std::future::pending().await,
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
                    self.committed(committed)
                }
                heard = heard => match heard {
                    Heard::Chunk(chunk) => self.chunk(chunk),
                    Heard::Head(Ok(answer)) => {
                        feed = Feed::Answering(self.answered(answer));
                        None
                    }
                    Heard::Head(Err(failed)) => Some(End::broken(Terminal::Failed, failed.reason)),
                },
                order = orders.next(), if !self.ended => match order {
                    Order::Cancel(by) => Some(End::cancelled(by)),
                    Order::Note(record) => {
                        self.note(record);
                        None
                    }
                    // Where it is us who leave, connections end by our doing.
                    Order::Abandoned if self.runs.is_leaving() => {
                        orders.go_on_without_callers();
                        None
                    }
                    Order::Abandoned => Some(End::broken(Terminal::Cancelled, "disconnect")),
                },
                alarm = alarm => self.alarmed(alarm),
                Ok(()) = doubts.changed() => {
                    (self.looks, self.relists) = (true, true);
                    None
                }
                () = interrupt.cancelled(), if !self.ended => Some(End::broken(Terminal::Interrupted, "shutdown")),
            };
            let unwanted = self.durability == Durability::Over && self.caller.is_none() && !self.ended;
            let end = end.or_else(|| unwanted.then(|| End::broken(Terminal::Interrupted, "not_kept")));
            if let Some(end) = end {
                // The upstream first: who reads the terminal may rely on it.
                if matches!(feed, Feed::Unasked(_)) {
                    // It knows nothing of the run that it could be told of.
                    self.spec.on_cancel = None;
                }
                feed = Feed::Closed;
                // What others have for the run is part of it.
                while let Some(record) = orders.last_note() {
                    self.note(record);
                }
                self.end(end);
            } else if self.open && !self.ended {
                feed = feed.ask();
            }
        }
        self.finish_caller();
        let ended = self.ended();
        self.release_memory();
        if let Some(ended) = ended {
            self.runs.remembered.remember(ended, self.sure_at);
        }
        if !self.frees || self.runs.hand_on(&self.spec.session).await {
            // The run has its terminal; whether it is still listed matters to nobody but the sweeper. Where
            // what waits could not be started it stays listed: whoever finds this instance gone starts it.
            let _ = self.runs.log.unlist(&self.life.instance, &self.spec.session, &self.spec.run).await;
        }
        // Not before: who drives this run here next lists it again.
        self.runs.driven.leave(&self.spec.run);
    }

    /// What to ask of the log next, if anything.
    fn next_flight(&mut self) -> Option<BoxFuture<'static, Committed>> {
        if std::mem::take(&mut self.opens) {
            return Some(self.open());
        }
        if let Some(append) = self.next_append() {
            self.probes = false;
            return Some(self.append(append));
        }
        if std::mem::take(&mut self.probes) {
            let (first_n, record) = match self.books.newest() {
                Some((n, record)) => (n, record.clone()),
                None => (self.spec.opening.len() as u64, self.spec.opening.last()?.clone()),
            };
            let append = self.append_of(first_n, vec![record]);
            return Some(self.append(append));
        }
        let keeps = self.durability != Durability::Over || self.terminal_at.is_some();
        if self.ended || !self.open || !keeps || !std::mem::take(&mut self.looks) {
            return None;
        }
        let relist = std::mem::take(&mut self.relists).then(|| self.life.instance.clone());
        let (session, run) = (self.spec.session.clone(), self.spec.run.clone());
        Some(Box::pin(commit::look(self.runs.log.clone(), session, run, self.seen, relist)))
    }

    fn open(&self) -> BoxFuture<'static, Committed> {
        let spec = &self.spec;
        let open = OpenRun {
            session: spec.session.clone(),
            run: spec.run.clone(),
            owner: self.life.instance.clone(),
            nonce: self.fence.nonce.clone(),
            records: spec.opening.clone(),
            parent: spec.parent.clone(),
            key: spec.key.clone(),
            route: spec.route.clone(),
            // One that was open has its place, whatever came to the route since.
            on_busy: if self.open { OnBusy::Again } else { spec.on_busy.clone() },
            subject: spec.subject.clone(),
        };
        let (runs, instance) = (&self.runs, self.life.instance.clone());
        Box::pin(commit::open(runs.log.clone(), runs.metrics.clone(), instance, open))
    }

    fn append(&self, append: Append) -> BoxFuture<'static, Committed> {
        // A store that goes back again and again is not to be asked in a circle without a pause.
        let after = GOES_BACK_PAUSE * self.went_back.saturating_sub(2).min(20);
        let (log, metrics, run) = (self.runs.log.clone(), self.runs.metrics.clone(), self.spec.run.clone());
        Box::pin(commit::append(log, metrics, run, append, after))
    }

    fn next_append(&mut self) -> Option<Append> {
        let (run, source) = (&self.spec.run, &self.spec.source);
        let say = |lost: Lost| {
            let data = json!({"code": "lost", "from_n": lost.from_n, "to_n": lost.to_n}).to_string().into();
            let (run, source) = (Some(run.clone()), source.clone());
            Record { kind: Kind::Status, run, source, event: None, id: None, data }
        };
        let Batch { first_n, records, skips } = self.books.take_batch(Instant::now(), say)?;
        Some(Append { skips, ..self.append_of(first_n, records) })
    }

    fn append_of(&self, first_n: u64, records: Vec<Record>) -> Append {
        Append {
            session: self.spec.session.clone(),
            writer: Writer::Run { run: self.spec.run.clone(), fence: self.fence.clone() },
            first_n,
            records,
            seen: self.seen,
            skips: false,
        }
    }

    /// Writes what others have for the run.
    fn note(&mut self, record: Record) {
        if self.durability != Durability::Over {
            self.books.record(record);
        }
    }

    /// Whether the upstream may be read on: its events have room to wait for the store.
    fn may_read(&self) -> bool {
        let room = WAITING_BYTES + self.runs.settings.event_bytes;
        let all = self.runs.pending.load(Ordering::Acquire);
        // Nothing more of it will wait.
        if self.durability == Durability::Over {
            return true;
        }
        // A run of which nothing waits for the store may always go on: all it can hold is an event
        // that is not complete, and only reading on frees that. Else such runs wait for each other.
        self.books.bytes() < room && (all < self.runs.settings.pending_bytes || self.books.bytes() == 0)
    }

    /// Keeps the instance's total of bytes that wait.
    fn account(&mut self) {
        let whole = self.whole.as_ref().map_or(0, Whole::held);
        let now = (self.books.bytes() + self.decoder.buffered() + whole) as u64;
        self.runs.pending.fetch_add(now, Ordering::AcqRel);
        self.runs.pending.fetch_sub(self.accounted, Ordering::AcqRel);
        self.accounted = now;
        self.account_retained();
    }

    /// The same for what was appended.
    fn account_retained(&mut self) {
        let now = self.books.retained_bytes();
        self.runs.retained.fetch_add(now, Ordering::AcqRel);
        self.runs.retained.fetch_sub(self.accounted_retained, Ordering::AcqRel);
        self.accounted_retained = now;
    }

    /// Lets go of what was appended, as far as it is too old or too much. Everything was acknowledged.
    fn let_go(&mut self) {
        self.books.retained().let_go(self.runs.doubts.horizon(), RETAINED_BYTES);
        self.account_retained();
        let all = || self.runs.retained.load(Ordering::Acquire) + self.runs.remembered.bytes();
        while all() > ALL_RETAINED_BYTES {
            if !self.runs.remembered.shed() {
                if !self.books.retained().let_go_oldest() {
                    return;
                }
                let bytes = self.books.retained_bytes();
                self.runs.retained.fetch_sub(self.accounted_retained - bytes, Ordering::AcqRel);
                self.accounted_retained = bytes;
            }
        }
    }

    fn release_memory(&mut self) {
        self.runs.pending.fetch_sub(std::mem::take(&mut self.accounted), Ordering::AcqRel);
        self.runs.retained.fetch_sub(std::mem::take(&mut self.accounted_retained), Ordering::AcqRel);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // An owner that breaks off by a defect must not take memory from the others for ever.
        self.release_memory();
    }
}

#[cfg(test)]
mod outages;
#[cfg(test)]
mod rollbacks;
