//! The owner's books: which records wait to be appended, and which of the caller's bytes wait for
//! them. Sans-I/O.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::session::Record;

/// Bounds of one append.
const MAX_RECORDS: usize = 512;
const MAX_BYTES: usize = 1 << 20;

/// Numbers the entries of a run and holds bytes back until their entries are stored.
#[derive(Debug)]
pub(super) struct Books {
    waiting: VecDeque<Record>,
    waiting_bytes: usize,
    /// Number of the first waiting record.
    next_n: u64,
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

impl Books {
    /// Books of a run whose first `opened` entries are written by its opening.
    pub(super) fn new(opened: u64) -> Self {
        Books { waiting: VecDeque::new(), waiting_bytes: 0, next_n: opened + 1, held: VecDeque::new(), held_bytes: 0 }
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
        self.next_n + self.waiting.len() as u64 - 1
    }

    /// Whether nothing waits to be appended.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether bytes of the caller wait.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Bytes in memory: records that wait, and bytes held back.
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes + self.held_bytes
    }

    /// The next records to append, and the number of the first.
    pub(super) fn take_batch(&mut self) -> Option<(u64, Vec<Record>)> {
        let mut bytes = 0;
        let fits = |record: &&Record| {
            bytes += record.size();
            bytes <= MAX_BYTES
        };
        let count = self.waiting.iter().take(MAX_RECORDS).take_while(fits).count().max(1).min(self.waiting.len());
        let records: Vec<_> = self.waiting.drain(..count).collect();
        let first_n = self.next_n;
        self.next_n += records.len() as u64;
        self.waiting_bytes -= records.iter().map(Record::size).sum::<usize>();
        (!records.is_empty()).then_some((first_n, records))
    }

    /// Gives up what waits; its numbers are used again.
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

    /// The store has only the first `n` entries: the next record is number `n + 1`. Nothing waits.
    pub(super) fn go_on_after(&mut self, n: u64) {
        debug_assert!(self.is_settled());
        self.next_n = n + 1;
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
        let (first_n, records) = books.take_batch().unwrap();
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
    fn batches_are_bounded_but_never_empty() {
        let mut books = Books::new(1);
        (0..600).for_each(|_| books.record(record()));
        assert_eq!(books.take_batch().map(|(n, r)| (n, r.len())), Some((2, 512)));
        assert_eq!(books.take_batch().map(|(n, r)| (n, r.len())), Some((514, 88)));
        assert_eq!(books.take_batch(), None);
        let large = Record { data: "x".repeat(2 * MAX_BYTES).into(), ..record() };
        books.record(large.clone());
        books.record(large);
        assert_eq!(books.take_batch().map(|(n, r)| (n, r.len())), Some((602, 1)));
    }
}
