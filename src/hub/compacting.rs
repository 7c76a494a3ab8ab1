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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Dialect, Dialects};
    use crate::log::scripted::Scripted;
    use crate::session::{Kind, Offset, Record, RunId, RunState, SessionId};

    const WINDOW: Duration = Duration::from_millis(100);

    /// A live reader, at its moment 0; each step pushes what has come (`|` ends what came at once, `!` is no
    /// delta) or lets milliseconds pass, and says what goes out.
    struct Reader {
        compacting: Compacting,
        seq: u64,
        began: Instant,
        now: Instant,
    }

    impl Reader {
        async fn new() -> Self {
            let own = Dialect::read("name = \"own\"\n[[delta]]\ntext = \"/t\"\n[[delta]]\ntext = \"/u\"").unwrap();
            let dialects = Arc::new(Dialects::new([own]));
            let session = SessionId::parse("s").unwrap();
            let dialects = RunDialects::new(Arc::new(Scripted::default()), dialects, session);
            let mut compacting = Compacting::new(Merge { replay: false, window: WINDOW }, dialects);
            let run = RunId::parse("r").unwrap();
            let record = Record::run_state(run, RunState::Started, r#"{"dialect":"own"}"#);
            compacting.meet(&Entry { offset: Offset::new(1, 1), record }).await;
            compacting.now_live(&mut Vec::new());
            let now = Instant::now();
            Reader { compacting, seq: 1, began: now, now }
        }

        /// What goes out when these have come at once: `t` and `u` are deltas, of two kinds.
        fn come(&mut self, names: &str) -> Vec<usize> {
            let mut out = Vec::new();
            for name in names.chars() {
                self.seq += 1;
                let run = Some(RunId::parse("r").unwrap());
                let data = format!("{{\"{name}\":\"x\"}}").into();
                let record = Record { kind: Kind::Event, run, source: None, event: None, id: None, data };
                self.compacting.push(Item::new(Arc::new(Entry { offset: Offset::new(1, self.seq), record })), &mut out);
            }
            self.compacting.settle(self.now, &mut out);
            sizes(&out)
        }

        /// What goes out until so many milliseconds after the beginning.
        fn until(&mut self, ms: u64) -> Vec<usize> {
            let mut out = Vec::new();
            let then = self.began + Duration::from_millis(ms);
            while let Some(due) = self.compacting.due().filter(|due| *due <= then) {
                self.compacting.elapse(due, &mut out);
            }
            self.now = then;
            sizes(&out)
        }
    }

    /// How many entries each record stands for.
    fn sizes(out: &[Compacted<Arc<Item>>]) -> Vec<usize> {
        let size = |one: &Compacted<Arc<Item>>| match one {
            Compacted::Entry(_) => 1,
            Compacted::Merged(merged) => (merged.entry.offset.seq - merged.first.seq) as usize + 1,
        };
        out.iter().map(size).collect()
    }

    #[tokio::test]
    async fn the_first_delta_after_a_pause_is_never_delayed_and_the_next_ones_come_once_a_window() {
        let mut reader = Reader::new().await;
        assert_eq!(reader.come("t"), [1]);
        reader.until(10);
        assert!(reader.come("tt").is_empty());
        reader.until(60);
        assert!(reader.come("t").is_empty());
        assert_eq!(reader.until(100), [3]);
        assert!(reader.come("t").is_empty());
        assert!(reader.until(199).is_empty());
        assert_eq!(reader.until(200), [1]);
        // A window in which nothing came is a pause.
        assert!(reader.until(300).is_empty());
        assert_eq!(reader.come("t"), [1]);
        // What comes at once goes out at once, as one.
        assert!(reader.until(500).is_empty());
        assert_eq!(reader.come("ttt"), [3]);
    }

    #[tokio::test]
    async fn what_is_no_delta_and_another_kind_of_delta_go_out_at_once_with_what_was_held_back() {
        let mut reader = Reader::new().await;
        assert_eq!(reader.come("t"), [1]);
        reader.until(10);
        assert!(reader.come("tt").is_empty());
        assert_eq!(reader.come("!"), [2, 1]);
        // A delta that follows it does not wait.
        assert_eq!(reader.come("t"), [1]);
        assert!(reader.come("tt").is_empty());
        assert_eq!(reader.come("u"), [2, 1]);
        assert!(reader.come("uu").is_empty());
        assert_eq!(reader.until(200), [2]);
    }
}
