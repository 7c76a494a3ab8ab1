//! What a reader is told when the log cannot continue after its cursor.

use super::Offset;

/// A range that a reader will never get. What comes next is the entry with `seq = to.seq + 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The reader's cursor (exclusive).
    pub from: Offset,
    /// Trimmed and expired: the last entry that is lost. Rolled back: the newest entry that the
    /// reader may keep.
    pub to: Offset,
    /// Trimmed and expired: how many entries are lost. Rolled back: how many the reader discards.
    pub lost: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why a range is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Retention removed it.
    Trimmed,
    /// The store went back in time.
    RolledBack,
    /// The session outlived its ttl.
    Expired,
}

impl GapReason {
    /// The reason's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Trimmed => "trimmed",
            GapReason::RolledBack => "rolled_back",
            GapReason::Expired => "expired",
        }
    }
}
