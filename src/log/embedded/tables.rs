//! The tables of the database file.
//!
//! | table | key → value |
//! |---|---|
//! | `about` | `"format"`, `"next_number"` → number |
//! | `entries` | (session number, seq) → entry (`entry.rs`) |
//! | `sessions` | session → `SessionState`, its active runs included |
//! | `runs` | run → `RunRow` |
//! | `unborn` | a run that was taken over before it was opened → when, ms |
//! | `producers` | (session number, producer) → `Producer` |
//! | `tombs` | session → `Tomb` |
//! | `claims` | key → (when, ms; value) |
//! | `keys` | (session number, key of a `send`) → its run |
//! | `cancels` | `<session> key <key>` or `<session> run <run>` that was cancelled before it was there → `EarlyCancel` |
//! | `items` | (session number, run) → what a queued run waits with |
//! | `cursors` | (session number, user) → how far it has read: offset, client |
//! | `subjects` | (subject, session) → when the subject used it last, ms |
//! | `garbage` | number of a session that is gone and whose entries are still to be removed |

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use super::entry;
use super::error::Fault;
use super::state::SessionState;
use crate::session::Offset;

/// The format of the file that this version writes, and the newest that it reads.
pub(super) const FORMAT: u64 = 1;

pub(super) const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("about");
pub(super) const ENTRIES: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("entries");
pub(super) const SESSIONS: TableDefinition<&str, &[u8]> = TableDefinition::new("sessions");
pub(super) const RUNS: TableDefinition<&str, &[u8]> = TableDefinition::new("runs");
pub(super) const UNBORN: TableDefinition<&str, u64> = TableDefinition::new("unborn");
pub(super) const PRODUCERS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("producers");
pub(super) const TOMBS: TableDefinition<&str, &[u8]> = TableDefinition::new("tombs");
pub(super) const CLAIMS: TableDefinition<&str, (u64, &str)> = TableDefinition::new("claims");
pub(super) const KEYS: TableDefinition<(u64, &str), &str> = TableDefinition::new("keys");
pub(super) const CANCELS: TableDefinition<&str, &[u8]> = TableDefinition::new("cancels");
pub(super) const ITEMS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("items");
pub(super) const CURSORS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("cursors");
pub(super) const SUBJECTS: TableDefinition<(&str, &str), u64> = TableDefinition::new("subjects");
pub(super) const GARBAGE: TableDefinition<u64, ()> = TableDefinition::new("garbage");

/// All tables, open for writing in one transaction.
pub(super) struct Tables<'t> {
    pub(super) about: Table<'t, &'static str, u64>,
    pub(super) entries: Table<'t, (u64, u64), &'static [u8]>,
    pub(super) sessions: Table<'t, &'static str, &'static [u8]>,
    pub(super) runs: Table<'t, &'static str, &'static [u8]>,
    pub(super) unborn: Table<'t, &'static str, u64>,
    pub(super) producers: Table<'t, (u64, &'static str), &'static [u8]>,
    pub(super) tombs: Table<'t, &'static str, &'static [u8]>,
    pub(super) claims: Table<'t, &'static str, (u64, &'static str)>,
    pub(super) keys: Table<'t, (u64, &'static str), &'static str>,
    pub(super) cancels: Table<'t, &'static str, &'static [u8]>,
    pub(super) items: Table<'t, (u64, &'static str), &'static [u8]>,
    pub(super) cursors: Table<'t, (u64, &'static str), &'static [u8]>,
    pub(super) subjects: Table<'t, (&'static str, &'static str), u64>,
    pub(super) garbage: Table<'t, u64, ()>,
}

impl<'t> Tables<'t> {
    /// Opens the tables; those that do not exist are created.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, TableError> {
        Ok(Tables {
            about: transaction.open_table(ABOUT)?,
            entries: transaction.open_table(ENTRIES)?,
            sessions: transaction.open_table(SESSIONS)?,
            runs: transaction.open_table(RUNS)?,
            unborn: transaction.open_table(UNBORN)?,
            producers: transaction.open_table(PRODUCERS)?,
            tombs: transaction.open_table(TOMBS)?,
            claims: transaction.open_table(CLAIMS)?,
            keys: transaction.open_table(KEYS)?,
            cancels: transaction.open_table(CANCELS)?,
            items: transaction.open_table(ITEMS)?,
            cursors: transaction.open_table(CURSORS)?,
            subjects: transaction.open_table(SUBJECTS)?,
            garbage: transaction.open_table(GARBAGE)?,
        })
    }
}

/// The format of the file; `None`: it is new.
pub(super) fn format(transaction: &ReadTransaction) -> Result<Option<u64>, Fault> {
    match transaction.open_table(ABOUT) {
        Ok(about) => Ok(about.get("format")?.map(|format| format.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The exact offset of the entry with this `seq`, or of the last one trimmed.
pub(super) fn offset_at(
    entries: &impl ReadableTable<(u64, u64), &'static [u8]>,
    state: &SessionState,
    seq: u64,
) -> Result<Offset, Fault> {
    if seq == state.trimmed.seq {
        return Ok(state.trimmed);
    }
    if seq == state.tail.seq {
        return Ok(state.tail);
    }
    let value = entries.get((state.number, seq))?.ok_or(Fault::Damaged("log"))?;
    Ok(Offset { ms: entry::decode_ms(value.value())?, seq })
}

/// What an offset is to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// One of its entries, or the last one trimmed, or [`Offset::ZERO`] where nothing was trimmed.
    Exact,
    /// Older than the last one trimmed.
    Trimmed,
    /// Not of this log: of the future, or of a branch that the store went back from.
    Stranger,
}

/// What `offset` is to the log of a session. Both halves decide.
pub(super) fn standing(
    entries: &impl ReadableTable<(u64, u64), &'static [u8]>,
    state: &SessionState,
    offset: Offset,
) -> Result<Standing, Fault> {
    if offset == state.tail || offset == state.trimmed {
        return Ok(Standing::Exact);
    }
    // Seq 0 is of no entry; only the true beginning may have it.
    let older = offset.seq < state.trimmed.seq && offset.ms <= state.trimmed.ms;
    if older && (offset.seq > 0 || offset == Offset::ZERO) {
        return Ok(Standing::Trimmed);
    }
    let within = offset.seq > state.trimmed.seq && offset.seq < state.tail.seq;
    let exact = within && offset_at(entries, state, offset.seq)? == offset;
    Ok(if exact { Standing::Exact } else { Standing::Stranger })
}
