//! What waits in a session: its list, and its start once the route is free.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use tokio::time::{Instant, sleep};

use crate::control::Control;
use crate::control::request::{Sendable, service};
use crate::control::sending::{Begin, LEAVING};
use crate::log::{OnBusy, Opened, QueuedRun, START_WITHIN, ToStart};
use crate::run::StartQueued;
use crate::server::Problem;
use crate::session::SessionId;
use crate::telemetry::{Fact, RunStarted};
use crate::wire::{CancelledRun, Outcome, QueuedItem};

impl Control {
    /// What waits in a session, first come first.
    ///
    /// # Errors
    /// The store is away.
    pub async fn queue(&self, session: &SessionId) -> Result<Outcome, Problem> {
        let waiting = self.log.queue(session).await.map_err(Problem::store_unavailable)?;
        let item = |queued: QueuedRun| {
            let input = Sendable::of_item(&queued.item).and_then(|(sendable, _)| {
                let route = self.routes.of(&sendable.method, sendable.path(), None);
                sendable.input(route, &queued.run)
            });
            QueuedItem {
                key: queued.key,
                run: queued.run,
                bytes: queued.item.len() as u64,
                client: queued.client,
                position: queued.position,
                input: input.map(|record| record.data),
            }
        };
        Ok(Outcome::Queue(waiting.into_iter().map(item).collect()))
    }

    /// Takes the run with this key out of the queue, for good. One that has begun is left alone.
    ///
    /// # Errors
    /// The store is away.
    pub async fn withdraw(&self, session: &SessionId, key: &str) -> Result<Outcome, Problem> {
        let withdrawn = self.log.withdraw(session, key).await.map_err(Problem::store_unavailable)?;
        let shown = |run| CancelledRun { run, outcome: "withdrawn", offset: None, upstream: None };
        Ok(Outcome::Cancelled(withdrawn.into_iter().map(shown).collect()))
    }
}

impl StartQueued for Control {
    fn start<'a>(&'a self, session: &'a SessionId, waited: ToStart) -> BoxFuture<'a, bool> {
        async move {
            let ToStart { run, key, item, route: waited_on, .. } = waited;
            let Some((sendable, vouched)) = Sendable::of_item(&item) else {
                // Its mark runs out, and an instance of that version may find it.
                tracing::error!(%session, %run, "a queued run was written by another version; it is left to that");
                return true;
            };
            let route = self.routes.of(&sendable.method, sendable.path(), None).clone();
            let credentials = if vouched { service(&route) } else { HeaderMap::new() };
            // Its session was bound when it began to wait.
            let (claimed, parent, subject) = (None, None, None);
            // The route may have another name by now; what waits behind it does not know.
            let waited_on = Some(waited_on);
            let begin =
                Begin { session, run: &run, key, claimed, parent, sendable, route, waited_on, credentials, subject };
            let until = Instant::now() + START_WITHIN;
            let opened = loop {
                match self.open(&begin, OnBusy::Waited) {
                    Some(opening) => break opening.await.ok(),
                    None if Instant::now() < until => sleep(LEAVING).await,
                    None => return true,
                }
            };
            match opened {
                Some(Opened::Open { .. }) => {
                    let route = begin.route_name();
                    RunStarted { session, run: &run, route: &route, dialect: None, queued: true }.emit(&self.metrics);
                    true
                }
                other => {
                    tracing::debug!(%session, %run, outcome = ?other, "a queued run is somebody else's, or gone");
                    !matches!(other, Some(Opened::Closed(_)))
                }
            }
        }
        .boxed()
    }
}
