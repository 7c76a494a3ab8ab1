//! The offset: the address of one entry in its session.

use std::fmt;
use std::str::FromStr;

/// The address of an entry: `<ms>-<seq>`, the Redis stream id.
///
/// `ms` never decreases within a session; `seq` is contiguous from 1. Contiguous `seq` proves that
/// nothing is missing, `ms` tells the branches of a rolled-back store apart: two offsets are the
/// same entry only if **both** halves are equal. Ordering is Redis' own (by `ms`, then `seq`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset {
    /// Milliseconds since the Unix epoch, by the store's clock, never less than the entry before.
    pub ms: u64,
    /// Position in the session, counted from 1 without a hole.
    pub seq: u64,
}

impl Offset {
    /// Before the first entry of any session. Never the offset of an entry.
    pub const ZERO: Offset = Offset { ms: 0, seq: 0 };

    /// An offset from its halves.
    pub const fn new(ms: u64, seq: u64) -> Self {
        Offset { ms, seq }
    }

    /// The offset of the entry that follows this one, written when the store's clock says `now_ms`.
    #[must_use]
    pub fn next(self, now_ms: u64) -> Self {
        Offset { ms: now_ms.max(self.ms), seq: self.seq + 1 }
    }

    /// Whether both halves are larger than `other`'s: what "trimmed" means, see `log`.
    pub fn above_in_both_halves(self, other: Offset) -> bool {
        self.ms > other.ms && self.seq > other.seq
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// The text is not an offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an offset is `<ms>-<seq>`, two decimal numbers as the server sent them")]
pub struct OffsetError;

impl FromStr for Offset {
    type Err = OffsetError;

    /// Accepts exactly what `Display` writes: no sign, no leading zero, no blank.
    fn from_str(text: &str) -> Result<Self, OffsetError> {
        let (ms, seq) = text.split_once('-').ok_or(OffsetError)?;
        Ok(Offset { ms: decimal(ms)?, seq: decimal(seq)? })
    }
}

fn decimal(text: &str) -> Result<u64, OffsetError> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    if !canonical {
        return Err(OffsetError);
    }
    text.parse().map_err(|_| OffsetError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_is_an_offset() {
        for good in ["0-0", "1795257031891-1", "1-18446744073709551615"] {
            assert_eq!(good.parse::<Offset>().map(|o| o.to_string()).as_deref(), Ok(good));
        }
        let bad = [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "01-1",
            "1-01",
            "+1-1",
            "1-+1",
            " 1-1",
            "1-1 ",
            "1-1-1",
            "a-b",
            "1-18446744073709551616",
            "٣-1",
        ];
        for text in bad {
            assert_eq!(text.parse::<Offset>(), Err(OffsetError), "{text:?}");
        }
    }

    #[test]
    fn the_next_offset_never_goes_back_in_time() {
        assert_eq!(Offset::new(10, 4).next(7), Offset::new(10, 5));
        assert_eq!(Offset::new(10, 4).next(12), Offset::new(12, 5));
    }
}
