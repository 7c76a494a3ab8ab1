//! What a writer keeps of what it appended, and how its entries are numbered, for the day on which
//! the store goes back in time: then the writer appends again what the store has lost. Sans-I/O.
//!
//! A writer numbers its entries from 1, a number is never given to another entry, and the store knows the
//! number of the newest that it has. What was lost and is not kept any more is named by one entry ([`Lost`]), which
//! has the last number of the range and is appended with `Append::skips`. So an entry's number is its place among all
//! that the writer has ever said, here, in the store and for a reader who counts a `lost` entry as the
//! range that it names.
//!
//! Must never: let go of what the store has not acknowledged (it is called for that only after an
//! acknowledgement), or of the newest entry, by which the store is asked whether it has everything.

use std::collections::VecDeque;
use std::mem::size_of;

use tokio::time::Instant;

use crate::session::Record;

/// The newest entries of one writer, and the numbers of all.
#[derive(Debug)]
pub(crate) struct Retained {
    /// Without a break, up to `last_n`.
    kept: VecDeque<Kept>,
    bytes: usize,
    last_n: u64,
}

#[derive(Debug)]
struct Kept {
    record: Record,
    at: Instant,
}

/// Entries that neither the store nor its writer has any more, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The first.
    pub(crate) from_n: u64,
    /// The last.
    pub(crate) to_n: u64,
}

/// What is to be appended again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Again {
    /// To be said before the rest, in one entry.
    pub(crate) lost: Option<Lost>,
    /// The rest.
    pub(crate) records: Vec<Record>,
}

impl Lost {
    /// How many.
    pub(crate) fn count(self) -> u64 {
        self.to_n + 1 - self.from_n
    }
}

impl Kept {
    /// Bytes in memory.
    fn cost(&self) -> usize {
        self.record.size() + size_of::<Kept>()
    }
}

impl Retained {
    /// Of a writer whose first `n` entries are kept elsewhere.
    pub(crate) fn after(n: u64) -> Self {
        Retained { kept: VecDeque::new(), bytes: 0, last_n: n }
    }

