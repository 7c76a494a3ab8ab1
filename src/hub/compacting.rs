//! What a reader that asked for merged entries is given in place of what its cursor brings: the replay
//! compacted, and live entries rolled up over short windows of time.
//!
//! It holds back at most one block, until what does not belong to it comes, the replay ends, or the
//! window does. The first delta after a pause is never held back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::dialect::compact::{Compacted, Compactor, Placed};
use crate::hub::{Item, RunDialects};
use crate::session::Entry;

/// What a reader wants to be merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// What was in the log when it came.
    pub replay: bool,
    /// Live deltas that come within so long of one another; zero: none.
    pub window: Duration,
}

impl Merge {
    /// Whether there is anything to merge.
    pub fn is_none(self) -> bool {
        self == Merge::default()
    }
}

impl Placed for Arc<Item> {
    fn entry(&self) -> &Entry {
        Item::entry(self)
    }
}

/// See the module. The entries that it is given must pass the reader's filter: a block is a range of
/// these.
pub struct Compacting {
    merge: Merge,
    dialects: RunDialects,
    compactor: Compactor<Arc<Item>>,
    live: bool,
    /// When what is held back of live entries goes out. `None`: there was a pause; what comes goes at once.
    due: Option<Instant>,
    /// What is held back began after something that is no delta, or another kind of delta: it does not
    /// wait for the window's end.
    fresh: bool,
}

impl Compacting {
    /// For a reader at the beginning of its replay.
    pub fn new(merge: Merge, dialects: RunDialects) -> Self {
        Compacting { merge, dialects, compactor: Compactor::default(), live: false, due: None, fresh: false }
    }

    /// Finds out what it must know before it is given this entry. Cancel-safe.
    pub async fn meet(&mut self, entry: &Entry) {
        self.dialects.meet(entry).await;
    }

    /// Takes the next entry.
    pub fn push(&mut self, item: Arc<Item>, out: &mut Vec<Compacted<Arc<Item>>>) {
        let merges = if self.live { !self.merge.window.is_zero() } else { self.merge.replay };
        if !merges {
            return out.push(Compacted::Entry(item));
        }
        let before = out.len();
        let dialects = &self.dialects;
        self.compactor.push(item, |run| dialects.of(run), out);
        self.fresh |= out.len() > before;
    }

    /// Everything that is there now was pushed.
    pub fn settle(&mut self, now: Instant, out: &mut Vec<Compacted<Arc<Item>>>) {
        if !self.live || self.merge.window.is_zero() {
            return;
        }
        if std::mem::take(&mut self.fresh) || self.due.is_none() {
            self.due = (!self.compactor.is_empty()).then(|| now + self.merge.window);
            self.compactor.flush(out);
        }
    }

    /// When [`Compacting::elapse`] is to be called.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The window is over.
    pub fn elapse(&mut self, now: Instant, out: &mut Vec<Compacted<Arc<Item>>>) {
        self.due = (!self.compactor.is_empty()).then(|| now + self.merge.window);
        self.compactor.flush(out);
    }

    /// What comes next does not follow what is held back.
    pub fn flush(&mut self, out: &mut Vec<Compacted<Arc<Item>>>) {
        self.compactor.flush(out);
        (self.due, self.fresh) = (None, false);
    }

    /// The replay is over.
    pub fn now_live(&mut self, out: &mut Vec<Compacted<Arc<Item>>>) {
        self.flush(out);
        self.live = true;
    }
}
