//! Active runs that nobody looks after: their owner is dead or gone, and no list has them, because
//! the store lost the list. Whoever attaches to their session would wait for ever.
//!
//! A run that nobody lists is listed again, for its owner. That is all: if the owner is dead, the next
//! sweep finds the run like any other, with all the care that a sweep takes; if it lives, it ends the
//! run itself, and should it die the run is found. So this needs no judgement of who is alive.
//!
//! An instance that finds a run of its own, which it neither drives nor remembers, ends it: the store has gone back
//! further than anybody remembers, and has lost the terminal.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::log::{Bounds, RunInfo, Unavailable};
use crate::run::Runs;
use crate::run::takeover::take_over;
use crate::session::{InstanceId, RunId, SessionId};

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
        if is_nobodys(runs, &owner, &run) {
            let is_active =
                |info: Option<RunInfo>| info.is_some_and(|info| info.ended.is_none() && info.owner == owner);
            // It may just have ended, or be about to be ended once more.
            if is_active(runs.log.run(session, &run).await?) && is_nobodys(runs, &owner, &run) {
                tracing::warn!(%session, %run, "an active run of this instance is driven by nobody; it is ended");
                take_over(runs.clone(), owner, session.clone(), vec![run]).await;
            }
            continue;
        }
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

/// Whether `owner` is this instance, which knows nothing of the run.
fn is_nobodys(runs: &Runs, owner: &InstanceId, run: &RunId) -> bool {
    *owner == runs.instance() && runs.driven(run).is_none() && !runs.remembered.has(run)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio::time::timeout;

    use super::*;
    use crate::log::scripted::{Scripted, now};
    use crate::log::{SessionBounds, TakenOver};
    use crate::run::fixtures::{runs_on, spec};
    use crate::session::Offset;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn run() -> RunId {
        RunId::parse("r").unwrap()
    }

    /// A log with an active run of the instance that asks, and which runs were taken over.
    fn runs_with_one_of_theirs() -> (Arc<Scripted>, Arc<Runs>, watch::Receiver<Vec<RunId>>) {
        let log = Arc::new(Scripted::default());
        let runs = runs_on(log.clone(), PATIENCE);
        let at = Offset::new(1, 1);
        let info = RunInfo {
            run: run(),
            owner: runs.instance(),
            started: at,
            last: at,
            ended: None,
            parent: None,
            cancel: None,
        };
        let active = vec![info.clone()];
        log.bounds.answers(move |()| {
            now(Bounds::Live(SessionBounds {
                created_ms: 1,
                trimmed: Offset::ZERO,
                tail: at,
                entries: 1,
                bytes: 1,
                expires_in: PATIENCE,
                active: active.clone(),
                newest_run: None,
            }))
        });
        log.run.answers(move |_| now(Some(info.clone())));
        let (taken, takeovers) = watch::channel(Vec::new());
        log.takeover.answers(move |takeover| {
            taken.send_modify(|taken| taken.push(takeover.run));
            now(TakenOver::NeverStarted)
        });
        (log, runs, takeovers)
    }

    /// The symptom: a run was active for ever, for its owner lived and knew nothing of it any more.
    #[tokio::test]
    async fn an_active_run_of_our_own_that_nobody_drives_is_ended() {
        let (_, runs, mut takeovers) = runs_with_one_of_theirs();
        let check = tokio::spawn(async move { check(&runs, &SessionId::from_random(1)).await });
        timeout(PATIENCE, takeovers.wait_for(|taken| *taken == [run()])).await.expect("it is not ended").unwrap();
        check.abort();
    }

    #[tokio::test]
    async fn an_active_run_that_is_driven_here_is_left_alone() {
        let (log, runs, takeovers) = runs_with_one_of_theirs();
        let _opening = runs.write(spec(&run(), PATIENCE), crate::server::empty());
        let asked = watch::Sender::new(false);
        let told = asked.clone();
        log.run.answers(move |_| {
            told.send_replace(true);
            now(None)
        });
        let checked = timeout(Duration::from_millis(100), check(&runs, &SessionId::from_random(1))).await;
        assert!(checked.is_err(), "it is asked whether it is listed");
        assert_eq!((*asked.borrow(), takeovers.borrow().len()), (false, 0));
    }
}