    /// The number of the newest entry that was appended.
    pub(crate) fn last_n(&self) -> u64 {
        self.last_n
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// These entries are being appended.
    pub(crate) fn append(&mut self, records: &[Record], at: Instant) {
        self.last_n += records.len() as u64;
        for record in records {
            let kept = Kept { record: record.clone(), at };
            self.bytes += kept.cost();
            self.kept.push_back(kept);
        }
    }

    /// The newest entry, where it is kept.
    pub(crate) fn newest(&self) -> Option<&Record> {
        self.kept.back().map(|kept| &kept.record)
    }

    /// The store has the entries of this writer only up to number `n`: what is to be appended again, as if for
    /// the first time. What is `lost` counts as appended by now.
    pub(crate) fn go_back_to(&mut self, n: u64) -> Again {
        if n >= self.last_n {
            return Again::default();
        }
        let first_kept = self.last_n + 1 - self.kept.len() as u64;
        let stays = usize::try_from((n + 1).saturating_sub(first_kept)).unwrap_or(usize::MAX);
        let records: Vec<Record> = self.kept.drain(stays.min(self.kept.len())..).map(|kept| kept.record).collect();
        self.bytes = self.kept.iter().map(Kept::cost).sum();
        let lost = (n + 1 < first_kept).then(|| Lost { from_n: n + 1, to_n: first_kept - 1 });
        self.last_n = lost.map_or(n, |lost| lost.to_n);
        Again { lost, records }
    }

    /// Lets go of what was appended before `until`, and of what is oldest above `max_bytes`.
    pub(crate) fn let_go(&mut self, until: Instant, max_bytes: usize) {
        while self.kept.front().is_some_and(|oldest| oldest.at < until || self.bytes > max_bytes) {
            if !self.let_go_oldest() {
                return;
            }
        }
    }

    /// Lets go of the oldest entry, unless it is the newest. `false`: it is, or nothing is kept.
    pub(crate) fn let_go_oldest(&mut self) -> bool {
        if self.kept.len() < 2 {
            return false;
        }
        let oldest = self.kept.pop_front();
        self.bytes -= oldest.as_ref().map_or(0, Kept::cost);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::Kind;

    fn record(n: u64) -> Record {
        let data = n.to_string().into();
        Record { kind: Kind::Event, run: None, source: None, event: None, id: None, data }
    }

    fn numbers(records: &[Record]) -> Vec<u64> {
        records.iter().map(|record| record.data.parse().unwrap()).collect()
    }

    fn appended(retained: &mut Retained, count: u64) {
        let first = retained.last_n() + 1;
        let records: Vec<_> = (first..first + count).map(record).collect();
        retained.append(&records, Instant::now());
    }

    #[test]
    fn what_the_store_has_lost_comes_again_and_nothing_else() {
        for (count, expected) in [(5, vec![]), (4, vec![5]), (2, vec![3, 4, 5])] {
            let mut retained = Retained::after(2);
            appended(&mut retained, 3);
            let again = retained.go_back_to(count);
            assert_eq!((again.lost, numbers(&again.records)), (None, expected));
            assert_eq!(retained.last_n(), count);
        }
    }

    #[test]
    fn what_is_not_kept_any_more_is_named() {
        let (mut retained, begun) = (Retained::after(1), Instant::now());
        appended(&mut retained, 9);
        retained.let_go(begun, 2 * size_of::<Kept>() + "9".len() + "10".len());
        let again = retained.go_back_to(3);
        assert_eq!(again.lost, Some(Lost { from_n: 4, to_n: 8 }));
        assert_eq!(numbers(&again.records), [9, 10]);
        assert_eq!(retained.last_n(), 8);
    }

    #[test]
    fn a_store_that_goes_back_behind_a_hole_finds_the_hole_larger() {
        let mut retained = Retained::after(1);
        appended(&mut retained, 9);
        while retained.let_go_oldest() {}
        assert_eq!(retained.go_back_to(5).lost, Some(Lost { from_n: 6, to_n: 9 }));
        appended(&mut retained, 3);
        let again = retained.go_back_to(10);
        assert_eq!((again.lost, numbers(&again.records)), (None, vec![11, 12]));
        retained.append(&again.records, Instant::now());
        let again = retained.go_back_to(2);
        assert_eq!((again.lost, numbers(&again.records)), (Some(Lost { from_n: 3, to_n: 9 }), vec![10, 11, 12]));
    }

    #[test]
    fn the_newest_entry_stays_however_old_and_large_it_is() {
        let mut retained = Retained::after(1);
        appended(&mut retained, 5);
        retained.let_go(Instant::now() + std::time::Duration::from_secs(1), 0);
        assert_eq!(retained.newest(), Some(&record(6)));
        assert_eq!(retained.bytes(), record(6).size() + size_of::<Kept>());
    }

    /// What a store has of the writer: entries, and what stands for ranges.
    #[derive(Clone, Copy, Debug)]
    enum Stored {
        Entry(u64),
        Lost(Lost),
    }

    /// The number of the newest entry that it has.
    fn newest(store: &[Stored]) -> u64 {
        match *store.last().unwrap() {
            Stored::Entry(n) | Stored::Lost(Lost { to_n: n, .. }) => n,
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Append(u64),
        LetGo(u8),
        GoBack(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..5_u64).prop_map(Step::Append),
            (0..6_u8).prop_map(Step::LetGo),
            (0..12_u8).prop_map(Step::GoBack),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_store_has_or_names_every_number_once_and_in_order(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let mut retained = Retained::after(1);
            let mut store = vec![Stored::Entry(1)];
            for step in steps {
                match step {
                    Step::Append(count) => {
                        let first = retained.last_n() + 1;
                        prop_assert_eq!(first, newest(&store) + 1);
                        appended(&mut retained, count);
                        store.extend((first..first + count).map(Stored::Entry));
                    }
                    Step::LetGo(count) => (0..count).for_each(|_| { retained.let_go_oldest(); }),
                    Step::GoBack(count) => {
                        // The opening is there, or was written again.
                        store.truncate(store.len().saturating_sub(usize::from(count)).max(1));
                        let again = retained.go_back_to(newest(&store));
                        store.extend(again.lost.map(Stored::Lost));
                        prop_assert_eq!(retained.last_n(), newest(&store));
                        store.extend(numbers(&again.records).into_iter().map(Stored::Entry));
                        retained.append(&again.records, Instant::now());
                    }
                }
                let said = store.iter().flat_map(|stored| match *stored {
                    Stored::Entry(n) => n..=n,
                    Stored::Lost(Lost { from_n, to_n }) => from_n..=to_n,
                });
                prop_assert!(said.eq(1..=retained.last_n()), "{:?}", store);
            }
        }
    }
}
