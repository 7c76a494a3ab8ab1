//! Active runs that nobody looks after: their owner is dead or gone, and no list has them, because
//! the store lost the list. Whoever attaches to their session would wait for ever.
//!
//! A run that nobody lists is listed again, for its owner. That is all: if the owner is dead, the next
//! sweep finds the run like any other, with all the care that a sweep takes; if it lives, it ends the
//! run itself, and should it die the run is found. So this needs no judgement of who is alive.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::log::{Bounds, RunInfo, Unavailable};
use crate::run::Runs;
use crate::run::takeover::take_over;
use crate::session::SessionId;

/// Sessions that are checked at a time; more wait in the channel that they come from.
const AT_ONCE: usize = 16;

/// Looks after the active runs of the sessions that come in `attended`.
pub(super) async fn look_after(runs: &Arc<Runs>, mut attended: mpsc::Receiver<SessionId>) {
    let mut checks = JoinSet::new();
    while let Some(session) = attended.recv().await {
        if checks.len() >= AT_ONCE {
            checks.join_next().await;
        }
        while checks.try_join_next().is_some() {}
        let runs = runs.clone();
        checks.spawn(async move {
            // Without an answer nothing is known; the next who attaches asks again.
            let _ = check(&runs, &session).await;
        });
    }
    checks.join_all().await;
}

async fn check(runs: &Arc<Runs>, session: &SessionId) -> Result<(), Unavailable> {
    let Bounds::Live(bounds) = runs.log.bounds(session).await? else { return Ok(()) };
    for RunInfo { run, owner, .. } in bounds.active {
        if runs.log.is_listed(&owner, session, &run).await? {
            continue;
        }
        if !runs.log.enlist(&owner, session, &run).await? {
            tracing::warn!(%session, %run, %owner, "an active run of a dead instance was on no list");
            take_over(runs.clone(), owner, session.clone(), vec![run]).await;
        } else if runs.log.run(session, &run).await?.is_none_or(|info| info.ended.is_some()) {
            // It was just ending: its owner writes the terminal, then unlists it, and may have done so before we
            // listed it again.
            runs.log.unlist(&owner, session, &run).await?;
        } else {
            tracing::warn!(%session, %run, %owner, "an active run was on no list; it is on its owner's again");
        }
    }
    Ok(())
}
