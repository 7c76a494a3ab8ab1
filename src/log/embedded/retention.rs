//! What is not kept: entries beyond a session's limits, sessions that expired, and what is left of
//! those that are gone.

use std::ops::Bound;

use redb::{AccessGuard, ReadTransaction, ReadableTable, TableDefinition, Value};

use super::batch::Batch;
use super::control::EarlyCancel;
use super::entry;
use super::error::Fault;
use super::sessions::Known;
use super::state::{RunRow, SessionState};
use super::tables::{CANCELS, CLAIMS, SESSIONS, TOMBS, Tables, UNBORN};
use super::tomb::{Tomb, TombReason};
use crate::log::Retention;
use crate::session::SessionId;

/// A session is trimmed once it is this much over its limit, so that not every append does it.
const ENTRIES_OVER: u64 = 256;
/// The same, in bytes.
const BYTES_OVER: u64 = 1 << 20;

/// How long it is remembered that a session, or a run that was never opened, is gone: 30 days.
const REMEMBERED_MS: u64 = 30 * 24 * 3600 * 1000;

/// Rows of a table that one sweep looks at, and entries of garbage that one batch removes: what
/// bounds the time that appends wait for them.
const SLICE: usize = 1000;

/// How far below its limit a store that was too large is brought, in percent, so that the oldest
/// sessions are not searched for at once again.
const ROOM: u64 = 90;

/// Whether a claim of `claimed_ms` is free again.
pub(super) fn claim_has_expired(retention: &Retention, claimed_ms: u64, now_ms: u64) -> bool {
    let ttl = u64::try_from(retention.ttl.as_millis()).unwrap_or(u64::MAX);
    now_ms >= claimed_ms.saturating_add(ttl)
}

/// Removes the oldest entries of a session that is over its limits. The newest always stays; runs
/// are forgotten with their terminals, active ones never.
pub(super) fn trim(tables: &mut Tables<'_>, state: &mut SessionState, retention: &Retention) -> Result<(), Fault> {
    let too_many = state.entries() >= retention.max_entries.saturating_add(ENTRIES_OVER);
    let too_large = state.bytes >= retention.max_bytes.saturating_add(BYTES_OVER);
    if !too_many && !too_large {
        return Ok(());
    }
    while state.entries() > 1 && (state.entries() > retention.max_entries || state.bytes > retention.max_bytes) {
        let seq = state.trimmed.seq + 1;
        let removed = {
            let value = tables.entries.remove((state.number, seq))?.ok_or(Fault::Damaged("log"))?;
            entry::decode(seq, value.value())?
        };
        state.trimmed = removed.offset;
        state.bytes = state.bytes.saturating_sub(removed.record.size() as u64);
        if let Some((run, _)) = entry::ended_run(&removed) {
            forget_run(tables, run.as_str(), state.number)?;
        }
    }
    Ok(())
}

/// What a sweep has found.
#[derive(Default)]
pub(super) struct Findings {
    expired: Vec<SessionId>,
    /// What goes to make room, the oldest first.
    evicted: Vec<SessionId>,
    tombs: Vec<String>,
    unborn: Vec<String>,
    claims: Vec<String>,
    cancels: Vec<String>,
}

/// Looks for what is to be removed: a slice of every table each time, so that its cost is bounded.
/// Nothing depends on its being early: what has expired is gone for everybody at once.
#[derive(Default)]
pub(super) struct Sweeper {
    sessions: Option<String>,
    tombs: Option<String>,
    unborn: Option<String>,
    claims: Option<String>,
    cancels: Option<String>,
}

impl Sweeper {
    /// Looks at the next slice. `footprint`: of all sessions; `limit`: what it may be.
    pub(super) fn look(
        &mut self,
        read: &ReadTransaction,
        retention: &Retention,
        now_ms: u64,
        footprint: u64,
        limit: u64,
    ) -> Result<Findings, Fault> {
        let mut found = Findings::default();
        slice(read, SESSIONS, &mut self.sessions, |session, row| {
            let expired = SessionState::decode(row.value()).is_ok_and(|state| state.has_expired(retention, now_ms));
            if expired && let Ok(session) = SessionId::from_store(session) {
                found.expired.push(session);
            }
        })?;
        slice(read, TOMBS, &mut self.tombs, |session, row| {
            if Tomb::decode(row.value()).is_ok_and(|tomb| is_forgotten(tomb.buried_ms, now_ms)) {
                found.tombs.push(session.to_owned());
            }
        })?;
        slice(read, UNBORN, &mut self.unborn, |run, row| {
            if is_forgotten(row.value(), now_ms) {
                found.unborn.push(run.to_owned());
            }
        })?;
        slice(read, CLAIMS, &mut self.claims, |key, row| {
            if claim_has_expired(retention, row.value().0, now_ms) {
                found.claims.push(key.to_owned());
            }
        })?;
        slice(read, CANCELS, &mut self.cancels, |key, row| {
            if EarlyCancel::decode(row.value()).map_or(true, |cancelled| now_ms >= cancelled.until_ms) {
                found.cancels.push(key.to_owned());
            }
        })?;
        if footprint > limit {
            found.evicted = oldest_ended(read, footprint - limit / 100 * ROOM)?;
        }
        Ok(found)
    }
}

