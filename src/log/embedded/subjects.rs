//! Whose a session is.

use redb::ReadableTable as _;

use super::batch::Batch;
use super::error::Fault;
use super::read::Snapshot;
use super::sessions::Known;
use super::tables::SUBJECTS;
use crate::log::{MOST_SESSIONS, OwnSession, Used};
use crate::session::{SessionId, Subject};

impl Batch<'_> {
    pub(super) fn bind(&mut self, session: &SessionId, subject: &Subject) -> Result<bool, Fault> {
        let Known::Live(state) = self.sessions.load(&mut self.tables, session)? else { return Ok(false) };
        if *state.subject.get_or_insert_with(|| subject.clone()) != *subject {
            return Ok(false);
        }
        let known = self.tables.subjects.insert((subject.as_str(), session.as_str()), self.now_ms)?.is_some();
        self.changed = true;
        if !known {
            self.make_room_for_a_session(subject)?;
        }
        Ok(true)
    }

    fn make_room_for_a_session(&mut self, subject: &Subject) -> Result<(), Fault> {
        let mut used = Vec::new();
        for row in self.tables.subjects.range((subject.as_str(), "")..=(subject.as_str(), AFTER_ALL))? {
            let (key, ms) = row?;
            used.push((ms.value(), key.value().1.to_owned()));
        }
        if used.len() > MOST_SESSIONS
            && let Some((_, oldest)) = used.into_iter().min()
        {
            self.tables.subjects.remove((subject.as_str(), &*oldest))?;
        }
        Ok(())
    }
}

/// Comes after every id of a session, none of which has a `~` but at its beginning.
const AFTER_ALL: &str = "~~";

impl Snapshot<'_> {
    pub(super) fn sessions_of(
        &self,
        subject: &Subject,
        limit: usize,
        before: Option<&Used>,
    ) -> Result<Vec<OwnSession>, Fault> {
        let table = self.read.open_table(SUBJECTS)?;
        let mut used = Vec::new();
        for row in table.range((subject.as_str(), "")..=(subject.as_str(), AFTER_ALL))? {
            let (key, ms) = row?;
            let session = SessionId::from_store(key.value().1).map_err(|_| Fault::Damaged("subject"))?;
            used.push(Used { ms: ms.value(), session });
        }
        used.sort();
        let mut rows = Vec::new();
        for used in used.into_iter().rev().filter(|used| before.is_none_or(|before| used < before)) {
            if rows.len() >= limit {
                break;
            }
            if let Known::Live(state) = self.session(&used.session)?
                && state.subject.as_ref() == Some(subject)
            {
                let (tail, created_ms, active) = (state.tail, state.created_ms, state.active.len());
                rows.push(OwnSession { used, tail, created_ms, active });
            }
        }
        Ok(rows)
    }
}
