//! The newest entries of a followed session: contiguous, bounded by bytes. Sans-I/O.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::hub::Item;
use crate::session::{Entry, Offset};

/// A contiguous run of entries that ends at the session's tail as far as it is known here.
#[derive(Debug)]
pub(super) struct Ring {
    /// The entry right before `items[0]` (exact), or the tail where the ring is empty.
    base: Offset,
    items: VecDeque<Arc<Item>>,
    weight: usize,
    max_weight: usize,
}

/// What the ring has for a cursor.
#[derive(Debug)]
pub(super) enum Ahead {
    /// The entries that follow the cursor, at least one.
    Items(Vec<Arc<Item>>),
    /// The cursor is the tail.
    Tail,
    /// The cursor is not in the ring: behind it, or of another branch of the log.
    Elsewhere,
}

/// What a push meant for the ring.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// New entries are in.
    Extended,
    /// The ring had them.
    Known,
    /// It does not fit: the log must be read.
    Unproven,
}

impl Ring {
    /// An empty ring whose session ends at `tail`.
    pub(super) fn new(tail: Offset, max_weight: usize) -> Self {
        Ring { base: tail, items: VecDeque::new(), weight: 0, max_weight }
    }

    /// The newest offset known here.
    pub(super) fn tail(&self) -> Offset {
        self.items.back().map_or(self.base, |item| item.offset())
    }

    /// Takes entries that were appended right after `prev`. Only an exact match of `prev` with the
    /// tail extends the ring: a push is a hint, never a verdict.
    pub(super) fn push(&mut self, prev: Offset, entries: Vec<Arc<Entry>>) -> Pushed {
        let Some(last) = entries.last() else { return Pushed::Known };
        if prev != self.tail() {
            return if self.holds(last.offset) { Pushed::Known } else { Pushed::Unproven };
        }
        self.extend(entries.into_iter().map(Item::new));
        Pushed::Extended
    }

    /// Appends items that the caller has proven to follow the tail.
    pub(super) fn extend(&mut self, items: impl IntoIterator<Item = Arc<Item>>) {
        for item in items {
            debug_assert_eq!(item.offset().seq, self.tail().seq + 1);
            self.weight += item.weight();
            self.items.push_back(item);
        }
        while self.weight > self.max_weight
            && let Some(oldest) = self.items.pop_front()
        {
            self.weight -= oldest.weight();
            self.base = oldest.offset();
        }
    }

    /// Forgets everything after `to`: the log went back there. Where `to` is not in the ring, the
    /// ring begins again, empty, at `to`.
    pub(super) fn roll_back(&mut self, to: Offset) {
        if to == self.base || self.holds(to) {
            while self.items.back().is_some_and(|item| item.offset() != to) {
                if let Some(item) = self.items.pop_back() {
                    self.weight -= item.weight();
                }
            }
        } else {
            *self = Ring::new(to, self.max_weight);
        }
    }

    /// What follows the cursor `at`, at most `max_bytes` of it (at least one item).
    pub(super) fn after(&self, at: Offset, max_bytes: usize) -> Ahead {
        if at == self.tail() {
            return Ahead::Tail;
        }
        let start = if at == self.base {
            0
        } else {
            match self.index(at.seq) {
                Some(i) if self.items[i].offset() == at => i + 1,
                _ => return Ahead::Elsewhere,
            }
        };
        let mut bytes = 0;
        let fits = |item: &&Arc<Item>| {
            let first = bytes == 0;
            bytes += item.weight();
            first || bytes <= max_bytes
        };
        Ahead::Items(self.items.range(start..).take_while(fits).cloned().collect())
    }

    fn holds(&self, offset: Offset) -> bool {
        self.index(offset.seq).is_some_and(|i| self.items[i].offset() == offset)
    }

    fn index(&self, seq: u64) -> Option<usize> {
        let first = self.base.seq + 1;
        let i = usize::try_from(seq.checked_sub(first)?).ok()?;
        (i < self.items.len()).then_some(i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Kind, Record};

    fn entry(ms: u64, seq: u64) -> Arc<Entry> {
        let record = Record { kind: Kind::Event, run: None, source: None, event: None, id: None, data: "x".into() };
        Arc::new(Entry { offset: Offset::new(ms, seq), record })
    }

    fn seqs(ring: &Ring, at: Offset) -> Option<Vec<u64>> {
        match ring.after(at, usize::MAX) {
            Ahead::Items(items) => Some(items.iter().map(|i| i.offset().seq).collect()),
            Ahead::Tail => Some(vec![]),
            Ahead::Elsewhere => None,
        }
    }

    #[test]
    fn only_a_push_that_follows_the_exact_tail_extends_the_ring() {
        let mut ring = Ring::new(Offset::new(10, 3), 1 << 20);
        assert_eq!(ring.push(Offset::new(9, 3), vec![entry(11, 4)]), Pushed::Unproven);
        assert_eq!(ring.push(Offset::new(10, 3), vec![entry(11, 4), entry(11, 5)]), Pushed::Extended);
        assert_eq!(ring.push(Offset::new(10, 3), vec![entry(11, 4)]), Pushed::Known);
        assert_eq!(ring.push(Offset::new(11, 5), vec![entry(12, 6)]), Pushed::Extended);
        assert_eq!(seqs(&ring, Offset::new(10, 3)), Some(vec![4, 5, 6]));
        assert_eq!(seqs(&ring, Offset::new(11, 5)), Some(vec![6]));
        assert_eq!(seqs(&ring, Offset::new(12, 6)), Some(vec![]));
    }

    #[test]
    fn a_cursor_of_another_branch_is_not_in_the_ring() {
        let mut ring = Ring::new(Offset::ZERO, 1 << 20);
        ring.push(Offset::ZERO, vec![entry(5, 1), entry(5, 2)]);
        assert_eq!(seqs(&ring, Offset::new(4, 1)), None);
        assert_eq!(seqs(&ring, Offset::new(5, 3)), None);
    }

    #[test]
    fn the_ring_is_bounded_and_forgets_the_oldest() {
        let mut ring = Ring::new(Offset::ZERO, 3 * 258);
        for seq in 1..=10 {
            ring.push(ring.tail(), vec![entry(1, seq)]);
        }
        assert_eq!(seqs(&ring, Offset::new(1, 7)), Some(vec![8, 9, 10]));
        assert_eq!(seqs(&ring, Offset::new(1, 6)), None);
    }

    #[test]
    fn a_roll_back_keeps_what_the_log_still_has() {
        let mut ring = Ring::new(Offset::ZERO, 1 << 20);
        ring.push(Offset::ZERO, (1..=5).map(|seq| entry(1, seq)).collect());
        ring.roll_back(Offset::new(1, 3));
        assert_eq!(ring.tail(), Offset::new(1, 3));
        assert_eq!(ring.push(Offset::new(1, 3), vec![entry(2, 4)]), Pushed::Extended);
        assert_eq!(seqs(&ring, Offset::new(1, 4)), None);
        ring.roll_back(Offset::ZERO);
        assert_eq!((ring.tail(), seqs(&ring, Offset::ZERO)), (Offset::ZERO, Some(vec![])));
    }
}
