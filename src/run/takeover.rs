//! Ending the runs of instances that have died.
//!
//! Everything here may be done twice, by this instance or by several at once: a takeover finds the
//! terminal that is there, and a run stays on its list until all that follows its end is done. So
//! whoever dies halfway leaves the rest to the next sweep.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::log::{Answer, DeadInstance, PageLimits, Read, RunTally, TakenOver, Takeover, Unavailable};
use crate::run::Runs;
use crate::run::lease::{RENEW_EVERY, Renewals};
use crate::session::{InstanceId, Offset, RunId, SessionId};
use crate::telemetry::{Fact, RunTakenOver};

/// Sweeps: often enough that who has been absent for half a second is found within a second.
const SWEEP_EVERY: Duration = Duration::from_millis(260);

/// Sessions whose runs are ended at a time.
const AT_ONCE: usize = 32;

/// How long the events of a session's runs are counted; what was counted until then is what their
/// terminals say. It is part of the 5 s within which everybody knows.
const COUNTING: Duration = Duration::from_millis(750);

/// Between two attempts at what has no answer yet.
const RETRY: Duration = Duration::from_millis(250);

/// Sweeps, while our own renewals say that we may judge others.
pub(super) async fn sweep(runs: &Arc<Runs>, renewals: &Renewals) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way: HashSet<InstanceId> = HashSet::new();
    let mut takeovers: JoinSet<InstanceId> = JoinSet::new();
    loop {
        ticks.tick().await;
        while let Some(done) = takeovers.try_join_next() {
            match done {
                Ok(instance) => under_way.remove(&instance),
                // One that broke off is found again by another instance, or by the next life of this one.
                Err(_) => false,
            };
        }
        if !renewals.let_us_judge(runs.log.steady_for(), Instant::now()) {
            continue;
        }
        match timeout(RENEW_EVERY, runs.log.sweep(&runs.instance())).await {
            Ok(Ok(dead)) => {
                // The dead are found again while they list runs; an instance that is dead lists no more.
                for dead in dead.into_iter().filter(|dead| !dead.runs.is_empty()) {
                    if under_way.insert(dead.instance.clone()) {
                        takeovers.spawn(take_over_all(runs.clone(), dead));
                    }
                }
            }
            Ok(Err(_)) | Err(_) => renewals.broken(),
        }
    }
}

/// Ends the runs of a dead instance. What follows their ends may have to wait for others, and holds
/// nobody up.
async fn take_over_all(runs: Arc<Runs>, dead: DeadInstance) -> InstanceId {
    let DeadInstance { instance, runs: listed } = dead;
    tracing::warn!(%instance, runs = listed.len(), "an instance has died; its runs are interrupted");
    let mut sessions: BTreeMap<SessionId, Vec<RunId>> = BTreeMap::new();
    for (session, run) in listed {
        sessions.entry(session).or_default().push(run);
    }
    let mut settling = JoinSet::new();
    let mut ended = stream::iter(sessions)
        .map(|(session, of_session)| end(runs.clone(), instance.clone(), session, of_session))
        .buffer_unordered(AT_ONCE);
    while let Some((session, of_session)) = ended.next().await {
        settling.spawn(settle(runs.clone(), instance.clone(), session, of_session));
    }
    drop(ended);
    settling.join_all().await;
    instance
}

/// Ends runs of `owner`, who is dead, in one session.
pub(super) async fn take_over(runs: Arc<Runs>, owner: InstanceId, session: SessionId, of_session: Vec<RunId>) {
    let (session, of_session) = end(runs.clone(), owner.clone(), session, of_session).await;
    settle(runs, owner, session, of_session).await;
}

