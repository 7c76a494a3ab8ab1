//! One task per followed session: subscribe, wait for the confirmation, then read inclusively from
//! the exact tail, then take pushes whose `prev` is exactly the tail. Whatever does not fit is read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::hub::active;
use crate::hub::board::{Behind, Whole};
use crate::hub::ring::{Ahead, Pushed, Ring};
use crate::hub::state::State;
use crate::hub::{Hub, Item};
use crate::log::{Bounds, Following, GapReason, Note, PRESENCE_LEASE, PageLimits, Push, Read, Unavailable};
use crate::session::{ActiveRun, Entry, Offset, SessionId};

/// How long a session stays followed without a subscriber: a client that reconnects finds the
/// newest entries in memory.
const LINGER: Duration = Duration::from_secs(20);

/// A session with an active run that is silent for so long is checked against the log, so that a
/// lost push costs seconds, never the rest of the answer.
const CHECK_ACTIVE: Duration = Duration::from_secs(3);

/// The same for a session without an active run.
const CHECK_QUIET: Duration = Duration::from_secs(20);

/// Pause between attempts while the store does not answer.
const RETRY: Duration = Duration::from_millis(250);

/// How much later than a lease ends it is looked for: the store's clock decides.
const AFTER_LEASE: Duration = Duration::from_millis(50);
/// How often the active runs of a session are looked after, however many subscribe.
const ATTEND_EVERY: Duration = Duration::from_secs(5);

/// How long a new subscriber waits for the store.
const READY: Duration = Duration::from_secs(5);

/// Where the following of a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The subscription is not confirmed yet.
    Starting,
    /// The ring is filled.
    Following,
    /// The session was erased.
    Erased,
}

/// What subscribers wait on; `version` grows whenever the ring has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signal {
    pub(super) phase: Phase,
    version: u64,
}

/// A followed session.
pub(super) struct Followed {
    pub(super) session: SessionId,
    /// Of this following: a session that is followed again, or begun anew, has another.
    pub(super) number: u64,
    /// One page read of this session at a time.
    pub(super) page_turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    signal: watch::Sender<Signal>,
    check: Notify,
    subscribers: AtomicUsize,
    parted: Notify,
}

/// What a new subscriber is told.
pub(super) struct View {
    pub(super) exists: bool,
    pub(super) tail: Offset,
    pub(super) active: Vec<ActiveRun>,
}

impl Followed {
    pub(super) fn new(session: SessionId, number: u64, ring_bytes: usize) -> Self {
        let state = State::new(Ring::new(Offset::ZERO, ring_bytes));
        let signal = watch::Sender::new(Signal { phase: Phase::Starting, version: 0 });
        Followed {
            session,
            number,
            page_turn: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
            signal,
            check: Notify::new(),
            subscribers: AtomicUsize::new(0),
            parted: Notify::new(),
        }
    }

    /// Waits until the session is followed.
    pub(super) async fn ready(&self) -> Result<View, Unavailable> {
        let mut signal = self.signal.subscribe();
        let started = signal.wait_for(|signal| signal.phase != Phase::Starting);
        match timeout(READY, started).await {
            Ok(Ok(_)) => {}
            _ => return Err(Unavailable::new("the session could not be followed in time")),
        }
        let state = self.lock();
        Ok(View { exists: state.exists, tail: state.ring.tail(), active: state.active.clone() })
    }

    pub(super) fn signal(&self) -> watch::Receiver<Signal> {
        self.signal.subscribe()
    }

    /// Whether the session is known to exist, or to have existed.
    pub(super) fn exists(&self) -> bool {
        self.lock().exists
    }

    pub(super) fn tail(&self) -> Offset {
        self.lock().ring.tail()
    }

    pub(super) fn ahead(&self, at: Offset, max_bytes: usize) -> Ahead {
        self.lock().ring.after(at, max_bytes)
    }

    /// All that the devices of the session share, and the number of the news that come after.
    pub(super) fn whole(&self) -> (Whole, u64) {
        self.lock().board.whole()
    }

    /// The news that a subscriber has not had whose next is number `from`, and the next after them.
    pub(super) fn news(&self, from: u64) -> (Behind, u64) {
        let state = self.lock();
        (state.board.since(from), state.board.next())
    }

