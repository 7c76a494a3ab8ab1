//! Where a reader begins.

use super::Offset;

/// Where reading starts: the forms of `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// `"start"`: from the first entry.
    Start,
    /// `"end"`: only what is new.
    End,
    /// An offset: what comes after it.
    Offset(Offset),
    /// `{"last": n}`: the newest n entries and what is new.
    Last(u64),
    /// `{"since_ms": t}`: entries written at or after `t`, milliseconds since the Unix epoch.
    Since(u64),
}
