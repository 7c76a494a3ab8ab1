//! The lease of this instance: renewed once a second, so that others know that it lives; and when
//! the same tells us that we may look for those that do not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::log::{Renewal, StoreHealth, doubt};
use crate::run::Runs;
use crate::run::commands::hear;
use crate::run::ghosts::look_after;
use crate::run::remembered::remember;
use crate::run::takeover::sweep;
use crate::session::SessionId;

/// How long a lease holds without renewal.
pub const LEASE: Duration = Duration::from_secs(3);

/// Renewals; an answer that takes longer counts as none.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(1);

/// How long our renewals and the store must have been unbroken before we judge others: two leases
/// and the longest pause between attempts, with room. A store that was away must not make the living
/// take each other's runs.
const GRACE: Duration = Duration::from_secs(7);

/// The same for an instance whose renewals have been unbroken since it began, at a store that has
/// been steady for a lease: who has renewed there at all is not missing before. If there was an outage at all, it was over when we came and we saw
/// nothing of it; whoever lived through it renews within this: half a second until the next attempt
/// to connect, and at once when there is a connection. A sweep adds half a second.
const FIRST_GRACE: Duration = Duration::from_secs(1);

/// Keeps the lease until the process ends, looks for the dead, after the active runs of the sessions in
/// `attended`, and after what the store may have lost. The lease outlives the drain: it ends with [`crate::log::Log::resign`],
/// when no run is left.
///
/// Renewals never wait for a sweep: to end the runs of a large instance takes longer than a lease.
pub async fn keep_lease(runs: Arc<Runs>, attended: mpsc::Receiver<SessionId>) {
    let renewals = Renewals::default();
    tokio::join!(
        renew(&runs, &renewals),
        sweep(&runs, &renewals),
        look_after(&runs, attended),
        hear(&runs),
        doubt(&*runs.log, &runs.doubts),
        remember(&runs),
    );
}

/// Renews once a second, and at once when the store is back.
async fn renew(runs: &Runs, renewals: &Renewals) {
    let mut ticks = interval(RENEW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut health = runs.log.health();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = is_back(&mut health) => renewals.broken(),
        }
        let instance = runs.instance();
        match timeout(RENEW_EVERY, runs.log.renew(&instance, LEASE)).await {
            Ok(Ok(Renewal::Alive { commands })) => {
                renewals.answered(Instant::now());
                commands.into_iter().for_each(|command| runs.obey(command));
            }
            Ok(Ok(Renewal::Dead)) => {
                tracing::error!(%instance, "others have declared this instance dead; its runs are dropped");
                runs.start_over();
                renewals.broken();
            }
            Ok(Err(_)) | Err(_) => renewals.broken(),
        }
    }
}

/// Waits until the store is up after it was not.
pub(super) async fn is_back(health: &mut watch::Receiver<StoreHealth>) {
    while health.changed().await.is_ok() {
        if *health.borrow_and_update() == StoreHealth::Up {
            return;
        }
    }
    std::future::pending().await
}

/// How our own renewals went, and what follows from it for our view of others.
#[derive(Default)]
pub(super) struct Renewals(Mutex<Streak>);

/// An unbroken sequence of renewals.
#[derive(Clone, Copy, Default)]
enum Streak {
    /// None was answered yet, and none failed.
    #[default]
    Unbegun,
    /// All were answered in time since the instance began.
    First(Renewed),
    /// All were answered in time since one was not.
    Later(Renewed),
    /// The last one was not answered in time.
    Broken,
}

/// When the first and the last renewal of a streak were answered.
#[derive(Clone, Copy)]
struct Renewed {
    first: Instant,
    last: Instant,
    /// The wall's clock, which goes on while the machine sleeps.
    last_on_wall: SystemTime,
}