    /// Has the session's active runs looked after: now, or where that was done a moment ago, soon.
    pub(super) fn attend(&self, hub: &Hub) {
        let mut state = self.lock();
        if state.active.is_empty() {
            return;
        }
        state.attend_again = state.attended.is_some_and(|at| at.elapsed() < ATTEND_EVERY);
        if !state.attend_again {
            state.attended = Some(Instant::now());
            hub.attend(&self.session);
        }
    }

    /// Asks the follower to compare its tail with the log's.
    pub(super) fn check(&self) {
        self.check.notify_one();
    }

    pub(super) fn joined(&self) {
        self.subscribers.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn parted(&self) {
        if self.subscribers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.parted.notify_one();
        }
    }

    pub(super) fn idle(&self) -> bool {
        self.subscribers.load(Ordering::Acquire) == 0
    }

    /// Follows until the session is erased or nobody has subscribed for a while.
    pub(super) async fn follow(self: Arc<Self>, hub: Arc<Hub>) {
        loop {
            match self.attempt(&hub).await {
                Ok(End::Idle) => {
                    hub.pages.forget(self.number);
                    return;
                }
                Ok(End::Erased) => {
                    hub.retire(&self);
                    hub.pages.forget(self.number);
                    self.announce(Phase::Erased);
                    return;
                }
                // Subscribers keep what they have; the next attempt reads what they miss.
                Ok(End::Disturbed) | Err(_) => {
                    if hub.leave(&self) {
                        hub.pages.forget(self.number);
                        return;
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn attempt(self: &Arc<Self>, hub: &Arc<Hub>) -> Result<End, Unavailable> {
        let mut following = hub.log.follow(&self.session).await?;
        self.share(hub).await?;
        if self.signal.borrow().phase == Phase::Starting {
            self.begin(hub).await?;
        }
        if self.repair(hub).await? {
            return Ok(End::Erased);
        }
        self.listen(hub, &mut following).await
    }

    /// The first time: the ring begins, empty, at the log's tail.
    async fn begin(&self, hub: &Hub) -> Result<(), Unavailable> {
        let bounds = hub.log.bounds(&self.session).await?;
        let active = match &bounds {
            Bounds::Live(bounds) => active::describe(&*hub.log, &self.session, &bounds.active).await?,
            _ => Vec::new(),
        };
        let mut state = self.lock();
        let (exists, tail) = match &bounds {
            Bounds::Live(bounds) => (true, bounds.tail),
            Bounds::Expired { last } => (true, *last),
            Bounds::Erased | Bounds::NotFound => (false, Offset::ZERO),
        };
        state.exists = exists;
        state.ring = Ring::new(tail, hub.limits.ring_bytes);
        state.active = active;
        drop(state);
        self.announce(Phase::Following);
        Ok(())
    }

    async fn listen(self: &Arc<Self>, hub: &Arc<Hub>, following: &mut Following) -> Result<End, Unavailable> {
        let mut idle_since = self.idle().then(Instant::now);
        let mut check_at = Instant::now() + self.patience();
        loop {
            let lease_ends = self.lock().lease_ends;
            let linger = idle_since.map_or(check_at + LINGER, |since| since + LINGER);
            let unproven = tokio::select! {
                push = following.next() => match push {
                    Some(Push::Entries { prev, entries }) => {
                        check_at = Instant::now() + self.patience();
                        self.take(prev, entries)
                    }
                    Some(Push::Note(note)) => {
                        self.hear(note);
                        false
                    }
                    Some(Push::Check) => {
                        // The connection is another now, perhaps to another server, which may have lost something.
                        self.attend(hub);
                        self.share(hub).await?;
                        true
                    }
                    None => return Ok(End::Disturbed),
                },
                () = self.check.notified() => true,
                () = tokio::time::sleep_until(lease_ends.unwrap_or(check_at)), if lease_ends.is_some() => {
                    self.share(hub).await?;
                    false
                }
                () = tokio::time::sleep_until(check_at) => {
                    if self.lock().attend_again {
                        self.attend(hub);
                    }
                    true
                }
                () = self.parted.notified() => {
                    idle_since = self.idle().then(Instant::now);
                    false
                }
                () = tokio::time::sleep_until(linger), if idle_since.is_some() => {
                    if hub.leave(self) {
                        return Ok(End::Idle);
                    }
                    idle_since = None;
                    false
                }
            };
            if unproven {
                if self.repair(hub).await? {
                    return Ok(End::Erased);
                }
                check_at = Instant::now() + self.patience();
            }
        }
    }

    /// Takes a push; `true`: it does not fit.
    fn take(&self, prev: Offset, entries: Vec<Arc<Entry>>) -> bool {
        let mut state = self.lock();
        let news = entries.clone();
        match state.ring.push(prev, entries) {
            Pushed::Unproven => return true,
            Pushed::Known => return false,
            Pushed::Extended => state.note(news.iter().map(|entry| (entry.offset, &entry.record))),
        }
        drop(state);
        self.announce(Phase::Following);
        false
    }

    /// Takes a note.
    fn hear(&self, note: Note) {
        let mut state = self.lock();
        let news = state.board.hear(note);
        if state.board.is_somebody_here() {
            // How long the lease of a new one is only the log knows.
            state.lease_ends.get_or_insert_with(|| Instant::now() + PRESENCE_LEASE);
        }
        drop(state);
        if news {
            self.renew();
        }
    }

    /// Reads what the devices share: what was missed, and whose lease has ended.
    async fn share(&self, hub: &Hub) -> Result<(), Unavailable> {
        let shared = hub.log.shared(&self.session).await?;
        let mut state = self.lock();
        state.lease_ends = shared.lease_ends_in.map(|left| Instant::now() + left + AFTER_LEASE);
        let news = state.board.replace(shared);
        drop(state);
        if news {
            self.renew();
        }
        Ok(())
    }

    /// Reads inclusively from the exact tail until the ring ends where the log ends. `true`: the
    /// session is erased.
    async fn repair(&self, hub: &Hub) -> Result<bool, Unavailable> {
        loop {
            let tail = self.tail();
            match hub.log.read(&self.session, tail, PageLimits::default()).await? {
                Read::Page(page) if page.entries.is_empty() => return Ok(false),
                Read::Page(page) => {
                    let mut state = self.lock();
                    if state.ring.tail() == tail {
                        state.note(page.entries.iter().map(|entry| (entry.offset, &entry.record)));
                        state.ring.extend(page.entries.into_iter().map(Item::new));
                    }
                    drop(state);
                    self.announce(Phase::Following);
                }
                Read::Gap(gap) if gap.to == tail => return Ok(false),
                Read::Gap(gap) => {
                    tracing::warn!(session = %self.session, reason = gap.reason.as_str(), from = %gap.from, to = %gap.to, "the log does not have the tail that was followed");
                    if gap.reason == GapReason::RolledBack {
                        hub.pages.forget(self.number);
                    }
                    let active = match hub.log.bounds(&self.session).await? {
                        Bounds::Live(bounds) => active::describe(&*hub.log, &self.session, &bounds.active).await?,
                        _ => Vec::new(),
                    };
                    let mut state = self.lock();
                    state.ring.roll_back(gap.to);
                    state.active = active;
                    drop(state);
                    self.announce(Phase::Following);
                }
                Read::NotFound if tail == Offset::ZERO => return Ok(false),
                Read::NotFound => match hub.log.bounds(&self.session).await? {
                    Bounds::Erased => return Ok(true),
                    Bounds::NotFound => {
                        self.vanished(hub);
                        return Ok(false);
                    }
                    // It has come back, or expired, since it was read.
                    Bounds::Live(_) | Bounds::Expired { .. } => {}
                },
            }
        }
    }

    /// The store came back without the session, which nobody has erased: whoever has something of it is told that
    /// all of it is gone, and waits for what its writers append again.
    fn vanished(&self, hub: &Hub) {
        tracing::warn!(session = %self.session, "the store has lost a session that was followed");
        hub.pages.forget(self.number);
        let mut state = self.lock();
        state.ring.roll_back(Offset::ZERO);
        state.exists = false;
        state.active.clear();
        drop(state);
        self.announce(Phase::Following);
    }

    /// How long silence is believed; a little different for every session, so that checks spread.
    fn patience(&self) -> Duration {
        let state = self.lock();
        let base = if state.active.is_empty() { CHECK_QUIET } else { CHECK_ACTIVE };
        let salt = self.session.as_str().bytes().fold(0u32, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into())) % 32;
        base + base * salt / 128
    }

    /// Wakes the subscribers.
    fn renew(&self) {
        self.signal.send_modify(|signal| signal.version += 1);
    }

    fn announce(&self, phase: Phase) {
        self.signal.send_modify(|signal| {
            signal.phase = phase;
            signal.version += 1;
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why following ended.
enum End {
    Idle,
    Erased,
    Disturbed,
}
