//! What a reader is told whose cursor is not in the log. No I/O: the rules alone.

use super::bounds::Meta;
use crate::log::{Gap, GapReason};
use crate::session::Offset;

/// How far behind its cursor a reader of a lost branch starts again where nothing better is known.
pub(super) const REWIND_MS: u64 = 60_000;

/// What a cursor is, by meta alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursor {
    /// It stands exactly before the first retained entry, or at the tail.
    Exact,
    /// It must be looked for in the log.
    Unknown,
    /// What comes after it was trimmed, or belongs to a life that expired.
    Lost(Gap),
}

/// Judges a cursor before the log is looked at.
pub(super) fn judge(meta: &Meta, cursor: Offset) -> Cursor {
    if cursor == meta.trimmed || cursor == meta.last {
        Cursor::Exact
    } else if at_or_before(cursor, meta.trimmed) {
        Cursor::Lost(removed(
            cursor,
            meta.trimmed,
            if at_or_before(cursor, meta.expired) && cursor != meta.expired {
                GapReason::Expired
            } else {
                GapReason::Trimmed
            },
        ))
    } else {
        Cursor::Unknown
    }
}

/// A gap that retention or expiry made.
pub(super) fn removed(from: Offset, to: Offset, reason: GapReason) -> Gap {
    Gap { from, to, lost: to.seq.saturating_sub(from.seq), reason }
}

/// The gap of a cursor that the log does not have and has not removed: it is of a branch that is
/// lost. `older`: the newest entry that is older than [`REWIND_MS`] before the cursor.
pub(super) fn rolled_back(meta: &Meta, cursor: Offset, older: Option<Offset>) -> Gap {
    let fork = meta.forks.iter().find(|(tail, at)| *at >= cursor.ms && tail.seq < cursor.seq).map(|(tail, _)| *tail);
    let to = fork.or(older).unwrap_or(meta.trimmed);
    Gap { from: cursor, to, lost: cursor.seq.saturating_sub(to.seq), reason: GapReason::RolledBack }
}

/// Whether `a` is `b`, or before it in both halves. An offset that is before it in one half only is
/// of another branch.
fn at_or_before(a: Offset, b: Offset) -> bool {
    a.ms <= b.ms && a.seq <= b.seq
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(trimmed: Offset, last: Offset, forks: &[(Offset, u64)]) -> Meta {
        Meta {
            created_ms: 0,
            expires_ms: 1,
            now_ms: 0,
            last,
            trimmed,
            expired: Offset::ZERO,
            entries: last.seq - trimmed.seq,
            bytes: 0,
            newest: None,
            forks: forks.to_vec(),
        }
    }

    const TRIMMED: Offset = Offset::new(100, 10);
    const LAST: Offset = Offset::new(200, 20);

    #[test]
    fn the_last_trimmed_entry_and_the_tail_are_exact_cursors() {
        let meta = meta(TRIMMED, LAST, &[]);
        assert_eq!(judge(&meta, TRIMMED), Cursor::Exact);
        assert_eq!(judge(&meta, LAST), Cursor::Exact);
        assert_eq!(judge(&meta, Offset::new(150, 15)), Cursor::Unknown);
    }

    #[test]
    fn a_trimmed_range_is_named_exactly() {
        let Cursor::Lost(gap) = judge(&meta(TRIMMED, LAST, &[]), Offset::new(90, 7)) else { panic!("no gap") };
        assert_eq!((gap.to, gap.lost, gap.reason), (TRIMMED, 3, GapReason::Trimmed));
        let Cursor::Lost(gap) = judge(&meta(TRIMMED, LAST, &[]), Offset::ZERO) else { panic!("no gap") };
        assert_eq!((gap.to, gap.lost), (TRIMMED, 10));
    }

    #[test]
    fn an_earlier_life_is_expired_and_not_trimmed() {
        let mut meta = meta(TRIMMED, LAST, &[]);
        meta.expired = Offset::new(50, 5);
        let reason = |cursor| match judge(&meta, cursor) {
            Cursor::Lost(gap) => gap.reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(Offset::new(40, 4)), GapReason::Expired);
        assert_eq!(reason(Offset::new(50, 5)), GapReason::Trimmed);
        assert_eq!(reason(Offset::new(90, 9)), GapReason::Trimmed);
    }

    #[test]
    fn a_cursor_that_is_older_in_one_half_only_is_of_a_lost_branch() {
        for cursor in [Offset::new(90, 12), Offset::new(110, 8)] {
            assert_eq!(judge(&meta(TRIMMED, LAST, &[]), cursor), Cursor::Unknown);
        }
    }

    #[test]
    fn a_lost_branch_is_left_at_the_oldest_fork_after_the_cursor() {
        let forks = [(Offset::new(110, 11), 120), (Offset::new(150, 15), 170), (Offset::new(160, 16), 400)];
        let gap = rolled_back(&meta(TRIMMED, LAST, &forks), Offset::new(165, 18), None);
        assert_eq!((gap.to, gap.lost, gap.reason), (Offset::new(150, 15), 3, GapReason::RolledBack));
    }

    #[test]
    fn without_a_fork_a_reader_rewinds_by_time_or_to_the_head() {
        let meta = meta(TRIMMED, LAST, &[]);
        let older = Offset::new(120, 12);
        assert_eq!(rolled_back(&meta, Offset::new(300, 18), Some(older)).to, older);
        assert_eq!(rolled_back(&meta, Offset::new(300, 18), None).to, TRIMMED);
    }
}