impl Renewals {
    /// Whether an instance whose lease is gone may be taken for dead, by what is known of the store.
    pub(super) fn let_us_judge(&self, store_steady_for: Duration, now: Instant) -> bool {
        match *self.lock() {
            Streak::First(renewed) => now - renewed.first >= FIRST_GRACE && store_steady_for >= LEASE,
            Streak::Later(renewed) => now - renewed.first >= GRACE && store_steady_for >= GRACE,
            Streak::Unbegun | Streak::Broken => false,
        }
    }

    /// The streak is broken: a call was not answered in time, or the connection is another.
    pub(super) fn broken(&self) {
        *self.lock() = Streak::Broken;
    }

    /// A renewal was answered in time.
    fn answered(&self, now: Instant) {
        let begins = Renewed { first: now, last: now, last_on_wall: SystemTime::now() };
        let mut streak = self.lock();
        *streak = match *streak {
            Streak::Unbegun => Streak::First(begins),
            Streak::Broken => Streak::Later(begins),
            // The process was stopped, or the machine: others may have been, too.
            Streak::First(before) | Streak::Later(before) if before.is_too_old(now) => Streak::Later(begins),
            Streak::First(before) => Streak::First(Renewed { first: before.first, ..begins }),
            Streak::Later(before) => Streak::Later(Renewed { first: before.first, ..begins }),
        };
    }

    fn lock(&self) -> MutexGuard<'_, Streak> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Renewed {
    /// Whether the last renewal is so long ago that the lease may have run out.
    fn is_too_old(&self, now: Instant) -> bool {
        // A clock that was set back says nothing.
        let on_wall = self.last_on_wall.elapsed().unwrap_or_default();
        (now - self.last).max(on_wall) >= LEASE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// Renewals that are all answered, from `from` on; when the last was.
    fn renew_for(renewals: &Renewals, from: Instant, time: Duration) -> Instant {
        let mut now = from;
        while now - from < time {
            renewals.answered(now);
            now += RENEW_EVERY;
        }
        renewals.answered(now);
        now
    }

    #[test]
    fn who_has_just_started_judges_soon_where_the_store_was_steady_and_late_where_it_was_not() {
        let (renewals, begun) = (Renewals::default(), Instant::now());
        assert!(!renewals.let_us_judge(LONG, begun));
        renewals.answered(begun);
        assert!(!renewals.let_us_judge(LONG, begun), "others may just be on their way back");
        let now = renew_for(&renewals, begun, FIRST_GRACE);
        assert!(renewals.let_us_judge(LONG, now));
        assert!(!renewals.let_us_judge(LEASE - RENEW_EVERY, now), "the store itself came a moment ago");
        assert!(!renewals.let_us_judge(Duration::ZERO, now));
    }

    #[test]
    fn who_could_not_renew_judges_nobody_for_two_leases() {
        let renewals = Renewals::default();
        let now = renew_for(&renewals, Instant::now(), LONG);
        assert!(renewals.let_us_judge(LONG, now));
        renewals.broken();
        assert!(!renewals.let_us_judge(LONG, now));
        let later = renew_for(&renewals, now, 2 * LEASE);
        assert!(!renewals.let_us_judge(LONG, later));
        let later = renew_for(&renewals, later, GRACE);
        assert!(renewals.let_us_judge(LONG, later));
        assert!(!renewals.let_us_judge(2 * LEASE, later), "on another connection than a moment ago");
    }

    #[test]
    fn an_instance_whose_first_renewal_failed_has_no_short_grace() {
        let renewals = Renewals::default();
        renewals.broken();
        let now = renew_for(&renewals, Instant::now(), 2 * LEASE);
        assert!(!renewals.let_us_judge(LONG, now));
    }

    #[test]
    fn who_was_stopped_for_a_lease_judges_nobody_though_no_renewal_failed() {
        let renewals = Renewals::default();
        let now = renew_for(&renewals, Instant::now(), LONG) + LEASE;
        renewals.answered(now);
        assert!(!renewals.let_us_judge(LONG, now));
    }
}
