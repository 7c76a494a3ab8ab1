//! What a reader is told whose cursor is not in the log. No I/O: the rules alone.
//!
//! A store that went back in time has left a branch: entries that were given to readers, and that the log
//! does not have. The first append on another server records where, as a fork: how far the log went, and a
//! date that is not before any offset that its instance knows, nor before the server's time. Whatever is told
//! to a reader of a lost branch, it must not keep an entry that the log does not have.
//!
//! Why [`rolled_back`] is right. Let the cursor's branch have left the log at fork `f`. Its tail is before the
//! cursor in both halves, for both branches begin with what comes before it. The cursor was given before the
//! fork was dated, so it is not later than that date, up to [`TOLERANCE_MS`]. So `f` is among the forks that
//! are looked at, and the oldest of these has a tail at or before that of `f`, which both branches have. Where
//! no fork fits, nothing is known, and both have the beginning.
//!
//! What this takes for granted: an offset of a lost branch is not later than the date of its fork by more than
//! [`TOLERANCE_MS`], unless the instance that recorded the fork knew it. The clocks of two servers may differ
//! by that much, and a server that others have given up may go on for so long; what an instance knows itself
//! may be dated by any clock. For a session that was lost as a whole the same without the tolerance.

use super::bounds::Meta;
use crate::log::{Gap, GapReason};
use crate::session::Offset;

/// How much later than the date of its fork an entry of a lost branch may be.
const TOLERANCE_MS: u64 = 60_000;

/// What a cursor is, by meta alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursor {
    /// It stands exactly before the first retained entry, or at the tail.
    Exact,
    /// It must be looked for in the log.
    Unknown,
    /// What comes after it was trimmed, belongs to a life that expired, or to another branch.
    Lost(Gap),
}

/// Judges a cursor before the log is looked at.
pub(super) fn judge(meta: &Meta, cursor: Offset) -> Cursor {
    if cursor == meta.trimmed || cursor == meta.last {
        Cursor::Exact
    } else if !at_or_before(cursor, meta.trimmed) {
        Cursor::Unknown
    } else if at_or_before(cursor, meta.expired) && cursor != meta.expired {
        Cursor::Lost(removed(cursor, meta.trimmed, GapReason::Expired))
    } else {
        // It cannot be looked up any more: it may have been of a branch that was lost before it would have
        // been trimmed. The tail of a fork is the log's own.
        let own = meta.forks.iter().any(|(tail, _)| *tail == cursor);
        Cursor::Lost(match oldest_fork(meta, cursor).filter(|_| !own) {
            _ if is_of_a_lost_life(meta, cursor) => lost(cursor, Offset::ZERO),
            Some(to) => lost(cursor, to),
            None => removed(cursor, meta.trimmed, GapReason::Trimmed),
        })
    }
}

/// A gap that retention or expiry made.
pub(super) fn removed(from: Offset, to: Offset, reason: GapReason) -> Gap {
    Gap { from, to, lost: to.seq.saturating_sub(from.seq), reason }
}

/// The gap of a cursor that the log does not have and has not removed: it is of a branch that is lost.
/// `server`: the one that was asked; empty: not known.
pub(super) fn rolled_back(meta: &Meta, cursor: Offset, server: &str) -> Gap {
    if is_of_a_lost_life(meta, cursor) {
        return lost(cursor, Offset::ZERO);
    }
    // Nobody has written here since the server took over; what was lost came after the tail.
    let moved = (!server.is_empty() && server != meta.srv && is_before(meta.last, cursor)).then_some(meta.last);
    lost(cursor, oldest_fork(meta, cursor).or(moved).unwrap_or(Offset::ZERO))
}

/// The gap of a cursor that nothing is known of but that the log does not have it.
pub(super) fn lost(from: Offset, to: Offset) -> Gap {
    Gap { from, to, lost: from.seq.saturating_sub(to.seq), reason: GapReason::RolledBack }
}

/// The oldest place at which a branch with this cursor may have left the log.
fn oldest_fork(meta: &Meta, cursor: Offset) -> Option<Offset> {
    let fits = |&&(tail, at): &&(Offset, u64)| cursor.ms <= at.saturating_add(TOLERANCE_MS) && is_before(tail, cursor);
    meta.forks.iter().find(fits).map(|(tail, _)| *tail)
}

