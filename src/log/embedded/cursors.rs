//! How far each user has read.

use redb::ReadableTable as _;

use super::batch::Batch;
use super::encoding::{put_offset, put_text};
use super::error::Fault;
use super::read::Snapshot;
use super::sessions::Known;
use super::state::{FORMAT, decoder};
use super::tables::CURSORS;
use crate::log::{MOST_CURSORS, Marked, Note, Push, ReadCursor, User};
use crate::session::{ClientName, Offset, SessionId};

impl Batch<'_> {
    pub(super) fn mark_read(&mut self, session: &SessionId, cursor: &ReadCursor) -> Result<Marked, Fault> {
        let Known::Live(state) = self.sessions.load(&mut self.tables, session)? else { return Ok(Marked::NotFound) };
        let (number, tail) = (state.number, state.tail);
        let ahead = |offset: Offset| offset.ms > tail.ms || offset.seq > tail.seq;
        if ahead(cursor.offset) {
            return Ok(Marked::Ahead);
        }
        let user = cursor.user.to_word();
        let known = match self.tables.cursors.get((number, &*user))? {
            Some(row) => Some(decode(&user, row.value())?.offset),
            None => None,
        };
        match known {
            // One beyond the tail is of a file that was restored from a backup.
            Some(known) if known >= cursor.offset && !ahead(known) => return Ok(Marked::At(known)),
            Some(_) => {}
            None => self.make_room_for_a_cursor(number)?,
        }
        let mut value = vec![FORMAT];
        put_offset(&mut value, cursor.offset);
        put_text(&mut value, cursor.client.as_str());
        self.tables.cursors.insert((number, &*user), value.as_slice())?;
        self.announce(session, Push::Note(Note::Read(cursor.clone())));
        Ok(Marked::At(cursor.offset))
    }

    fn make_room_for_a_cursor(&mut self, number: u64) -> Result<(), Fault> {
        let mut kept = Vec::new();
        for row in self.tables.cursors.range((number, "")..(number + 1, ""))? {
            let (key, value) = row?;
            let user = key.value().1;
            kept.push((decode(user, value.value())?.offset, user.to_owned()));
        }
        if kept.len() >= MOST_CURSORS
            && let Some((_, behind)) = kept.into_iter().min()
        {
            self.tables.cursors.remove((number, &*behind))?;
        }
        Ok(())
    }
}

impl Snapshot<'_> {
    pub(super) fn cursors(&self, session: &SessionId) -> Result<Vec<ReadCursor>, Fault> {
        let Known::Live(state) = self.session(session)? else { return Ok(Vec::new()) };
        let table = self.read.open_table(CURSORS)?;
        let rows = table.range((state.number, "")..(state.number + 1, ""))?;
        rows.map(|row| {
            let (key, value) = row?;
            decode(key.value().1, value.value())
        })
        .collect()
    }
}

fn decode(user: &str, value: &[u8]) -> Result<ReadCursor, Fault> {
    let mut from = decoder(value, "read cursor")?;
    let user = User::from_word(user).ok_or(from.damaged())?;
    let offset = from.offset()?;
    let client = ClientName::parse(&from.text()?).map_err(|_| from.damaged())?;
    Ok(ReadCursor { user, client, offset })
}
