//! The compactor: entries in, in order; the same entries out, with blocks of deltas merged.

use std::ops::Range;
use std::sync::Arc;

use super::lane::{Fit, Lane};
use super::shape::Shape;
use crate::dialect::Dialect;
use crate::session::{Entry, Kind, Offset, RunId};

/// The most that the merged data of one block may have, bytes. An event that is longer is given out as it is.
pub const BLOCK_BYTES: usize = 64 << 10;

/// The most runs whose deltas one block may have; another one ends it.
const RUNS: usize = 16;

/// What holds an entry of the log.
pub trait Placed {
    /// The entry.
    fn entry(&self) -> &Entry;
}

impl Placed for Arc<Entry> {
    fn entry(&self) -> &Entry {
        self
    }
}

/// What a compactor gives out.
#[derive(Debug)]
pub enum Compacted<T> {
    /// An entry as it is in the log.
    Entry(T),
    /// The deltas of one run in a block.
    Merged(Box<Merged>),
}

/// The deltas of one run in a block, as one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The record, at the offset of the block's last entry.
    pub entry: Entry,
    /// The offset of the block's first entry.
    pub first: Offset,
    /// Which of the block's records this is, from 1, and how many there are. A reader's cursor moves with
    /// the last.
    pub part: (usize, usize),
}

/// Merges what may be merged of the entries that it is given. A *block* is a contiguous range of them, all
/// of which are deltas; it becomes one record for each of its runs.
pub struct Compactor<T> {
    /// Runs that are known to have deltas, in the open block or before.
    lanes: Vec<Lane<T>>,
    /// The lanes of the open block, in order of their first entries.
    open: Vec<usize>,
    first: Offset,
    last: Offset,
    members: usize,
    size: usize,
    /// The lane of the entry before.
    recent: usize,
    /// Where the texts of an event are; kept for its memory.
    texts: Vec<Range<usize>>,
}

impl<T: Placed> Default for Compactor<T> {
    fn default() -> Self {
        Compactor {
            lanes: Vec::new(),
            open: Vec::new(),
            first: Offset::ZERO,
            last: Offset::ZERO,
            members: 0,
            size: 0,
            recent: 0,
            texts: Vec::new(),
        }
    }
}

impl<T: Placed> Compactor<T> {
    /// Takes the next entry, and gives out what cannot be merged with it. `dialect` is asked for the
    /// dialect of a run that has not been seen before; it must not change while the run lasts.
    pub fn push(&mut self, item: T, dialect: impl FnOnce(&RunId) -> Option<Arc<Dialect>>, out: &mut Vec<Compacted<T>>) {
        let record = &item.entry().record;
        // What would be a block of its own is not looked into: what is kept of it would be as large.
        let fits = record.kind == Kind::Event && record.data.len() <= BLOCK_BYTES;
        let Some(run) = record.run.as_ref().filter(|_| fits) else {
            return self.pass(item, out);
        };
        match self.lane_of(run) {
            Some(lane) => match self.lanes[lane].fit(record, &mut self.texts) {
                Fit::Same => self.take(lane, item, out),
                Fit::Structural => self.pass(item, out),
                Fit::Other(shape) => {
                    if self.lanes[lane].is_open() {
                        self.flush(out);
                    }
                    self.lanes[lane].turn(shape, record);
                    self.begin(lane, item, out);
                }
            },
            None => {
                let Some(dialect) = dialect(run) else { return self.pass(item, out) };
                let Some(shape) = Shape::of(&dialect, record.event.as_deref(), &record.data) else {
                    return self.pass(item, out);
                };
                if self.lanes.len() == RUNS {
                    self.flush(out);
                    self.lanes.clear();
                }
                self.lanes.push(Lane::new(run.clone(), dialect, shape, record));
                self.begin(self.lanes.len() - 1, item, out);
            }
        }
    }

    /// Gives out what is held back.
    pub fn flush(&mut self, out: &mut Vec<Compacted<T>>) {
        let parts = self.open.len();
        let as_they_are = self.members == parts;
        for (part, lane) in self.open.drain(..).enumerate() {
            let Some((newest, record)) = self.lanes[lane].close(&mut self.texts) else { continue };
            out.push(match as_they_are {
                true => Compacted::Entry(newest),
                false => {
                    let entry = Entry { offset: self.last, record };
                    Compacted::Merged(Box::new(Merged { entry, first: self.first, part: (part + 1, parts) }))
                }
            });
        }
        (self.members, self.size) = (0, 0);
    }

    /// Whether nothing is held back.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What is no delta ends the block.
    fn pass(&mut self, item: T, out: &mut Vec<Compacted<T>>) {
        self.flush(out);
        out.push(Compacted::Entry(item));
    }

    /// Takes the event that the lane's shape is from.
    fn begin(&mut self, lane: usize, item: T, out: &mut Vec<Compacted<T>>) {
        self.texts.clear();
        self.texts.extend_from_slice(self.lanes[lane].texts());
        self.take(lane, item, out);
    }

    /// Takes an event that fits, in this block or, if that is full, in the next one.
    fn take(&mut self, lane: usize, item: T, out: &mut Vec<Compacted<T>>) {
        let mut growth = self.lanes[lane].growth(&item.entry().record, &self.texts);
        if !self.open.is_empty() && self.size + growth > BLOCK_BYTES {
            let texts = std::mem::take(&mut self.texts);
            self.flush(out);
            self.texts = texts;
            growth = item.entry().record.data.len();
        }
        let offset = item.entry().offset;
        if self.open.is_empty() {
            self.first = offset;
        }
        if !self.lanes[lane].is_open() {
            self.open.push(lane);
        }
        self.lanes[lane].take(item, &self.texts);
        self.last = offset;
        self.members += 1;
        self.size += growth;
        self.recent = lane;
    }

    fn lane_of(&self, run: &RunId) -> Option<usize> {
        let is = |lane: &Lane<T>| lane.run == *run;
        if self.lanes.get(self.recent).is_some_and(is) {
            return Some(self.recent);
        }
        self.lanes.iter().position(is)
    }
}
