//! The lease of this instance: renewed once a second, so that others know that it lives; and the
//! sweep for instances that do not, whose runs get their terminal from us.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::log::{DeadInstance, Renewal, TakenOver, Takeover, Unavailable};
use crate::run::Runs;
use crate::telemetry::{Fact, RunTakenOver};

/// How long a lease holds without renewal.
pub const LEASE: Duration = Duration::from_secs(3);

/// Renewals; an answer that takes longer counts as none.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// Sweeps.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// How long renewals must have been unbroken before we judge others: two leases and the longest
/// pause between attempts. A store that was away must not make the living take each other's runs.
const GRACE: Duration = Duration::from_secs(7);

/// Keeps the lease until the process ends. The lease outlives the drain: it ends with
/// [`crate::log::Log::resign`], when no run is left.
///
/// Renewals never wait for a sweep: to end the runs of a large instance takes longer than a lease.
pub async fn keep_lease(runs: Arc<Runs>) {
    let unbroken_since = watch::Sender::new(None);
    tokio::join!(renew(&runs, &unbroken_since), sweep(&runs, &unbroken_since));
}

/// Renews; `unbroken_since`: since when without a failure.
async fn renew(runs: &Runs, unbroken_since: &watch::Sender<Option<Instant>>) {
    let mut ticks = interval(RENEW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let instance = runs.instance();
        match timeout(RENEW_EVERY, runs.log.renew(&instance, LEASE)).await {
            Ok(Ok(Renewal::Alive { .. })) => {
                unbroken_since.send_modify(|since| *since = since.or_else(|| Some(Instant::now())))
            }
            Ok(Ok(Renewal::Dead)) => {
                tracing::error!(%instance, "others have declared this instance dead; its runs are dropped");
                runs.start_over();
                unbroken_since.send_replace(None);
            }
            Ok(Err(_)) | Err(_) => {
                unbroken_since.send_replace(None);
            }
        }
    }
}

/// Sweeps, while our own renewals are unbroken.
async fn sweep(runs: &Runs, unbroken_since: &watch::Sender<Option<Instant>>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if unbroken_since.borrow().is_none_or(|since| since.elapsed() < GRACE) {
            continue;
        }
        match timeout(RENEW_EVERY, runs.log.sweep(&runs.instance())).await {
            Ok(Ok(dead)) => {
                for instance in dead {
                    take_over(runs, instance).await;
                }
            }
            Ok(Err(_)) | Err(_) => {
                unbroken_since.send_replace(None);
            }
        }
    }
}

/// Ends the runs of a dead instance, one by one, each until the answer is definite.
async fn take_over(runs: &Runs, dead: DeadInstance) {
    tracing::warn!(instance = %dead.instance, runs = dead.runs.len(), "an instance has died; its runs are interrupted");
    for (session, run) in dead.runs {
        let takeover = Takeover {
            session: session.clone(),
            run: run.clone(),
            nonce: format!("{:032x}", crate::random::u128()).into(),
            details: json!({"reason": "owner_lost"}).to_string().into(),
        };
        let ended = definite(|| runs.log.takeover(takeover.clone())).await;
        if let TakenOver::Ended { .. } = &ended {
            RunTakenOver { session: &session, run: &run, owner: &dead.instance }.emit(&runs.metrics);
        }
        definite(|| runs.log.unlist(&dead.instance, &session, &run)).await;
    }
}

async fn definite<'a, T>(mut call: impl FnMut() -> crate::log::Answer<'a, T>) -> T {
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(Unavailable { .. }) => tokio::time::sleep(SWEEP_EVERY).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt;

    use super::*;
    use crate::log::scripted::{Scripted, now};
    use crate::run::RunsSettings;
    use crate::session::{InstanceId, RunId, SessionId};
    use crate::telemetry::Metrics;

    /// The symptom: an instance that took over a thousand runs was declared dead meanwhile.
    #[tokio::test]
    async fn renewals_go_on_while_the_runs_of_a_dead_instance_are_ended() {
        let log = Arc::new(Scripted::default());
        let (renewals, sweeping) = (Arc::new(AtomicU32::new(0)), Arc::new(watch::Sender::new(false)));
        log.renew.answers({
            let renewals = renewals.clone();
            move |()| {
                renewals.fetch_add(1, Ordering::SeqCst);
                now(Renewal::Alive { commands: Vec::new() })
            }
        });
        log.sweep.answers({
            let sweeping = sweeping.clone();
            move |()| {
                sweeping.send_replace(true);
                let run = (SessionId::from_random(1), RunId::from_random(1));
                now(vec![DeadInstance { instance: InstanceId::from_random(1), runs: vec![run] }])
            }
        });
        log.takeover.answers(|_| std::future::pending().boxed());
        let settings = RunsSettings {
            event_bytes: 1,
            pending_bytes: 1,
            run_duration: GRACE,
            caller_buffer: 1,
            eager_after: GRACE,
            outage_limit: GRACE,
        };
        let lease = tokio::spawn(keep_lease(Runs::new(log, settings, Metrics::new())));
        timeout(4 * GRACE, sweeping.subscribe().wait_for(|sweeping| *sweeping)).await.expect("a sweep").unwrap();
        let before = renewals.load(Ordering::SeqCst);
        timeout(GRACE, async {
            while renewals.load(Ordering::SeqCst) < before + 2 {
                tokio::time::sleep(SWEEP_EVERY).await;
            }
        })
        .await
        .expect("no renewal during the takeover");
        lease.abort();
    }
}
