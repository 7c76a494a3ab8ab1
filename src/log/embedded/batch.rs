//! One transaction: the operations that change the log, in the order in which they came.
//!
//! Everything is decided from what the transaction sees, so that a batch may be thrown away and
//! applied again. Nothing here commits, answers or publishes.

use bytestring::ByteString;
use redb::{ReadableTable, ReadableTableMetadata as _, WriteTransaction};

use super::control::run_name;
use super::entry;
use super::error::Fault;
use super::followers::Pushes;
use super::queue::mark_next;
use super::retention;
use super::sessions::{Known, Sessions};
use super::state::{Producer, Run, RunRow, SessionState};
use super::tables::{Standing, Tables, standing};
use super::tomb::TombReason;
use super::write::{end_run, remember_one_more_producer, write};
use crate::log::{
    Append, Appended, Claim, Closed, Fence, OpenRun, Opened, Push, Retention, RunFlags, RunTally, TakenOver, Takeover,
    Writer,
};
use crate::session::{Offset, Record, RunId, RunState, SessionId, Terminal};

/// A transaction under way.
pub(super) struct Batch<'t> {
    pub(super) tables: Tables<'t>,
    pub(super) sessions: Sessions,
    pub(super) now_ms: u64,
    pub(super) retention: Retention,
    /// Whether there is anything to commit.
    pub(super) changed: bool,
    pushes: Pushes,
}

/// What a batch did, once it is committed.
pub(super) struct Effects {
    /// What followers hear.
    pub(super) pushes: Pushes,
    /// By how much the footprint of all sessions has changed.
    pub(super) footprint: i64,
    /// Whether there is garbage left to remove.
    pub(super) garbage: bool,
}

impl<'t> Batch<'t> {
    /// A batch of operations that all happen at `now_ms`.
    pub(super) fn begin(transaction: &'t WriteTransaction, retention: Retention, now_ms: u64) -> Result<Self, Fault> {
        let tables = Tables::open(transaction)?;
        let sessions = Sessions::new(retention, now_ms);
        Ok(Batch { tables, sessions, now_ms, retention, changed: false, pushes: Vec::new() })
    }

    /// Writes what the batch kept in memory; what is left is to commit.
    pub(super) fn finish(mut self) -> Result<Effects, Fault> {
        let garbage = !self.tables.garbage.is_empty()?;
        let footprint = self.sessions.store(&mut self.tables)?;
        Ok(Effects { pushes: self.pushes, footprint, garbage })
    }

    pub(super) fn open_run(&mut self, open: &OpenRun) -> Result<Opened, Fault> {
        if self.tables.unborn.get(open.run.as_str())?.is_some() {
            return Ok(Opened::Closed(Closed::Unknown));
        }
        if let Some(row) = self.run_row(&open.run)?
            && let Known::Live(state) = self.sessions.load(&mut self.tables, &row.session)?
            && state.number == row.number
        {
            return Ok(match (row.ended, state.active_run(&open.run)) {
                _ if row.session != open.session => Opened::Fenced,
                (Some(Run { ended: Some((offset, state)), .. }), _) => {
                    Opened::Closed(Closed::Terminal { offset, state })
                }
                (_, Some(at)) if state.active[at].fence == first_fence(&open.nonce) => {
                    let run = &state.active[at];
                    Opened::Open { started: run.started, flags: run.flags() }
                }
                _ => Opened::Fenced,
            });
        }
        if self.remembered(&open.session, &run_name(&open.run))?.is_some() {
            return Ok(Opened::Closed(Closed::Unknown));
        }
        if let Some(answer) = self.hold_back(open)? {
            return Ok(answer);
        }
        let number = self.sessions.load_or_create(&mut self.tables, &open.session)?.number;
        let row = RunRow { session: open.session.clone(), number, ended: None };
        self.tables.runs.insert(open.run.as_str(), row.encode().as_slice())?;
        let mut run = Run {
            id: open.run.clone(),
            owner: open.owner.clone(),
            fence: first_fence(&open.nonce),
            n: open.records.len() as u64,
            last: Offset::ZERO,
            started: Offset::ZERO,
            ended: None,
            parent: open.parent.clone(),
            key: open.key.clone(),
            route: open.route.clone(),
            cancel: None,
        };
        self.claim_key(&open.session, number, &mut run)?;
        let state = self.sessions.load_or_create(&mut self.tables, &open.session)?;
        state.newest_run = Some(open.run.clone());
        let push = write(&mut self.tables, state, &open.records, &self.retention, self.now_ms)?;
        let (started, flags) = (state.tail, run.flags());
        (run.last, run.started) = (started, started);
        state.active.push(run);
        self.announce(&open.session, push);
        Ok(Opened::Open { started, flags })
    }