/// Whether the cursor is older than the session, which did not go on from there: of a life that was lost.
fn is_of_a_lost_life(meta: &Meta, cursor: Offset) -> bool {
    cursor.ms < meta.created_ms && !at_or_before(cursor, meta.base)
}

/// Whether `a` is `b`, or before it in both halves. An offset that is before it in one half only is
/// of another branch.
pub(super) fn at_or_before(a: Offset, b: Offset) -> bool {
    a.ms <= b.ms && a.seq <= b.seq
}

/// Whether `a` may have come before `b` on one branch.
fn is_before(a: Offset, b: Offset) -> bool {
    a.ms <= b.ms && a.seq < b.seq
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
            base: Offset::ZERO,
            entries: last.seq - trimmed.seq,
            bytes: 0,
            newest: None,
            forks: forks.to_vec(),
            srv: "here".into(),
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
        (meta.created_ms, meta.base, meta.expired) = (60, Offset::new(50, 5), Offset::new(50, 5));
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
    fn a_lost_branch_is_left_at_the_oldest_fork_that_fits() {
        let minutes = |n: u64| n * 60_000;
        let last = Offset::new(minutes(50), 20);
        let forks = [(11, 10, 10), (15, 20, 20), (16, 21, 40)]
            .map(|(seq, ms, at)| (Offset::new(minutes(ms), seq), minutes(at)));
        let meta = meta(Offset::ZERO, last, &forks);
        let to = |ms, seq| rolled_back(&meta, Offset::new(ms, seq), "here").to.seq;
        assert_eq!(to(minutes(20), 18), 15, "given before the fork was dated");
        assert_eq!(to(minutes(21), 18), 15, "by a clock that is a minute ahead");
        assert_eq!(to(minutes(22), 18), 16, "after the first two forks for certain");
        assert_eq!(to(minutes(10), 14), 11);
        assert_eq!(to(minutes(9), 18), 0, "before the first fork for certain, and not there");
        assert_eq!(to(minutes(60), 30), 0, "of nobody's past");
        assert_eq!(rolled_back(&meta, Offset::new(minutes(60), 30), "there").to, last, "another server has more");
        assert_eq!(rolled_back(&meta, Offset::new(minutes(60), 19), "there").to, Offset::ZERO, "but not this");
    }

    #[test]
    fn of_an_earlier_life_nothing_is_kept() {
        let mut meta = meta(TRIMMED, LAST, &[(Offset::new(160, 2), 170)]);
        (meta.created_ms, meta.base) = (150, Offset::new(90, 1));
        assert!(matches!(judge(&meta, Offset::new(95, 2)), Cursor::Lost(gap) if gap.to == Offset::ZERO));
        assert!(matches!(judge(&meta, Offset::new(90, 1)), Cursor::Lost(gap) if gap.reason == GapReason::Trimmed));
        assert_eq!(rolled_back(&meta, Offset::new(140, 3), "here").to, Offset::ZERO);
        assert_eq!(rolled_back(&meta, Offset::new(160, 3), "here").to, Offset::new(160, 2));
    }

    #[test]
    fn a_cursor_that_was_lost_before_it_would_have_been_trimmed_is_not_called_trimmed() {
        let far = Offset::new(500_000, 50);
        let meta = meta(far, Offset::new(600_000, 60), &[(Offset::new(100, 10), 200)]);
        let judged = |ms, seq| match judge(&meta, Offset::new(ms, seq)) {
            Cursor::Lost(gap) => (gap.reason, gap.to),
            other => panic!("{other:?}"),
        };
        assert_eq!(judged(150, 12), (GapReason::RolledBack, Offset::new(100, 10)));
        assert_eq!(judged(100, 10), (GapReason::Trimmed, far), "the fork's own tail");
        assert_eq!(judged(90, 9), (GapReason::Trimmed, far));
        assert_eq!(judged(300_000, 40), (GapReason::Trimmed, far));
    }
}
