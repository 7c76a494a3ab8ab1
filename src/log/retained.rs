//! What a writer keeps of what it appended, and how its entries are numbered, for the day on which
//! the store goes back in time: then the writer appends again what the store has lost. Sans-I/O.
//!
//! A writer numbers its entries from 1, and a number is never given to another entry. The store counts
//! what it has of the writer. Both agree until something was lost that is not kept any more: its place
//! is taken by *one* entry that names the range ([`Lost`]), so that the store's count stays behind the
//! writer's numbers from there on by what the range has more than that. So the store needs to know
//! nothing of holes (its rule "number = count + 1" holds always), and an entry's number is its place among
//! all that the writer has ever said, which is what a reader counts who counts a `lost` entry as the
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
    /// Oldest first.
    holes: Vec<Hole>,
}

#[derive(Debug)]
struct Kept {
    record: Record,
    at: Instant,
}

/// A range that the store has one entry for.
#[derive(Clone, Copy, Debug)]
struct Hole {
    /// That entry, as the store counts.
    at: u64,
    /// How far the store's count is behind the writer's numbers from there on.
    behind: u64,
}

/// Entries that neither the store nor its writer has any more, by the writer's numbers.
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
        Retained { kept: VecDeque::new(), bytes: 0, last_n: n, holes: Vec::new() }
    }

    /// The number of the newest entry that was appended.
    pub(crate) fn last_n(&self) -> u64 {
        self.last_n
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How the store counts entry `n`, which is not older than the newest hole.
    pub(crate) fn in_store(&self, n: u64) -> u64 {
        n - self.holes.last().map_or(0, |hole| hole.behind)
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

    /// The store has only `count` entries of this writer: what is to be appended again, as if for the
    /// first time. What is `lost` counts as appended by now.
    pub(crate) fn go_back_to(&mut self, count: u64) -> Again {
        while self.holes.last().is_some_and(|hole| hole.at > count) {
            self.holes.pop();
        }
        let has = count + self.holes.last().map_or(0, |hole| hole.behind);
        if has >= self.last_n {
            return Again::default();
        }
        let first_kept = self.last_n + 1 - self.kept.len() as u64;
        let stays = usize::try_from((has + 1).saturating_sub(first_kept)).unwrap_or(usize::MAX);
        let records: Vec<Record> = self.kept.drain(stays.min(self.kept.len())..).map(|kept| kept.record).collect();
        self.bytes = self.kept.iter().map(Kept::cost).sum();
        let lost = (has + 1 < first_kept).then(|| Lost { from_n: has + 1, to_n: first_kept - 1 });
        match lost {
            Some(lost) => {
                self.holes.push(Hole { at: count + 1, behind: lost.to_n - count - 1 });
                self.last_n = lost.to_n;
            }
            None => self.last_n = has,
        }
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
            assert_eq!((retained.last_n(), retained.in_store(retained.last_n())), (count, count));
        }
    }

    #[test]
    fn what_is_not_kept_any_more_is_named_and_takes_one_place_in_the_store() {
        let (mut retained, begun) = (Retained::after(1), Instant::now());
        appended(&mut retained, 9);
        retained.let_go(begun, 2 * size_of::<Kept>() + "9".len() + "10".len());
        let again = retained.go_back_to(3);
        assert_eq!(again.lost, Some(Lost { from_n: 4, to_n: 8 }));
        assert_eq!(numbers(&again.records), [9, 10]);
        // The entry that says so is the store's fourth, the next its fifth.
        assert_eq!((retained.in_store(8), retained.in_store(9)), (4, 5));
    }

    #[test]
    fn a_store_that_goes_back_behind_a_hole_finds_the_hole_larger() {
        let mut retained = Retained::after(1);
        appended(&mut retained, 9);
        while retained.let_go_oldest() {}
        assert_eq!(retained.go_back_to(5).lost, Some(Lost { from_n: 6, to_n: 9 }));
        appended(&mut retained, 3);
        // The store has what stands for 6 to 9, and 10.
        assert_eq!(retained.in_store(10), 7);
        let again = retained.go_back_to(7);
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
                        prop_assert_eq!(retained.in_store(first), store.len() as u64 + 1);
                        appended(&mut retained, count);
                        store.extend((first..first + count).map(Stored::Entry));
                    }
                    Step::LetGo(count) => (0..count).for_each(|_| { retained.let_go_oldest(); }),
                    Step::GoBack(count) => {
                        // The opening is there, or was written again.
                        store.truncate(store.len().saturating_sub(usize::from(count)).max(1));
                        let again = retained.go_back_to(store.len() as u64);
                        store.extend(again.lost.map(Stored::Lost));
                        let first = retained.last_n() + 1;
                        prop_assert_eq!(retained.in_store(first), store.len() as u64 + 1);
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