    pub(super) fn append(&mut self, append: &Append) -> Result<Appended, Fault> {
        if append.first_n == 0 {
            // Entries are numbered from 1; a caller that is wrong must not stop the writer.
            return Ok(Appended::Gap { expected: 1 });
        }
        match &append.writer {
            Writer::Run { run, fence } => self.append_to_run(append, run, fence),
            Writer::Producer { id, epoch } => self.append_of_producer(append, id, *epoch),
        }
    }

    fn append_to_run(&mut self, append: &Append, id: &RunId, fence: &Fence) -> Result<Appended, Fault> {
        let row = self.run_row(id)?;
        let state = match self.sessions.load(&mut self.tables, &append.session)? {
            Known::Live(state) => state,
            Known::Gone(tomb) => return Ok(Appended::Closed(tomb.closed())),
            Known::Never => return Ok(Appended::Closed(Closed::Unknown)),
        };
        let active = state.active_run(id);
        let ended = row.filter(|row| row.number == state.number).and_then(|row| row.ended);
        let Some(run) = active.map(|at| &state.active[at]).or(ended.as_ref()) else {
            return Ok(Appended::Closed(Closed::Unknown));
        };
        let flags = run.flags();
        if last_n(append) <= run.n {
            return Ok(Appended::Duplicate { last: run.last, flags });
        }
        if run.fence != *fence {
            return Ok(Appended::Fenced);
        }
        let at = match (active, run.ended) {
            (Some(at), None) => at,
            (_, Some((offset, state))) => return Ok(Appended::Closed(Closed::Terminal { offset, state })),
            (None, None) => return Err(Fault::Damaged("run")),
        };
        let n = run.n;
        if append.first_n > n + 1 && !append.skips {
            return Ok(Appended::Gap { expected: n + 1 });
        }
        if is_stranger(&self.tables, state, append.seen)? {
            return Ok(Appended::RolledBack { tail: state.tail, n });
        }
        let new = new_of(append, n);
        let first = state.tail.next(self.now_ms);
        let push = write(&mut self.tables, state, new, &self.retention, self.now_ms)?;
        let last = state.tail;
        state.active[at].n = last_n(append);
        state.active[at].last = last;
        let mut next = None;
        if let Some(terminal) = terminal_of(new, id) {
            let Run { owner, parent, route, .. } = state.active[at].clone();
            end_run(&mut self.tables, &append.session, state, at, terminal)?;
            if parent.is_none() {
                next = mark_next(state, &route, &owner, self.now_ms);
            }
        }
        self.announce(&append.session, push);
        Ok(Appended::Stored { first, last, flags, next })
    }

