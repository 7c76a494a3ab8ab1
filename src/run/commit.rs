//! One call to the log, repeated until the answer is definite. Any error means unknown, never
//! failed, so the same call is sent again: the log recognises what it has.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::log::{Append, Appended, Log, OpenRun, Opened, RunFlags, Standing, StoreHealth, Unavailable, standing};
use crate::run::lease::is_back;
use crate::session::{InstanceId, Offset, Record, RunId, SessionId};
use crate::telemetry::{AppendRetried, EventsAppended, Fact, Metrics};

/// First and longest pause between attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How long after the store is back the last of those who wait ask it.
const AT_ONCE: Duration = Duration::from_millis(50);

/// A definite answer of the log to an owner.
#[derive(Debug)]
pub(super) enum Committed {
    /// To the opening.
    Opened(Opened),
    /// To an append, with what had been sent.
    Appended(Box<Append>, Appended),
    /// To the question whether somebody has asked for the run's end, and whether the log has what it had.
    Looked {
        /// What others have asked.
        flags: RunFlags,
        /// The newest entry of the owner is not where it was.
        lost: bool,
    },
}

/// Lists the run under its instance, then opens it. An instance that was declared dead opens
/// nothing.
pub(super) async fn open(log: Arc<dyn Log>, metrics: Metrics, instance: InstanceId, open: OpenRun) -> Committed {
    let mut pauses = Pauses::new(&*log, &metrics, &open.session, &open.run);
    loop {
        match log.enlist(&instance, &open.session, &open.run).await {
            Ok(true) => match log.open_run(open.clone()).await {
                Ok(opened) => return Committed::Opened(opened),
                Err(error) => pauses.wait(&error).await,
            },
            Ok(false) => return Committed::Opened(Opened::Fenced),
            Err(error) => pauses.wait(&error).await,
        }
    }
}

/// Appends entries of `run`, after a pause.
pub(super) async fn append(
    log: Arc<dyn Log>,
    metrics: Metrics,
    run: RunId,
    append: Append,
    after: Duration,
) -> Committed {
    if !after.is_zero() {
        sleep(after).await;
    }
    let began = Instant::now();
    let mut pauses = Pauses::new(&*log, &metrics, &append.session, &run);
    loop {
        match log.append(append.clone()).await {
            Ok(appended) => {
                let (events, bytes) =
                    (append.records.len() as u64, append.records.iter().map(Record::size).sum::<usize>());
                let (session, bytes, took) = (&append.session, bytes as u64, began.elapsed());
                EventsAppended { session, run: &run, events, bytes, took }.emit(&metrics);
                return Committed::Appended(Box::new(append), appended);
            }
            Err(error) => pauses.wait(&error).await,
        }
    }
}

/// Asks what others have asked of `run`, and whether it stands at `seen` still. Where the store may have lost
/// something, the run is listed again for the instance `relist`. Without an answer nothing is known: it is
/// asked again in time.
pub(super) async fn look(
    log: Arc<dyn Log>,
    session: SessionId,
    run: RunId,
    seen: Option<Offset>,
    relist: Option<InstanceId>,
) -> Committed {
    if let Some(instance) = relist {
        let _ = log.enlist(&instance, &session, &run).await;
    }
    let (mut flags, mut lost) = (RunFlags::default(), false);
    if let Ok(info) = log.run(&session, &run).await {
        lost = match (seen, &info) {
            (Some(seen), Some(info)) if info.last == seen => false,
            (Some(seen), _) => standing(&*log, &session, seen).await == Standing::Lost,
            (None, info) => info.is_none(),
        };
        flags.cancel = info.and_then(|info| info.cancel);
    }
    Committed::Looked { flags, lost }
}

/// The pauses between attempts of one call. A store that was away and is back is asked at once.
struct Pauses<'a> {
    log: &'a dyn Log,
    metrics: &'a Metrics,
    session: &'a SessionId,
    run: &'a RunId,
    tries: u32,
    next: Duration,
}

impl<'a> Pauses<'a> {
    fn new(log: &'a dyn Log, metrics: &'a Metrics, session: &'a SessionId, run: &'a RunId) -> Self {
        Pauses { log, metrics, session, run, tries: 1, next: BACKOFF.0 }
    }

    async fn wait(&mut self, error: &Unavailable) {
        let (session, run, tries) = (self.session, self.run, self.tries);
        AppendRetried { session, run, tries, detail: &error.detail }.emit(self.metrics);
        let mut health = self.log.health();
        let is_away = *health.borrow_and_update() != StoreHealth::Up;
        tokio::select! {
            () = sleep(self.next / 2 + crate::random::up_to(self.next)) => {}
            // Everybody waits for it: not all in the same moment.
            () = is_back(&mut health), if is_away => sleep(crate::random::up_to(AT_ONCE)).await,
        }
        self.tries += 1;
        self.next = (self.next * 2).min(BACKOFF.1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use tokio::time::timeout;

    use super::*;
    use crate::log::scripted::Scripted;

    #[tokio::test]
    async fn a_store_that_is_back_is_asked_at_once_however_long_the_pause_is() {
        let (log, metrics) = (Scripted::default(), Metrics::new());
        let (store, health) = watch::channel(StoreHealth::Down { reason: "away".into() });
        *log.health.lock().unwrap() = Some(health);
        let (session, run) = (SessionId::from_random(1), RunId::from_random(1));
        let mut pauses = Pauses::new(&log, &metrics, &session, &run);
        pauses.next = Duration::from_secs(3600);
        let back = async { store.send_replace(StoreHealth::Up) };
        let error = Unavailable::new("away");
        let waited = async { tokio::join!(pauses.wait(&error), back) };
        timeout(Duration::from_secs(10), waited).await.expect("it waits for its hour");
    }
}
