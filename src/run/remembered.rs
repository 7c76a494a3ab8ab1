//! Runs of this instance that have ended, with what their owners appended: a store that goes back in
//! time may lose a terminal, and the run would be active for ever. Then its owner writes it once more.
//!
//! Bounded by bytes, together with what the owners of active runs keep. Overflow: of the runs that ended
//! first all but the terminal is let go of, and when that is so of all, the runs themselves. Must never:
//! cost a task or a command per run while nobody doubts the store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout};

use crate::log::{Standing, standing};
use crate::run::Runs;
use crate::run::owner::Ended;
use crate::session::{Offset, RunId, SessionId};

/// Runs that are looked after at a time.
const AT_ONCE: usize = 64;

/// How often some terminals are looked at, and what could not be looked after is tried again.
const EVERY: Duration = Duration::from_secs(1);

/// How many terminals are looked at that nobody doubts, beside the newest.
const SAMPLED: usize = 7;

/// See the module.
#[derive(Default)]
pub(super) struct Remembered {
    shelf: Mutex<Shelf>,
    bytes: AtomicUsize,
}

/// The runs in the order in which they have ended.
#[derive(Default)]
struct Shelf {
    runs: BTreeMap<u64, Item>,
    next: u64,
    /// Of all before this one nothing but the terminal is left.
    bare_before: u64,
    /// All before this one were looked at, in this round.
    sampled_before: u64,
}

struct Item {
    ended: Box<Ended>,
    at: Instant,
    bytes: usize,
    /// The newest doubt at which the terminal was there.
    sure_at: u64,
}

/// Where a run's terminal stands, and under which number the run is remembered.
struct Place {
    number: u64,
    session: SessionId,
    run: RunId,
    terminal: Offset,
}

impl Remembered {
    /// Remembers a run whose terminal was there at doubt number `sure_at`.
    pub(super) fn remember(&self, ended: Ended, sure_at: u64) {
        let (ended, at) = (Box::new(ended), Instant::now());
        let bytes = ended.bytes();
        let mut shelf = self.lock();
        let number = shelf.next;
        shelf.next += 1;
        shelf.runs.insert(number, Item { ended, at, bytes, sure_at });
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// Whether the run is remembered.
    pub(super) fn has(&self, run: &RunId) -> bool {
        self.lock().runs.values().any(|item| item.ended.place().1 == run)
    }

    /// Makes room. `false`: nothing is remembered.
    pub(super) fn shed(&self) -> bool {
        let mut shelf = self.lock();
        let bare_before = shelf.bare_before;
        if let Some((number, item)) = shelf.runs.range_mut(bare_before..).next() {
            item.ended.keep_only_the_terminal();
            let (number, bytes) = (*number, item.ended.bytes());
            let freed = std::mem::replace(&mut item.bytes, bytes) - bytes;
            shelf.bare_before = number + 1;
            self.bytes.fetch_sub(freed, Ordering::AcqRel);
            return true;
        }
        let Some((_, item)) = shelf.runs.pop_first() else { return false };
        self.bytes.fetch_sub(item.bytes, Ordering::AcqRel);
        true
    }

    fn forget_before(&self, horizon: Instant) {
        let mut shelf = self.lock();
        while let Some(first) = shelf.runs.first_entry().filter(|first| first.get().at < horizon) {
            self.bytes.fetch_sub(first.remove().bytes, Ordering::AcqRel);
        }
    }

    /// The run that has ended last, and a few others: every time the next ones.
    fn sample(&self) -> Vec<Place> {
        let mut shelf = self.lock();
        let from = shelf.sampled_before;
        let newest = shelf.runs.last_key_value();
        let places: Vec<_> = newest.into_iter().chain(shelf.runs.range(from..).take(SAMPLED)).map(Place::of).collect();
        let round_is_over = places.len() <= SAMPLED;
        shelf.sampled_before = if round_is_over { 0 } else { places.last().map_or(0, |last| last.number + 1) };
        places
    }

    /// The runs that nobody has looked after since doubt number `doubt`.
    fn doubted(&self, doubt: u64) -> Vec<Place> {
        self.lock().runs.iter().filter(|(_, item)| item.sure_at < doubt).map(Place::of).collect()
    }

    fn is_there(&self, number: u64, doubt: u64) {
        if let Some(item) = self.lock().runs.get_mut(&number) {
            item.sure_at = doubt;
        }
    }

    fn take(&self, number: u64) -> Option<Ended> {
        let item = self.lock().runs.remove(&number)?;
        self.bytes.fetch_sub(item.bytes, Ordering::AcqRel);
        Some(*item.ended)
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn of((number, item): (&u64, &Item)) -> Self {
        let (session, run, terminal) = item.ended.place();
        Place { number: *number, session: session.clone(), run: run.clone(), terminal }
    }
}

/// Looks after the runs that have ended, whenever the store is doubted.
pub(super) async fn remember(runs: &Arc<Runs>) {
    let mut doubts = runs.doubts.subscribe();
    loop {
        let _ = timeout(EVERY, doubts.changed()).await;
        let doubt = *doubts.borrow_and_update();
        runs.remembered.forget_before(runs.doubts.horizon());
        // Where a server has lost a tail it has lost the newest of it; and there may be several servers. One whose
        // connection was renewed is doubted anyway.
        for place in runs.remembered.sample() {
            if has_its_terminal(runs, &place).await == Standing::Lost {
                runs.doubts.raise();
                break;
            }
        }
        let doubted = runs.remembered.doubted(doubt);
        stream::iter(doubted).for_each_concurrent(AT_ONCE, |place| look_after(runs, place, doubt)).await;
    }
}

async fn look_after(runs: &Arc<Runs>, place: Place, doubt: u64) {
    match has_its_terminal(runs, &place).await {
        Standing::There => runs.remembered.is_there(place.number, doubt),
        Standing::Removed => drop(runs.remembered.take(place.number)),
        // Asked again in a moment.
        Standing::Unknown => {}
        // Its owner is not done yet with what follows an end: asked again in a moment as well.
        Standing::Lost if runs.driven(&place.run).is_some() => {}
        Standing::Lost => {
            if let Some(ended) = runs.remembered.take(place.number) {
                // In a task of its own: a defect in an owner must not end our lease.
                let ending = runs.clone();
                let _ = runs.spawn(async move { ending.end_again(ended).await }).await;
            }
        }
    }
}

/// The cheaper question first: its answer is almost always that the terminal is where it was.
async fn has_its_terminal(runs: &Runs, place: &Place) -> Standing {
    let Place { session, run, terminal, .. } = place;
    match runs.log.run(session, run).await {
        Ok(Some(info)) if info.ended.is_some_and(|(at, _)| at == *terminal) => Standing::There,
        Ok(_) => standing(&*runs.log, session, *terminal).await,
        Err(_) => Standing::Unknown,
    }
}