/// Writes the terminals, each until the answer is definite.
async fn end(
    runs: Arc<Runs>,
    owner: InstanceId,
    session: SessionId,
    of_session: Vec<RunId>,
) -> (SessionId, Vec<RunId>) {
    let mut tallies = vec![RunTally::default(); of_session.len()];
    // Numbers that could not be had in time, or at all, must not keep anybody waiting for the end.
    let counted = timeout(COUNTING, count(&runs, &session, &of_session, &mut tallies)).await;
    let all_counted = matches!(counted, Ok(Ok(true)));
    for (run, RunTally { events, bytes }) in of_session.iter().zip(tallies) {
        let mut details = json!({"reason": "owner_lost", "events": events, "bytes": bytes});
        if !all_counted {
            details["at_least"] = true.into();
        }
        let takeover = Takeover {
            session: session.clone(),
            run: run.clone(),
            nonce: format!("{:032x}", crate::random::u128()).into(),
            details: details.to_string().into(),
        };
        let taken = definite(|| runs.log.takeover(takeover.clone())).await;
        if let TakenOver::Ended { .. } = taken {
            RunTakenOver { session: &session, run, owner: &owner }.emit(&runs.metrics);
        }
    }
    (session, of_session)
}

/// What follows the ends: what waited for them starts. Only then are the runs nobody's any more.
async fn settle(runs: Arc<Runs>, owner: InstanceId, session: SessionId, of_session: Vec<RunId>) {
    while let Some(others_are_done) = runs.freed(&session).await {
        sleep(others_are_done).await;
    }
    if runs.is_leaving() {
        // What this instance did not start any more, whoever sweeps next does.
        return;
    }
    for run in &of_session {
        definite(|| runs.log.unlist(&owner, &session, run)).await;
    }
}

/// Counts what the log has of the runs that are active, in one pass over what came after the first
/// of them began. `false`: something of that is not there any more.
async fn count(
    runs: &Runs,
    session: &SessionId,
    of_session: &[RunId],
    tallies: &mut [RunTally],
) -> Result<bool, Unavailable> {
    let mut first: Option<Offset> = None;
    for run in of_session {
        if let Some(info) = runs.log.run(session, run).await?
            && info.ended.is_none()
        {
            first = Some(first.map_or(info.started, |first| first.min(info.started)));
        }
    }
    let Some(mut after) = first else { return Ok(true) };
    let mut whole = true;
    loop {
        match runs.log.read(session, after, PageLimits::default()).await? {
            Read::Page(page) => {
                let Some(last) = page.entries.last() else { return Ok(whole) };
                after = last.offset;
                for entry in &page.entries {
                    for (run, tally) in of_session.iter().zip(&mut *tallies) {
                        tally.add(run, &entry.record);
                    }
                }
            }
            // The beginning was trimmed: what is left of it counts.
            Read::Gap(gap) if gap.to > after => (after, whole) = (gap.to, false),
            Read::Gap(_) | Read::NotFound => return Ok(false),
        }
    }
}

