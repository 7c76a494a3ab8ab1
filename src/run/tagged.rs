//! The SSE id that we write where a route asks for resumable ids: `ss1.<session>.<run>.<offset>`.

use std::fmt;

use crate::session::{Offset, RunId, SessionId};

/// An SSE id of ours: which entry of which run of which session the event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedId {
    /// The session.
    pub session: SessionId,
    /// The run.
    pub run: RunId,
    /// The entry.
    pub offset: Offset,
}

impl TaggedId {
    /// The id of an entry.
    pub fn of(session: &SessionId, run: &RunId, offset: Offset) -> Self {
        TaggedId { session: session.clone(), run: run.clone(), offset }
    }

    /// Reads an id that a client sends back. `None`: it is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        // Run ids of ours and offsets have no dot; a session id may have some.
        let (rest, offset) = text.strip_prefix("ss1.")?.rsplit_once('.')?;
        let (session, run) = rest.rsplit_once('.')?;
        Some(TaggedId {
            session: SessionId::from_store(session).ok()?,
            run: RunId::parse(run).ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

impl fmt::Display for TaggedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ss1.{}.{}.{}", self.session, self.run, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tagged_id_reads_back_even_where_the_session_has_dots() {
        let session = SessionId::parse("a.b-c.d").unwrap();
        let id = TaggedId::of(&session, &RunId::from_random(3), Offset::new(17, 4));
        assert_eq!(TaggedId::parse(&id.to_string()), Some(id));
        for foreign in ["", "17-4", "ss1.", "ss1.s.r", "ss1.s.r.17", "ss2.s.r.17-4", "ss1.s/x.r.17-4"] {
            assert_eq!(TaggedId::parse(foreign), None, "{foreign}");
        }
    }
}
