//! Reading: pages, places, and what is known of sessions and runs. All on one snapshot each.

use std::sync::Arc;
use std::time::Duration;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable as _};

use super::entry;
use super::error::Fault;
use super::sessions::Known;
use super::state::{RunRow, SessionState};
use super::tables::{ENTRIES, RUNS, SESSIONS, Standing, TOMBS, offset_at, standing};
use super::tomb::{Tomb, TombReason};
use crate::log::{
    Bounds, Gap, GapReason, Page, PageLimits, Place, Read, Retention, RunInfo, SessionBounds, SessionRow,
};
use crate::session::{Entry, Offset, RunId, SessionId};

/// How much older than a cursor of a lost branch an entry must be for the reader to keep it.
const KEPT_OF_LOST_BRANCH_MS: u64 = 60_000;

/// A snapshot at a time.
pub(super) struct Snapshot<'t> {
    pub(super) read: &'t ReadTransaction,
    pub(super) retention: Retention,
    pub(super) now_ms: u64,
}

type Entries = ReadOnlyTable<(u64, u64), &'static [u8]>;

impl Snapshot<'_> {
    pub(super) fn page(&self, session: &SessionId, after: Offset, limits: PageLimits) -> Result<Read, Fault> {
        let state = match self.session(session)? {
            Known::Live(state) => state,
            // Whoever has all of it has missed nothing.
            Known::Gone(Tomb { reason: TombReason::Expired, last, .. }) if last == after => {
                return Ok(Read::Page(Page { entries: Vec::new(), tail: last }));
            }
            Known::Gone(Tomb { reason: TombReason::Expired, last, .. }) => {
                let lost = last.seq.saturating_sub(after.seq);
                return Ok(Read::Gap(Gap { from: after, to: last, lost, reason: GapReason::Expired }));
            }
            Known::Gone(_) | Known::Never => return Ok(Read::NotFound),
        };
        let entries = self.read.open_table(ENTRIES)?;
        match standing(&entries, &state, after)? {
            Standing::Exact => page(&entries, &state, after, limits).map(Read::Page),
            Standing::Trimmed => {
                let lost = state.trimmed.seq - after.seq;
                Ok(Read::Gap(Gap { from: after, to: state.trimmed, lost, reason: GapReason::Trimmed }))
            }
            Standing::Stranger => {
                let to = kept_of_lost_branch(&entries, &state, after)?;
                let lost = after.seq.saturating_sub(to.seq);
                Ok(Read::Gap(Gap { from: after, to, lost, reason: GapReason::RolledBack }))
            }
        }
    }

    pub(super) fn locate(&self, session: &SessionId, place: Place) -> Result<Option<Offset>, Fault> {
        let Known::Live(state) = self.session(session)? else { return Ok(None) };
        let entries = self.read.open_table(ENTRIES)?;
        let cursor = match place {
            Place::End => state.tail,
            Place::Last(n) => offset_at(&entries, &state, state.tail.seq - n.min(state.entries()))?,
            Place::Since(ms) => last_before(&entries, &state, state.tail.seq, ms)?,
        };
        Ok(Some(cursor))
    }

    pub(super) fn bounds(&self, session: &SessionId) -> Result<Bounds, Fault> {
        let state = match self.session(session)? {
            Known::Live(state) => state,
            Known::Gone(Tomb { reason: TombReason::Erased, .. }) => return Ok(Bounds::Erased),
            Known::Gone(tomb) => return Ok(Bounds::Expired { last: tomb.last }),
            Known::Never => return Ok(Bounds::NotFound),
        };
        let expires_in = if state.active.is_empty() {
            Duration::from_millis(state.expires_ms(&self.retention).saturating_sub(self.now_ms))
        } else {
            self.retention.ttl
        };
        Ok(Bounds::Live(SessionBounds {
            trimmed: state.trimmed,
            tail: state.tail,
            entries: state.entries(),
            bytes: state.bytes,
            created_ms: state.created_ms,
            expires_in: expires_in.min(self.retention.ttl),
            active: state.active.iter().map(|run| run.info()).collect(),
            newest_run: state.newest_run,
        }))
    }

    pub(super) fn entry(&self, session: &SessionId, offset: Offset) -> Result<Option<Arc<Entry>>, Fault> {
        let Known::Live(state) = self.session(session)? else { return Ok(None) };
        let entries = self.read.open_table(ENTRIES)?;
        let Some(row) = entries.get((state.number, offset.seq))? else { return Ok(None) };
        let entry = entry::decode(offset.seq, row.value())?;
        Ok((entry.offset == offset).then(|| Arc::new(entry)))
    }

    pub(super) fn run(&self, session: &SessionId, run: &RunId) -> Result<Option<RunInfo>, Fault> {
        Ok(self.find_run(run)?.filter(|(of, _)| of == session).map(|(_, info)| info))
    }

    pub(super) fn session_of(&self, run: &RunId) -> Result<Option<SessionId>, Fault> {
        Ok(self.find_run(run)?.map(|(session, _)| session))
    }

    pub(super) fn sessions(&self, limit: usize) -> Result<Vec<SessionRow>, Fault> {
        let mut rows = Vec::new();
        for row in self.read.open_table(SESSIONS)?.iter()? {
            if rows.len() >= limit {
                break;
            }
            let (session, row) = row?;
            let state = SessionState::decode(row.value())?;
            if !state.has_expired(&self.retention, self.now_ms) {
                let session = SessionId::from_store(session.value()).map_err(|_| Fault::Damaged("session"))?;
                rows.push(SessionRow { session, tail: state.tail, active: state.active.len() });
            }
        }
        Ok(rows)
    }

    pub(super) fn session(&self, session: &SessionId) -> Result<Known<SessionState>, Fault> {
        if let Some(row) = self.read.open_table(SESSIONS)?.get(session.as_str())? {
            let state = SessionState::decode(row.value())?;
            if state.has_expired(&self.retention, self.now_ms) {
                let (last, reason) = (state.tail, TombReason::Expired);
                return Ok(Known::Gone(Tomb { last, buried_ms: self.now_ms, reason }));
            }
            return Ok(Known::Live(state));
        }
        let tomb = self.read.open_table(TOMBS)?.get(session.as_str())?;
        Ok(match tomb {
            Some(row) => Known::Gone(Tomb::decode(row.value())?),
            None => Known::Never,
        })
    }

    fn find_run(&self, run: &RunId) -> Result<Option<(SessionId, RunInfo)>, Fault> {
        let Some(row) = self.read.open_table(RUNS)?.get(run.as_str())? else { return Ok(None) };
        let row = RunRow::decode(row.value())?;
        let Known::Live(state) = self.session(&row.session)? else { return Ok(None) };
        if state.number != row.number {
            return Ok(None);
        }
        let run = row.ended.or_else(|| state.active_run(run).map(|at| state.active[at].clone()));
        Ok(run.map(|run| (row.session, run.info())))
    }
}

