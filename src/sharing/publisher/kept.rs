//! What was published in one session, each entry with its exact offset.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use crate::session::{Offset, Record};

/// Bytes of what was published that are kept.
const KEPT_BYTES: usize = 8 << 20;

/// What a line may have to publish once more, in the order in which it was kept.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) entries: VecDeque<Entry>,
    /// The largest offset that was ever kept.
    highest: Offset,
    all_bytes: Arc<AtomicUsize>,
}

pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) offset: Offset,
    at: Instant,
    /// It stands after all that were kept before it. Several write to a session at once, and need not come here in
    /// the order of their entries.
    pub(super) in_order: bool,
}

impl Kept {
    /// Nothing yet; `all_bytes` counts what all keep.
    pub(super) fn new(all_bytes: Arc<AtomicUsize>) -> Self {
        Kept { all_bytes, entries: VecDeque::new(), highest: Offset::ZERO }
    }

    /// Keeps an entry that stands at `offset`.
    pub(super) fn keep(&mut self, record: Record, offset: Offset) {
        self.add(record, offset, Instant::now());
        while self.all_bytes.load(Ordering::Acquire) > KEPT_BYTES && self.let_go_oldest() {}
    }

    fn add(&mut self, record: Record, offset: Offset, at: Instant) {
        self.all_bytes.fetch_add(Self::cost(&record), Ordering::AcqRel);
        let in_order = offset > self.highest;
        self.highest = self.highest.max(offset);
        self.entries.push_back(Entry { record, offset, at, in_order });
    }

    /// The entry that stood at `index` stands at `offset` now, after all others.
    pub(super) fn moved(&mut self, index: usize, offset: Offset) {
        if let Some(Entry { record, at, .. }) = self.let_go(index) {
            self.add(record, offset, at);
        }
    }

    /// Lets go of what was kept before `horizon`.
    pub(super) fn let_go_before(&mut self, horizon: Instant) {
        while self.entries.front().is_some_and(|entry| entry.at < horizon) && self.let_go_oldest() {}
    }

    /// Lets go of what was kept first. `false`: nothing is kept.
    pub(super) fn let_go_oldest(&mut self) -> bool {
        self.let_go(0).is_some()
    }

    /// Lets go of one.
    pub(super) fn let_go(&mut self, index: usize) -> Option<Entry> {
        let entry = self.entries.remove(index)?;
        self.all_bytes.fetch_sub(Self::cost(&entry.record), Ordering::AcqRel);
        Some(entry)
    }

    fn cost(record: &Record) -> usize {
        size_of::<Entry>() + record.size()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        while self.let_go_oldest() {}
    }
}
