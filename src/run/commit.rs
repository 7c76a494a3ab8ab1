//! One call to the log, repeated until the answer is definite. Any error means unknown, never
//! failed, so the same call is sent again: the log recognises what it has.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::log::{Append, Appended, Log, OpenRun, Opened};
use crate::session::InstanceId;
use crate::telemetry::Metrics;

/// First and longest pause between attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A definite answer of the log to an owner.
#[derive(Debug)]
pub(super) enum Committed {
    /// To the opening.
    Opened(Opened),
    /// To an append, with what had been sent.
    Appended(Append, Appended),
}

/// Lists the run under its instance, then opens it. An instance that was declared dead opens
/// nothing.
pub(super) async fn open(log: Arc<dyn Log>, metrics: Metrics, instance: InstanceId, open: OpenRun) -> Committed {
    let mut pause = BACKOFF.0;
    loop {
        let listed = log.enlist(&instance, &open.session, &open.run).await;
        match listed {
            Ok(true) => match log.open_run(open.clone()).await {
                Ok(opened) => return Committed::Opened(opened),
                Err(error) => wait(&metrics, &error, &mut pause).await,
            },
            Ok(false) => return Committed::Opened(Opened::Fenced),
            Err(error) => wait(&metrics, &error, &mut pause).await,
        }
    }
}

/// Appends.
pub(super) async fn append(log: Arc<dyn Log>, metrics: Metrics, append: Append) -> Committed {
    let mut pause = BACKOFF.0;
    let began = Instant::now();
    loop {
        match log.append(append.clone()).await {
            Ok(appended) => {
                metrics.append_seconds(began.elapsed());
                return Committed::Appended(append, appended);
            }
            Err(error) => wait(&metrics, &error, &mut pause).await,
        }
    }
}

async fn wait(metrics: &Metrics, error: &crate::log::Unavailable, pause: &mut Duration) {
    metrics.append_retries.inc();
    tracing::debug!(%error, "the store did not answer; asking again");
    sleep(crate::random::up_to(*pause) + *pause / 2).await;
    *pause = (*pause * 2).min(BACKOFF.1);
}