/// Asks until the answer is definite.
pub(super) async fn definite<'a, T>(mut call: impl FnMut() -> Answer<'a, T>) -> T {
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(Unavailable { .. }) => sleep(RETRY).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt;
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::log::scripted::{Scripted, now};
    use crate::log::{Renewal, Starts};
    use crate::run::fixtures::runs_on;
    use crate::run::keep_lease;
    use crate::session::Terminal;

    /// Long enough for anything that happens at all.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A store on which everybody always renews, and an instance has died that had a run in each of
    /// these sessions.
    fn log_with_dead(sessions: &'static [u128]) -> Arc<Scripted> {
        let log = Arc::new(Scripted::default());
        *log.steady_for.lock().unwrap() = Duration::MAX;
        log.renew.answers(|()| now(Renewal::Alive { commands: Vec::new() }));
        log.run.answers(|_| now(None));
        log.start_queued.answers(|_| now(Starts::default()));
        log.sweep.answers(move |()| {
            let runs = sessions.iter().map(|n| (SessionId::from_random(*n), RunId::from_random(*n))).collect();
            now(vec![DeadInstance { instance: InstanceId::from_random(1), runs }])
        });
        log
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let waiting = async {
            while !holds() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited for {what}"));
    }

    fn keep(runs: Arc<Runs>) -> tokio::task::JoinHandle<()> {
        let (hub, attended) = mpsc::channel(1);
        tokio::spawn(async move {
            let _hub = hub;
            keep_lease(runs, attended).await;
        })
    }

    /// The symptom: an instance that took over a thousand runs was declared dead meanwhile.
    #[tokio::test]
    async fn renewals_go_on_while_the_runs_of_a_dead_instance_are_ended() {
        let log = log_with_dead(&[1]);
        let (renewals, taking) = (Arc::new(AtomicU32::new(0)), watch::Sender::new(false));
        let (renewed, begun) = (renewals.clone(), taking.clone());
        log.renew.answers(move |()| {
            renewed.fetch_add(1, Ordering::SeqCst);
            now(Renewal::Alive { commands: Vec::new() })
        });
        log.takeover.answers(move |_| {
            begun.send_replace(true);
            std::future::pending().boxed()
        });
        let lease = keep(runs_on(log, PATIENCE));
        until("a takeover", || *taking.borrow()).await;
        let before = renewals.load(Ordering::SeqCst);
        until("renewals", || renewals.load(Ordering::SeqCst) >= before + 2).await;
        lease.abort();
    }

    #[tokio::test]
    async fn what_follows_an_end_in_one_session_keeps_no_other_waiting() {
        static SESSIONS: [u128; 3 * AT_ONCE] = {
            let mut sessions = [0; 3 * AT_ONCE];
            let mut n = 0;
            while n < sessions.len() {
                sessions[n] = n as u128 + 1;
                n += 1;
            }
            sessions
        };
        let log = log_with_dead(&SESSIONS);
        let taken = Arc::new(AtomicU32::new(0));
        let counted = taken.clone();
        log.start_queued.answers(|_| std::future::pending().boxed());
        log.takeover.answers(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            now(TakenOver::Ended { offset: Offset::new(1, 1), state: Terminal::Interrupted })
        });
        let lease = keep(runs_on(log, PATIENCE));
        until("all takeovers", || taken.load(Ordering::SeqCst) == 3 * AT_ONCE as u32).await;
        lease.abort();
    }

    #[tokio::test]
    async fn after_every_kind_of_answer_it_is_asked_what_may_start() {
        for answer in [
            TakenOver::Ended { offset: Offset::new(1, 1), state: Terminal::Cancelled },
            TakenOver::AlreadyEnded { offset: Offset::new(1, 1), state: Terminal::Completed },
            TakenOver::Queued,
            TakenOver::NeverStarted,
            TakenOver::Closed(crate::log::Closed::Expired),
        ] {
            let log = log_with_dead(&[7]);
            let asked = watch::Sender::new(None);
            let heard = asked.clone();
            log.start_queued.answers(move |session| {
                heard.send_replace(Some(session));
                now(Starts::default())
            });
            log.takeover.answers(move |_| now(answer.clone()));
            let lease = keep(runs_on(log, PATIENCE));
            until("the question", || asked.borrow().is_some()).await;
            assert_eq!(*asked.borrow(), Some(SessionId::from_random(7)));
            lease.abort();
        }
    }

    #[tokio::test]
    async fn a_takeover_does_not_wait_for_numbers_that_do_not_come() {
        let log = log_with_dead(&[1]);
        let (said, details) = watch::channel(None);
        log.run.answers(|_| std::future::pending().boxed());
        log.takeover.answers(move |takeover| {
            said.send_replace(Some(takeover.details));
            now(TakenOver::NeverStarted)
        });
        let lease = keep(runs_on(log, PATIENCE));
        until("the takeover", || details.borrow().is_some()).await;
        assert_eq!(
            details.borrow().as_deref(),
            Some(r#"{"at_least":true,"bytes":0,"events":0,"reason":"owner_lost"}"#)
        );
        lease.abort();
    }
}
