//! The owner's books: which records wait to be appended, which of the caller's bytes wait for them,
//! and what was appended and may have to be once more. Sans-I/O.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use crate::log::{Again, Lost, Retained};
use crate::session::Record;

/// Bounds of one append.
const MAX_RECORDS: usize = 512;
const MAX_BYTES: usize = 1 << 20;

/// Numbers the entries of a run and holds bytes back until their entries are stored.
#[derive(Debug)]
pub(super) struct Books {
    retained: Retained,
    /// To be said before what waits.
    lost: Option<Lost>,
    waiting: VecDeque<Record>,
    waiting_bytes: usize,
    held: VecDeque<Held>,
    held_bytes: usize,
}

/// Bytes of the upstream that may go to the direct caller once entry `n` is stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The entry they wait for.
    pub(super) n: u64,
    /// The bytes.
    pub(super) raw: Bytes,
    /// Whether they are the block of entry `n` (else they carry no event: comments and the like).
    pub(super) event: bool,
}

/// What to append next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The number of the first record.
    pub(super) first_n: u64,
    /// The records.
    pub(super) records: Vec<Record>,
    /// Whether the first record stands for those before it.
    pub(super) skips: bool,
}

impl Books {
    /// Books of a run whose first `opened` entries are written by its opening.
    pub(super) fn new(opened: u64) -> Self {
        Books {
            retained: Retained::after(opened),
            lost: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// An entry with the bytes that carry it.
    pub(super) fn event(&mut self, record: Record, raw: Bytes) {
        self.record(record);
        self.hold(raw, true);
    }

    /// An entry without bytes of the caller.
    pub(super) fn record(&mut self, record: Record) {
        self.waiting_bytes += record.size();
        self.waiting.push_back(record);
    }

    /// Bytes without an entry: they keep their place after the entries before them.
    pub(super) fn filler(&mut self, raw: Bytes) {
        self.hold(raw, false);
    }

    fn hold(&mut self, raw: Bytes, event: bool) {
        self.held_bytes += raw.len();
        self.held.push_back(Held { n: self.last_n(), raw, event });
    }

    /// The number of the newest entry.
    pub(super) fn last_n(&self) -> u64 {
        self.retained.last_n() + self.waiting.len() as u64
    }

    /// The number of the newest entry that was appended: where no append is under way, that is stored.
    pub(super) fn appended_n(&self) -> u64 {
        self.retained.last_n()
    }

    /// Whether nothing waits to be appended.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.lost.is_none()
    }

    /// Whether bytes of the caller wait.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Bytes in memory: records that wait, and bytes held back.
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes + self.held_bytes
    }

    /// The next records to append. `say` makes the entry that names what is lost.
    pub(super) fn take_batch(&mut self, now: Instant, say: impl FnOnce(Lost) -> Record) -> Option<Batch> {
        let mut bytes = 0;
        let fits = |record: &&Record| {
            bytes += record.size();
            bytes <= MAX_BYTES
        };
        let count = self.waiting.iter().take(MAX_RECORDS).take_while(fits).count().max(1).min(self.waiting.len());
        let mut records: Vec<_> = self.waiting.drain(..count).collect();
        self.waiting_bytes -= records.iter().map(Record::size).sum::<usize>();
        let mut first_n = self.retained.last_n() + 1;
        self.retained.append(&records, now);
        let lost = self.lost.take();
        let skips = lost.is_some();
        if let Some(lost) = lost {
            first_n = lost.to_n;
            records.insert(0, say(lost));
        }
        (!records.is_empty()).then_some(Batch { first_n, records, skips })
    }

    /// The newest entry that was appended, and its number; `None`: none after the opening.
    pub(super) fn newest(&self) -> Option<(u64, &Record)> {
        Some((self.retained.last_n(), self.retained.newest()?))
    }

    /// The store has the entries of this run only up to number `n`: the rest waits once more, before what waits. How
    /// many that are, and what of them is lost.
    pub(super) fn go_back_to(&mut self, n: u64) -> (usize, Option<Lost>) {
        let Again { lost, records } = self.retained.go_back_to(n);
        let again = records.len();
        for record in records.into_iter().rev() {
            self.waiting_bytes += record.size();
            self.waiting.push_front(record);
        }
        self.lost = lost;
        (again, lost)
    }

    /// What was appended, to let go of it. Only while no append is under way.
    pub(super) fn retained(&mut self) -> &mut Retained {
        &mut self.retained
    }

    /// Bytes in memory of what was appended.
    pub(super) fn retained_bytes(&self) -> usize {
        self.retained.bytes()
    }

