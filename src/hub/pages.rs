//! Pages read from the log for subscribers that are behind the ring, shared while they are fresh:
//! fifty clients that replay the same session read it once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::hub::Item;
use crate::hub::follower::Followed;
use crate::log::{Gap, Log, PageLimits, Read, Unavailable};
use crate::session::Offset;

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
    /// By the number of the following, not by the session: one that was erased and begun anew must
    /// not show what it was.
    followings: HashMap<u64, Vec<Arc<Slice>>>,
    order: VecDeque<(u64, Arc<Slice>)>,
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

    /// At most `max_bytes` of what follows `at`. One read of a session at a time, so that whoever
    /// waits finds what the first has read.
    pub(super) async fn after(
        &self,
        log: &dyn Log,
        followed: &Followed,
        at: Offset,
        max_bytes: usize,
    ) -> Result<Ahead, Unavailable> {
        if let Some(items) = self.find(followed.number, at, max_bytes) {
            return Ok(Ahead::Items(items));
        }
        let _turn = followed.page_turn.lock().await;
        if let Some(items) = self.find(followed.number, at, max_bytes) {
            return Ok(Ahead::Items(items));
        }
        let read = {
            let _read = self.reads.acquire().await;
            log.read(&followed.session, at, PageLimits::default()).await?
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
        self.keep(followed.number, slice);
        Ok(first.map_or(Ahead::Tail, Ahead::Items))
    }

    /// Forgets the pages of a following that has ended, or whose log has changed behind its tail.
    pub(super) fn forget(&self, following: u64) {
        let mut kept = self.lock();
        if kept.followings.remove(&following).is_none() {
            return;
        }
        let (gone, order) = std::mem::take(&mut kept.order).into_iter().partition(|(f, _)| *f == following);
        kept.order = order;
        let gone: VecDeque<(u64, Arc<Slice>)> = gone;
        kept.weight -= gone.iter().map(|(_, slice)| slice.weight).sum::<usize>();
    }

    fn find(&self, following: u64, at: Offset, max_bytes: usize) -> Option<Vec<Arc<Item>>> {
        let kept = self.lock();
        kept.followings.get(&following)?.iter().rev().find_map(|slice| slice.take(at, max_bytes))
    }

    fn keep(&self, following: u64, slice: Arc<Slice>) {
        let mut kept = self.lock();
        kept.weight += slice.weight;
        kept.order.push_back((following, slice.clone()));
        kept.followings.entry(following).or_default().push(slice);
        while kept.weight > KEPT_WEIGHT
            && let Some((following, oldest)) = kept.order.pop_front()
        {
            kept.weight -= oldest.weight;
            if let Some(slices) = kept.followings.get_mut(&following) {
                slices.retain(|slice| !Arc::ptr_eq(slice, &oldest));
                if slices.is_empty() {
                    kept.followings.remove(&following);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::scripted::{Scripted, now};
    use crate::log::{GapReason, Page};
    use crate::session::{Entry, Kind, Record, SessionId};

    #[tokio::test]
    async fn a_session_that_is_followed_anew_shows_nothing_of_what_was_read_before_it_was_erased() {
        let (log, pages) = (Scripted::default(), Pages::new());
        let followed = |number| Followed::new(SessionId::parse("s").unwrap(), number, 0);
        let record = Record { kind: Kind::Event, run: None, source: None, event: None, id: None, data: "x".into() };
        let entry = Arc::new(Entry { offset: Offset::new(1, 1), record });
        log.read.answers(move |_| now(Read::Page(Page { entries: vec![entry.clone()], tail: Offset::new(1, 1) })));
        let before = pages.after(&log, &followed(1), Offset::ZERO, 1).await.unwrap();
        assert!(matches!(before, Ahead::Items(items) if items.len() == 1));
        log.read
            .answers(|from| now(Read::Gap(Gap { from, to: Offset::new(1, 1), lost: 1, reason: GapReason::Trimmed })));
        assert!(matches!(pages.after(&log, &followed(2), Offset::ZERO, 1).await.unwrap(), Ahead::Gap(_)));
    }

    #[tokio::test]
    async fn what_is_forgotten_weighs_nothing() {
        let (log, pages) = (Scripted::default(), Pages::new());
        let followed = Followed::new(SessionId::parse("s").unwrap(), 7, 0);
        let record = Record { kind: Kind::Event, run: None, source: None, event: None, id: None, data: "x".into() };
        let entry = Arc::new(Entry { offset: Offset::new(1, 1), record });
        log.read.answers(move |_| now(Read::Page(Page { entries: vec![entry.clone()], tail: Offset::new(1, 1) })));
        pages.after(&log, &followed, Offset::ZERO, 1).await.unwrap();
        pages.forget(7);
        let kept = pages.lock();
        assert_eq!((kept.weight, kept.order.len(), kept.followings.len()), (0, 0, 0));
    }
}
