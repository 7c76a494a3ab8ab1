//! A list of sessions, for whoever owns them and for operators.

use serde_json::{Value, json};

use crate::session::{Offset, SessionId};

/// One session of a list.
#[derive(Clone, Copy, Debug)]
pub struct SessionLine<'a> {
    /// Which.
    pub session: &'a SessionId,
    /// Its newest entry.
    pub tail: Offset,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When its owner used it last, the same.
    pub used_ms: u64,
    /// How many of its runs are active.
    pub active: usize,
}

/// A page of sessions; `next` is the `before` of the next page.
pub fn session_list<'a>(lines: impl Iterator<Item = SessionLine<'a>>, next: Option<&str>) -> Value {
    let line = |line: SessionLine<'_>| {
        json!({
            "session": line.session.as_str(),
            "tail": line.tail.to_string(),
            "created_ms": line.created_ms,
            "last_ms": line.tail.ms,
            "used_ms": line.used_ms,
            "active_runs": line.active,
        })
    };
    json!({"sessions": lines.map(line).collect::<Vec<_>>(), "next": next})
}
