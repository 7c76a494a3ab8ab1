//! What every operation that writes entries does to a session.

use std::sync::Arc;

use redb::ReadableTable;

use super::entry;
use super::error::Fault;
use super::retention;
use super::state::{Producer, RunRow, SessionState};
use super::tables::Tables;
use crate::log::{Push, Retention};
use crate::session::{Entry, Record, SessionId, Terminal};

/// Producers that a session remembers; the one that wrote least recently is forgotten.
const PRODUCERS: u64 = 1000;

/// Texts of a push above which followers are told to read instead, so that what waits for a slow
/// follower is bounded in bytes as well.
const PUSH_BYTES: usize = 64 << 10;

/// Appends `records`, all at one time, and trims. What followers are to hear.
pub(super) fn write(
    tables: &mut Tables<'_>,
    state: &mut SessionState,
    records: &[Record],
    retention: &Retention,
    now_ms: u64,
) -> Result<Push, Fault> {
    let prev = state.tail;
    let mut entries = Vec::with_capacity(records.len());
    let mut bytes = 0;
    for record in records {
        let offset = state.tail.next(now_ms);
        tables.entries.insert((state.number, offset.seq), entry::encode(offset.ms, record).as_slice())?;
        state.tail = offset;
        bytes += record.size();
        entries.push(Arc::new(Entry { offset, record: record.clone() }));
    }
    state.bytes += bytes as u64;
    state.written_ms = state.tail.ms;
    retention::trim(tables, state, retention)?;
    Ok(if bytes <= PUSH_BYTES { Push::Entries { prev, entries } } else { Push::Check })
}

/// Moves the active run at position `at`, whose terminal is the tail, to the runs that have ended.
pub(super) fn end_run(
    tables: &mut Tables<'_>,
    session: &SessionId,
    state: &mut SessionState,
    at: usize,
    terminal: Terminal,
) -> Result<(), Fault> {
    let mut run = state.active.remove(at);
    run.ended = Some((state.tail, terminal));
    let id = run.id.clone();
    let row = RunRow { session: session.clone(), number: state.number, ended: Some(run) };
    tables.runs.insert(id.as_str(), row.encode().as_slice())?;
    Ok(())
}

/// Counts a producer that is new to the session, and forgets another where there are too many.
pub(super) fn remember_one_more_producer(tables: &mut Tables<'_>, state: &mut SessionState) -> Result<(), Fault> {
    state.producers += 1;
    if state.producers <= PRODUCERS {
        return Ok(());
    }
    let mut oldest: Option<(u64, String)> = None;
    for row in tables.producers.range((state.number, "")..(state.number + 1, ""))? {
        let (key, value) = row?;
        let seq = Producer::decode(value.value())?.last.seq;
        if oldest.as_ref().is_none_or(|(than, _)| seq < *than) {
            oldest = Some((seq, key.value().1.to_owned()));
        }
    }
    if let Some((_, id)) = oldest {
        tables.producers.remove((state.number, id.as_str()))?;
        state.producers -= 1;
    }
    Ok(())
}