    fn append_of_producer(&mut self, append: &Append, id: &str, epoch: u64) -> Result<Appended, Fault> {
        let known = match self.sessions.load(&mut self.tables, &append.session)? {
            Known::Live(state) => {
                let row = self.tables.producers.get((state.number, id))?;
                row.map(|row| Producer::decode(row.value())).transpose()?
            }
            Known::Gone(tomb) if append.first_n > 1 => return Ok(Appended::Closed(tomb.closed())),
            Known::Gone(_) | Known::Never => None,
        };
        if known.is_some_and(|known| epoch < known.epoch) {
            return Ok(Appended::Fenced);
        }
        // A newer epoch counts anew.
        let current = known.filter(|known| known.epoch == epoch);
        let (n, flags) = (current.map_or(0, |current| current.n), RunFlags::default());
        if let Some(current) = current
            && last_n(append) <= n
        {
            return Ok(Appended::Duplicate { last: current.last, flags });
        }
        if let Some(run) = append.records.first().and_then(|record| record.run.as_ref())
            && let Some(closed) = self.closed_to_producers(&append.session, run)?
        {
            return Ok(Appended::Closed(closed));
        }
        if append.first_n > n + 1 && !append.skips {
            return Ok(Appended::Gap { expected: n + 1 });
        }
        let state = self.sessions.load_or_create(&mut self.tables, &append.session)?;
        if is_stranger(&self.tables, state, append.seen)? {
            return Ok(Appended::RolledBack { tail: state.tail, n });
        }
        let new = new_of(append, n);
        let first = state.tail.next(self.now_ms);
        let push = write(&mut self.tables, state, new, &self.retention, self.now_ms)?;
        let last = state.tail;
        let producer = Producer { epoch, n: last_n(append), last };
        self.tables.producers.insert((state.number, id), producer.encode().as_slice())?;
        if known.is_none() {
            remember_one_more_producer(&mut self.tables, state)?;
        }
        self.announce(&append.session, push);
        Ok(Appended::Stored { first, last, flags, next: None })
    }

    /// Why a producer cannot write into this run, if it cannot: it is not active here.
    fn closed_to_producers(&mut self, session: &SessionId, run: &RunId) -> Result<Option<Closed>, Fault> {
        let row = self.run_row(run)?;
        let Known::Live(state) = self.sessions.load(&mut self.tables, session)? else {
            return Ok(Some(Closed::Unknown));
        };
        if state.active_run(run).is_some() {
            return Ok(None);
        }
        let ended = row.filter(|row| row.number == state.number).and_then(|row| row.ended?.ended);
        Ok(Some(ended.map_or(Closed::Unknown, |(offset, state)| Closed::Terminal { offset, state })))
    }

    pub(super) fn takeover(&mut self, takeover: &Takeover) -> Result<TakenOver, Fault> {
        let row = self.run_row(&takeover.run)?;
        let state = match self.sessions.load(&mut self.tables, &takeover.session)? {
            Known::Live(state) => state,
            Known::Gone(tomb) => {
                self.never_to_be_opened(&takeover.run)?;
                return Ok(TakenOver::Closed(tomb.closed()));
            }
            Known::Never => {
                self.never_to_be_opened(&takeover.run)?;
                return Ok(TakenOver::NeverStarted);
            }
        };
        let Some(at) = state.active_run(&takeover.run) else {
            let ended = row.filter(|row| row.number == state.number).and_then(|row| row.ended?.ended);
            if let Some((offset, state)) = ended {
                return Ok(TakenOver::AlreadyEnded { offset, state });
            }
            if state.queue.iter().any(|queued| queued.run == takeover.run) {
                return Ok(TakenOver::Queued);
            }
            self.never_to_be_opened(&takeover.run)?;
            return Ok(TakenOver::NeverStarted);
        };
        let fence = Fence { counter: state.active[at].fence.counter + 1, nonce: takeover.nonce.clone() };
        state.active[at].fence = fence;
        let Run { started, cancel, .. } = &state.active[at];
        let terminal = if cancel.is_some() { Terminal::Cancelled } else { Terminal::Interrupted };
        let took_ms = state.tail.next(self.now_ms).ms.saturating_sub(started.ms);
        let details = Takeover::whole_details(&takeover.details, took_ms, cancel.as_deref());
        let record = Record::run_state(takeover.run.clone(), RunState::Ended(terminal), details);
        let push = write(&mut self.tables, state, &[record], &self.retention, self.now_ms)?;
        let offset = state.tail;
        end_run(&mut self.tables, &takeover.session, state, at, terminal)?;
        self.announce(&takeover.session, push);
        Ok(TakenOver::Ended { offset, state: terminal })
    }

    /// What the log has of an active run.
    pub(super) fn tally(&mut self, session: &SessionId, run: &RunId) -> Result<RunTally, Fault> {
        let mut tally = RunTally::default();
        let Known::Live(state) = self.sessions.load(&mut self.tables, session)? else { return Ok(tally) };
        let Some(at) = state.active_run(run) else { return Ok(tally) };
        let first = (state.number, state.active[at].started.seq);
        for row in self.tables.entries.range(first..=(state.number, state.tail.seq))? {
            let (key, value) = row?;
            tally.add(run, &entry::decode(key.value().1, value.value())?.record);
        }
        Ok(tally)
    }