impl Findings {
    pub(super) fn is_empty(&self) -> bool {
        let Findings { expired, evicted, tombs, unborn, claims, cancels } = self;
        let sessions = expired.is_empty() && evicted.is_empty() && tombs.is_empty();
        sessions && unborn.is_empty() && claims.is_empty() && cancels.is_empty()
    }
}

impl Batch<'_> {
    /// Removes what a sweep has found.
    pub(super) fn remove(&mut self, found: &Findings) -> Result<(), Fault> {
        for session in &found.expired {
            // Loading buries what has expired.
            self.sessions.load(&mut self.tables, session)?;
        }
        for session in &found.evicted {
            if let Known::Live(state) = self.sessions.load(&mut self.tables, session)?
                && state.is_idle()
            {
                self.sessions.bury(&mut self.tables, session, TombReason::Expired)?;
            }
        }
        for session in &found.tombs {
            self.tables.tombs.remove(session.as_str())?;
        }
        for run in &found.unborn {
            self.tables.unborn.remove(run.as_str())?;
        }
        for key in &found.claims {
            self.tables.claims.remove(key.as_str())?;
        }
        for key in &found.cancels {
            self.tables.cancels.remove(key.as_str())?;
        }
        Ok(())
    }

    /// Removes a slice of the entries of sessions that are gone.
    pub(super) fn remove_garbage(&mut self) -> Result<(), Fault> {
        let Some(number) = self.tables.garbage.first()?.map(|(number, _)| number.value()) else { return Ok(()) };
        self.changed = true;
        let mut seqs = Vec::with_capacity(SLICE);
        for row in self.tables.entries.range((number, 0)..(number + 1, 0))?.take(SLICE) {
            seqs.push(row?.0.value().1);
        }
        for seq in &seqs {
            let ended = {
                let value = self.tables.entries.remove((number, *seq))?;
                let entry = value.and_then(|value| entry::decode(*seq, value.value()).ok());
                entry.as_ref().and_then(entry::ended_run).map(|(run, _)| run.clone())
            };
            if let Some(run) = ended {
                forget_run(&mut self.tables, run.as_str(), number)?;
            }
        }
        if seqs.len() < SLICE {
            self.tables.producers.retain_in((number, "")..(number + 1, ""), |_, _| false)?;
            self.tables.keys.retain_in((number, "")..(number + 1, ""), |_, _| false)?;
            self.tables.items.retain_in((number, "")..(number + 1, ""), |_, _| false)?;
            self.tables.cursors.retain_in((number, "")..(number + 1, ""), |_, _| false)?;
            self.tables.garbage.remove(number)?;
        }
        Ok(())
    }
}

/// Removes what is known of a run that ended in the session with this number; also what cannot be
/// read, so that one damaged row does not keep the rest for ever.
fn forget_run(tables: &mut Tables<'_>, run: &str, number: u64) -> Result<(), Fault> {
    let row = tables.runs.get(run)?.map(|row| RunRow::decode(row.value()));
    let key = match row {
        Some(Ok(row)) if row.number == number => row.ended.and_then(|run| run.key),
        Some(Err(_)) => None,
        Some(Ok(_)) | None => return Ok(()),
    };
    tables.runs.remove(run)?;
    if let Some(key) = key {
        // The key may have come to another run since.
        let own = tables.keys.get((number, &*key))?.is_some_and(|of| of.value() == run);
        if own {
            tables.keys.remove((number, &*key))?;
        }
    }
    Ok(())
}

fn is_forgotten(since_ms: u64, now_ms: u64) -> bool {
    now_ms >= since_ms.saturating_add(REMEMBERED_MS)
}

/// The sessions in which nothing is active or waits that were written to least recently, enough of them to free
/// `excess`.
fn oldest_ended(read: &ReadTransaction, excess: u64) -> Result<Vec<SessionId>, Fault> {
    let mut ended = Vec::new();
    for row in read.open_table(SESSIONS)?.iter()? {
        let (session, row) = row?;
        if let (Ok(session), Ok(state)) = (SessionId::from_store(session.value()), SessionState::decode(row.value()))
            && state.is_idle()
        {
            ended.push((state.written_ms, state.footprint(), session));
        }
    }
    ended.sort_unstable();
    let mut freed = 0;
    let enough = ended.into_iter().take_while(|(_, footprint, _)| {
        let more = freed < excess;
        freed += footprint;
        more
    });
    Ok(enough.map(|(_, _, session)| session).collect())
}

/// Shows the rows after `from`, at most a slice of them, and remembers where it stopped.
fn slice<V: Value + 'static>(
    read: &ReadTransaction,
    table: TableDefinition<'_, &'static str, V>,
    from: &mut Option<String>,
    mut see: impl FnMut(&str, &AccessGuard<'_, V>),
) -> Result<(), Fault> {
    let table = read.open_table(table)?;
    let start = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut seen = 0;
    let mut last = None;
    for row in table.range::<&str>((start, Bound::Unbounded))?.take(SLICE) {
        let (key, value) = row?;
        see(key.value(), &value);
        seen += 1;
        last = Some(key.value().to_owned());
    }
    *from = last.filter(|_| seen == SLICE);
    Ok(())
}