fn page(entries: &Entries, state: &SessionState, after: Offset, limits: PageLimits) -> Result<Page, Fault> {
    let mut page = Page { entries: Vec::new(), tail: state.tail };
    let mut bytes = 0;
    let mut seq = after.seq;
    for row in entries.range((state.number, after.seq + 1)..=(state.number, state.tail.seq))? {
        let (key, value) = row?;
        seq += 1;
        if key.value().1 != seq {
            return Err(Fault::Damaged("log"));
        }
        let entry = entry::decode(seq, value.value())?;
        bytes += entry.record.size();
        if !page.entries.is_empty() && bytes > limits.bytes {
            break;
        }
        page.entries.push(Arc::new(entry));
        if page.entries.len() >= limits.entries {
            break;
        }
    }
    if page.entries.is_empty() && after != state.tail {
        return Err(Fault::Damaged("log"));
    }
    Ok(page)
}

/// What a reader may keep whose cursor is of another branch: entries older than the branch can be.
/// Where the branches parted is not recorded here, because only a restored backup can bring it about.
fn kept_of_lost_branch(entries: &Entries, state: &SessionState, cursor: Offset) -> Result<Offset, Fault> {
    let newest = state.tail.seq.min(cursor.seq.saturating_sub(1));
    if newest <= state.trimmed.seq {
        return Ok(state.trimmed);
    }
    last_before(entries, state, newest, cursor.ms.saturating_sub(KEPT_OF_LOST_BRANCH_MS))
}

/// The last entry before `ms` among those up to `newest`, or the last one trimmed: `ms` never
/// decreases, so it is found by halving.
fn last_before(entries: &Entries, state: &SessionState, newest: u64, ms: u64) -> Result<Offset, Fault> {
    let (mut before, mut from) = (state.trimmed.seq, newest + 1);
    while before + 1 < from {
        let middle = before + (from - before) / 2;
        if offset_at(entries, state, middle)?.ms < ms {
            before = middle;
        } else {
            from = middle;
        }
    }
    offset_at(entries, state, before)
}