    pub(super) fn erase(&mut self, session: &SessionId) -> Result<bool, Fault> {
        let existed = match self.sessions.load(&mut self.tables, session)? {
            Known::Live(_) => {
                self.sessions.bury(&mut self.tables, session, TombReason::Erased)?;
                true
            }
            Known::Gone(tomb) if tomb.reason == TombReason::Expired => {
                self.sessions.bury(&mut self.tables, session, TombReason::Erased)?;
                false
            }
            Known::Gone(_) | Known::Never => return Ok(false),
        };
        self.forget_early_cancels(session)?;
        self.changed = true;
        self.pushes.push((session.clone(), Push::Check));
        Ok(existed)
    }

    pub(super) fn claim(&mut self, key: &str, value: &ByteString) -> Result<Claim, Fault> {
        if let Some(claim) = self.tables.claims.get(key)? {
            let (claimed_ms, winner) = claim.value();
            if !retention::claim_has_expired(&self.retention, claimed_ms, self.now_ms) {
                return Ok(if winner == &**value { Claim::Won } else { Claim::Taken(winner.into()) });
            }
        }
        self.tables.claims.insert(key, (self.now_ms, &**value))?;
        self.changed = true;
        Ok(Claim::Won)
    }

    pub(super) fn amend(&mut self, key: &str, from: &ByteString, to: Option<&ByteString>) -> Result<bool, Fault> {
        let known = self.tables.claims.get(key)?.and_then(|claim| {
            let (claimed_ms, value) = claim.value();
            let expired = retention::claim_has_expired(&self.retention, claimed_ms, self.now_ms);
            (!expired).then(|| ByteString::from(value))
        });
        if known.as_ref() != Some(from) {
            return Ok(known.as_ref() == to);
        }
        match to {
            Some(value) => self.tables.claims.insert(key, (self.now_ms, &**value))?,
            None => self.tables.claims.remove(key)?,
        };
        self.changed = true;
        Ok(true)
    }

    pub(super) fn run_row(&self, run: &RunId) -> Result<Option<RunRow>, Fault> {
        self.tables.runs.get(run.as_str())?.map(|row| RunRow::decode(row.value())).transpose()
    }

    fn never_to_be_opened(&mut self, run: &RunId) -> Result<(), Fault> {
        self.tables.unborn.insert(run.as_str(), self.now_ms)?;
        self.changed = true;
        Ok(())
    }

    pub(super) fn announce(&mut self, session: &SessionId, push: Push) {
        self.changed = true;
        self.pushes.push((session.clone(), push));
    }
}

fn first_fence(nonce: &ByteString) -> Fence {
    Fence { counter: 1, nonce: nonce.clone() }
}

/// The number of the last entry of an append.
fn last_n(append: &Append) -> u64 {
    append.first_n.saturating_add(append.records.len() as u64) - 1
}

/// What an append adds where the log has the writer's first `n` entries.
fn new_of(append: &Append, n: u64) -> &[Record] {
    &append.records[(n + 1).saturating_sub(append.first_n) as usize..]
}

/// Whether the caller has seen what the log does not have.
fn is_stranger(tables: &Tables<'_>, state: &SessionState, seen: Option<Offset>) -> Result<bool, Fault> {
    match seen {
        None | Some(Offset::ZERO) => Ok(false),
        Some(seen) => Ok(standing(&tables.entries, state, seen)? == Standing::Stranger),
    }
}

/// How these entries of a run end it, if they do.
fn terminal_of(records: &[Record], run: &RunId) -> Option<Terminal> {
    let (last, before) = records.split_last()?;
    let ends =
        |record: &Record| record.state().and_then(RunState::terminal).filter(|_| record.run.as_ref() == Some(run));
    debug_assert!(before.iter().all(|record| ends(record).is_none()), "a terminal is the last of its append");
    ends(last)
}
