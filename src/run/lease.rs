//! The lease of this instance: renewed once a second, so that others know that it lives; and the
//! sweep for instances that do not, whose runs get their terminal from us.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
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
pub async fn keep_lease(runs: Arc<Runs>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renew_at = Instant::now();
    let mut unbroken_since: Option<Instant> = None;
    loop {
        ticks.tick().await;
        if Instant::now() >= renew_at {
            renew_at = Instant::now() + RENEW_EVERY;
            let instance = runs.instance();
            match timeout(RENEW_EVERY, runs.log.renew(&instance, LEASE)).await {
                Ok(Ok(Renewal::Alive { .. })) => {
                    unbroken_since.get_or_insert_with(Instant::now);
                }
                Ok(Ok(Renewal::Dead)) => {
                    tracing::error!(%instance, "others have declared this instance dead; its runs are dropped");
                    runs.start_over();
                    unbroken_since = None;
                }
                Ok(Err(_)) | Err(_) => unbroken_since = None,
            }
        }
        if unbroken_since.is_some_and(|since| since.elapsed() >= GRACE) {
            let swept = timeout(RENEW_EVERY, runs.log.sweep(&runs.instance())).await;
            match swept {
                Ok(Ok(dead)) => {
                    for instance in dead {
                        take_over(&runs, instance).await;
                    }
                }
                Ok(Err(_)) | Err(_) => unbroken_since = None,
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
