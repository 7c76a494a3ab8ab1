//! The sessions that one batch looks at, read once and stored once.

use std::collections::HashMap;
use std::collections::hash_map;

use redb::ReadableTable;

use super::error::Fault;
use super::state::SessionState;
use super::tables::Tables;
use super::tomb::{Tomb, TombReason};
use crate::log::Retention;
use crate::session::{Offset, SessionId};

/// What the store knows of a session.
pub(super) enum Known<S> {
    /// It exists.
    Live(S),
    /// It was erased, or has expired.
    Gone(Tomb),
    /// It never existed, or nothing is known any more.
    Never,
}

/// The sessions of a batch.
pub(super) struct Sessions {
    loaded: HashMap<SessionId, Loaded>,
    retention: Retention,
    now_ms: u64,
}

struct Loaded {
    now: Known<SessionState>,
    /// What is in the table, to write only what has changed.
    stored: Option<SessionState>,
}

impl Sessions {
    pub(super) fn new(retention: Retention, now_ms: u64) -> Self {
        Sessions { loaded: HashMap::new(), retention, now_ms }
    }

    /// What is known of a session. One that has expired is buried.
    pub(super) fn load(
        &mut self,
        tables: &mut Tables<'_>,
        session: &SessionId,
    ) -> Result<Known<&mut SessionState>, Fault> {
        let loaded = self.loaded(tables, session)?;
        Ok(match &mut loaded.now {
            Known::Live(state) => Known::Live(state),
            Known::Gone(tomb) => Known::Gone(*tomb),
            Known::Never => Known::Never,
        })
    }

    /// The session, made anew where there is none. Its offsets come after those of an earlier one.
    pub(super) fn load_or_create(
        &mut self,
        tables: &mut Tables<'_>,
        session: &SessionId,
    ) -> Result<&mut SessionState, Fault> {
        let now_ms = self.now_ms;
        let loaded = self.loaded(tables, session)?;
        let last = match &loaded.now {
            Known::Live(_) => None,
            Known::Gone(tomb) => Some(tomb.last),
            Known::Never => Some(Offset::ZERO),
        };
        if let Some(last) = last {
            tables.tombs.remove(session.as_str())?;
            let number = tables.about.get("next_number")?.map_or(1, |number| number.value());
            tables.about.insert("next_number", number + 1)?;
            loaded.now = Known::Live(SessionState::new(number, last, now_ms));
        }
        match &mut loaded.now {
            Known::Live(state) => Ok(state),
            _ => unreachable!("it was just created"),
        }
    }

    /// Leaves only a tombstone of a session. Its entries become garbage.
    pub(super) fn bury(
        &mut self,
        tables: &mut Tables<'_>,
        session: &SessionId,
        reason: TombReason,
    ) -> Result<(), Fault> {
        let buried_ms = self.now_ms;
        let loaded = self.loaded(tables, session)?;
        loaded.bury(tables, session, reason, buried_ms)
    }

    /// Writes what has changed to the tables; by how much the footprint of all sessions changed.
    pub(super) fn store(self, tables: &mut Tables<'_>) -> Result<i64, Fault> {
        let mut footprint = 0;
        for (session, loaded) in self.loaded {
            let now = match loaded.now {
                Known::Live(state) => Some(state),
                Known::Gone(_) | Known::Never => None,
            };
            if now == loaded.stored {
                continue;
            }
            footprint += now.as_ref().map_or(0, SessionState::footprint) as i64;
            footprint -= loaded.stored.as_ref().map_or(0, SessionState::footprint) as i64;
            match now {
                Some(state) => tables.sessions.insert(session.as_str(), state.encode().as_slice())?,
                None => tables.sessions.remove(session.as_str())?,
            };
        }
        Ok(footprint)
    }

    fn loaded(&mut self, tables: &mut Tables<'_>, session: &SessionId) -> Result<&mut Loaded, Fault> {
        match self.loaded.entry(session.clone()) {
            hash_map::Entry::Occupied(loaded) => Ok(loaded.into_mut()),
            hash_map::Entry::Vacant(place) => {
                let stored = tables.sessions.get(session.as_str())?;
                let stored = stored.map(|row| SessionState::decode(row.value())).transpose()?;
                let mut loaded = match &stored {
                    Some(state) => Loaded { now: Known::Live(state.clone()), stored },
                    None => {
                        let tomb = tables.tombs.get(session.as_str())?;
                        let tomb = tomb.map(|row| Tomb::decode(row.value())).transpose()?;
                        Loaded { now: tomb.map_or(Known::Never, Known::Gone), stored: None }
                    }
                };
                if loaded.stored.as_ref().is_some_and(|state| state.has_expired(&self.retention, self.now_ms)) {
                    loaded.bury(tables, session, TombReason::Expired, self.now_ms)?;
                }
                Ok(place.insert(loaded))
            }
        }
    }
}

impl Loaded {
    fn bury(
        &mut self,
        tables: &mut Tables<'_>,
        session: &SessionId,
        reason: TombReason,
        buried_ms: u64,
    ) -> Result<(), Fault> {
        let last = match &self.now {
            Known::Live(state) => {
                tables.garbage.insert(state.number, ())?;
                // Runs that have ended go with their terminals, when the garbage is removed.
                for run in &state.active {
                    tables.runs.remove(run.id.as_str())?;
                }
                if let Some(subject) = &state.subject {
                    tables.subjects.remove((subject.as_str(), session.as_str()))?;
                }
                state.tail
            }
            Known::Gone(tomb) => tomb.last,
            Known::Never => return Ok(()),
        };
        let tomb = Tomb { last, buried_ms, reason };
        tables.tombs.insert(session.as_str(), tomb.encode().as_slice())?;
        self.now = Known::Gone(tomb);
        Ok(())
    }
}
