//! Pages read from the log for subscribers that are behind the ring, shared while they are fresh:
//! fifty clients that replay the same session read it once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::hub::Item;
use crate::log::{Gap, Log, PageLimits, Read, Unavailable};
use crate::session::{Offset, SessionId};

/// How many pages may be on their way from the store at once, for the whole instance: with the
/// size of a page this bounds what replays hold in memory, however many clients come.
const READS_AT_ONCE: usize = 32;

/// Pages kept for other readers, bytes of the whole instance; the oldest go first.
const KEPT_WEIGHT: usize = 64 << 20;

/// What the log has after a cursor that is not in the ring.
pub(super) enum Ahead {
    /// The entries that follow, at least one.
    Items(Vec<Arc<Item>>),
    /// Nothing follows: the cursor is the tail.
    Tail,
    /// The cursor's entry is not in the log.
    Gap(Gap),
    /// There is no such session.
    NotFound,
}

/// The pages of all sessions.
pub(super) struct Pages {
    kept: Mutex<Kept>,
    reads: Semaphore,
}

#[derive(Default)]
struct Kept {
    sessions: HashMap<SessionId, Vec<Arc<Slice>>>,
    order: VecDeque<(SessionId, Arc<Slice>)>,
    weight: usize,
}

/// A contiguous part of a log: what followed `after` when it was read.
struct Slice {
    after: Offset,
    items: Vec<Arc<Item>>,
    weight: usize,
}

impl Pages {
    pub(super) fn new() -> Self {
        Pages { kept: Mutex::default(), reads: Semaphore::new(READS_AT_ONCE) }
    }

    /// At most `max_bytes` of what follows `at`. `turn` is the session's own lock: one read of a
    /// session at a time, so that whoever waits finds what the first has read.
    pub(super) async fn after(
        &self,
        log: &dyn Log,
        session: &SessionId,
        turn: &tokio::sync::Mutex<()>,
        at: Offset,
        max_bytes: usize,
    ) -> Result<Ahead, Unavailable> {
        if let Some(items) = self.find(session, at, max_bytes) {
            return Ok(Ahead::Items(items));
        }
        let _turn = turn.lock().await;
        if let Some(items) = self.find(session, at, max_bytes) {
            return Ok(Ahead::Items(items));
        }
        let read = {
            let _read = self.reads.acquire().await;
            log.read(session, at, PageLimits::default()).await?
        };
        let page = match read {
            Read::Page(page) => page,
            Read::Gap(gap) => return Ok(Ahead::Gap(gap)),
            Read::NotFound => return Ok(Ahead::NotFound),
        };
        if page.entries.is_empty() {
            return Ok(Ahead::Tail);
        }
        let items: Vec<_> = page.entries.into_iter().map(Item::new).collect();
        let slice = Arc::new(Slice { after: at, weight: items.iter().map(|i| i.weight()).sum(), items });
        let first = slice.take(at, max_bytes);
        self.keep(session, slice);
        Ok(first.map_or(Ahead::Tail, Ahead::Items))
    }

    /// Forgets the pages of a session whose log has changed behind its tail.
    pub(super) fn forget(&self, session: &SessionId) {
        let mut kept = self.lock();
        kept.sessions.remove(session);
        let (gone, order) = std::mem::take(&mut kept.order).into_iter().partition(|(s, _)| s == session);
        kept.order = order;
        let gone: VecDeque<(SessionId, Arc<Slice>)> = gone;
        kept.weight -= gone.iter().map(|(_, slice)| slice.weight).sum::<usize>();
    }

    fn find(&self, session: &SessionId, at: Offset, max_bytes: usize) -> Option<Vec<Arc<Item>>> {
        let kept = self.lock();
        kept.sessions.get(session)?.iter().rev().find_map(|slice| slice.take(at, max_bytes))
    }

    fn keep(&self, session: &SessionId, slice: Arc<Slice>) {
        let mut kept = self.lock();
        kept.weight += slice.weight;
        kept.order.push_back((session.clone(), slice.clone()));
        kept.sessions.entry(session.clone()).or_default().push(slice);
        while kept.weight > KEPT_WEIGHT
            && let Some((session, oldest)) = kept.order.pop_front()
        {
            kept.weight -= oldest.weight;
            if let Some(slices) = kept.sessions.get_mut(&session) {
                slices.retain(|slice| !Arc::ptr_eq(slice, &oldest));
                if slices.is_empty() {
                    kept.sessions.remove(&session);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slice {
    /// What follows `at` in this slice, where `at` is exactly in it and not its end.
    fn take(&self, at: Offset, max_bytes: usize) -> Option<Vec<Arc<Item>>> {
        let start = if at == self.after {
            0
        } else {
            let i = usize::try_from(at.seq.checked_sub(self.items.first()?.offset().seq)?).ok()?;
            (self.items.get(i)?.offset() == at).then_some(i + 1)?
        };
        let mut bytes = 0;
        let items: Vec<_> = self.items[start..]
            .iter()
            .take_while(|item| {
                let first = bytes == 0;
                bytes += item.weight();
                first || bytes <= max_bytes
            })
            .cloned()
            .collect();
        (!items.is_empty()).then_some(items)
    }
}