    /// Gives up what waits; its numbers are used again. What is lost is still said.
    pub(super) fn abandon(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    /// Takes back the newest record that waits.
    pub(super) fn withdraw(&mut self) -> Option<Record> {
        let record = self.waiting.pop_back()?;
        self.waiting_bytes -= record.size();
        Some(record)
    }

    /// The next bytes that may go once entry `n` is stored.
    pub(super) fn release(&mut self, n: u64) -> Option<Held> {
        if self.held.front()?.n > n {
            return None;
        }
        let held = self.held.pop_front()?;
        self.held_bytes -= held.raw.len();
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Kind;

    fn record() -> Record {
        Record { kind: Kind::Event, run: None, source: None, event: None, id: None, data: "x".into() }
    }

    fn take(books: &mut Books) -> Option<(u64, Vec<Record>)> {
        let name = |Lost { from_n, to_n }| Record { data: format!("{from_n} to {to_n}").into(), ..record() };
        let skipped = books.lost.is_some();
        let Batch { first_n, records, skips } = books.take_batch(Instant::now(), name)?;
        assert_eq!(skips, skipped);
        Some((first_n, records))
    }

    fn released(books: &mut Books, n: u64) -> Vec<&'static str> {
        let names = ["a", ":c", "b"];
        std::iter::from_fn(|| books.release(n)).map(|h| *names.iter().find(|name| ***name == h.raw).unwrap()).collect()
    }

    #[test]
    fn bytes_wait_for_their_entry_and_keep_their_order() {
        let mut books = Books::new(1);
        books.event(record(), Bytes::from_static(b"a"));
        books.filler(Bytes::from_static(b":c"));
        books.event(record(), Bytes::from_static(b"b"));
        assert_eq!(released(&mut books, 1), Vec::<&str>::new());
        let (first_n, records) = take(&mut books).unwrap();
        assert_eq!((first_n, records.len()), (2, 2));
        assert_eq!(released(&mut books, 2), ["a", ":c"]);
        assert_eq!(released(&mut books, 3), ["b"]);
        assert_eq!((books.bytes(), books.is_settled()), (0, true));
    }

    #[test]
    fn a_comment_before_the_first_event_waits_for_the_opening_alone() {
        let mut books = Books::new(2);
        books.filler(Bytes::from_static(b":c"));
        assert_eq!(released(&mut books, 2), [":c"]);
    }

    #[test]
    fn what_the_store_has_lost_waits_again_before_what_waits_and_keeps_its_numbers() {
        let named = |data: &str| Record { data: data.to_owned().into(), ..record() };
        let data = |batch: Option<(u64, Vec<Record>)>| {
            batch.map(|(n, records)| (n, records.iter().map(|r| r.data.to_string()).collect::<Vec<_>>()))
        };
        let batch = |n: u64, of: &[&str]| Some((n, of.iter().map(|data| (*data).to_owned()).collect::<Vec<_>>()));
        let mut books = Books::new(1);
        ["2", "3", "4"].into_iter().for_each(|n| books.record(named(n)));
        assert_eq!(data(take(&mut books)), batch(2, &["2", "3", "4"]));
        books.event(named("5"), Bytes::from_static(b"b"));
        assert_eq!(books.go_back_to(2), (2, None));
        assert_eq!((books.last_n(), books.appended_n()), (5, 2));
        assert_eq!(data(take(&mut books)), batch(3, &["3", "4", "5"]));
        assert_eq!((books.appended_n(), released(&mut books, 5)), (5, vec!["b"]));
        // Of what is not kept any more, one entry tells.
        while books.retained().let_go_oldest() {}
        books.record(named("6"));
        assert_eq!(books.go_back_to(1), (1, Some(Lost { from_n: 2, to_n: 4 })));
        assert!(!books.is_settled());
        assert_eq!(data(take(&mut books)), batch(4, &["2 to 4", "5", "6"]));
        assert_eq!(
            (books.appended_n(), books.newest().map(|(n, r)| (n, r.data.to_string()))),
            (6, Some((6, "6".into())))
        );
    }

    #[test]
    fn batches_are_bounded_but_never_empty() {
        let mut books = Books::new(1);
        (0..600).for_each(|_| books.record(record()));
        assert_eq!(take(&mut books).map(|(n, r)| (n, r.len())), Some((2, 512)));
        assert_eq!(take(&mut books).map(|(n, r)| (n, r.len())), Some((514, 88)));
        assert_eq!(take(&mut books), None);
        let large = Record { data: "x".repeat(2 * MAX_BYTES).into(), ..record() };
        books.record(large.clone());
        books.record(large);
        assert_eq!(take(&mut books).map(|(n, r)| (n, r.len())), Some((602, 1)));
    }
}
