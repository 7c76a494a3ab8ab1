//! The claim of a key: who calls the upstream for it, and what came of the call.
//!
//! The claim is in the store before the upstream is called, so that of all requests with the key, at
//! whichever instance, one alone is forwarded. It goes through these states:
//!
//! | state | means | who asks with the key again |
//! |---|---|---|
//! | free | nothing was begun, or its answer was no stream | calls the upstream |
//! | `calling` | the upstream is being called, or was: nobody can know which | waits for the claimant; once that is known to be dead, the state is `run` or `lost` |
//! | `run` | its answer is this run, which the log has opened | gets the run |
//! | `lost` | the upstream may have been called, and its answer is not in the log | is told so |
//!
//! There is no state for "claimed but not calling yet": the call follows at once, and a second write
//! before it would cost every request a round trip to tell apart the microseconds between. So the
//! rule is: **after a claim nobody calls the upstream for its key unless the claimant lived to say
//! that nothing came of it.** It must never be given up by anybody else.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::claimed::{Claimed, Request, State};
use crate::log::{Claim, Log, StoreHealth, Unavailable};
use crate::session::SessionId;

/// How long a claim may take while the store is said to be up; then the request goes on without.
const PATIENCE: Duration = Duration::from_secs(5);

/// First and longest pause before a call is repeated whose outcome is unknown.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How often a run is looked for whose opening the store has not acknowledged in time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The answer to a claim.
pub(super) enum Claiming {
    /// The key is ours: call the upstream.
    Ours(Held),
    /// Somebody was first.
    Theirs(Claimed),
}

/// A claim that is ours, or may be. Dropped before [`Held::keep`] it is given up: nothing was begun.
pub(super) struct Held(Option<Keeper>);

/// Who calls the upstream says here what came of it. Dropped without a word, the answer is lost.
pub(super) struct Fate(oneshot::Sender<Outcome>);

/// What came of a call.
pub(super) enum Outcome {
    Nothing,
    Run { session: SessionId, opened: bool },
}

/// Writes what becomes of a claim.
struct Keeper {
    log: Arc<dyn Log>,
    key: String,
    claimed: Claimed,
}

/// A claim that cannot be read: a newer version has written it.
#[derive(Debug)]
pub(super) struct UnknownVersion;

/// Claims `key`, unless it is taken. A store that is away must not keep the request from the
/// upstream, and one that is only slow must not let a second run begin: it is asked until it answers
/// or is known to be down. `None`: it is down, and the request is served as if it had no key.
pub(super) async fn claim(
    log: &Arc<dyn Log>,
    key: &str,
    claimed: &Claimed,
) -> Result<Option<Claiming>, UnknownVersion> {
    let held = Held::new(log, key, claimed);
    let health = log.health();
    let asking = async move {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = BACKOFF.0;
        while *health.borrow() == StoreHealth::Up {
            match timeout_at(deadline, held.ask()).await {
                Ok(Ok(answer)) => return held.answered(answer).map(Some),
                Ok(Err(_)) => sleep(pause).await,
                Err(_) => break,
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
        Ok(None)
    };
    // In a task of its own: the caller may leave at any time, and a claim that is won then must be
    // given up.
    tokio::spawn(asking).await.unwrap_or(Ok(None))
}

/// The same, asked once, for a key that was taken a moment ago.
pub(super) async fn claim_again(
    log: &Arc<dyn Log>,
    key: &str,
    claimed: &Claimed,
) -> Result<Result<Claiming, UnknownVersion>, Unavailable> {
    let held = Held::new(log, key, claimed);
    let asking = async move {
        let answer = held.ask().await?;
        Ok(held.answered(answer))
    };
    tokio::spawn(asking).await.unwrap_or_else(|defect| Err(Unavailable::new(defect.to_string())))
}

impl Held {
    fn new(log: &Arc<dyn Log>, key: &str, claimed: &Claimed) -> Self {
        Held(Some(Keeper { log: log.clone(), key: key.to_owned(), claimed: claimed.clone() }))
    }

    async fn ask(&self) -> Result<Claim, Unavailable> {
        let keeper = self.0.as_ref().expect("it is there until `keep`");
        keeper.log.claim(&keeper.key, keeper.claimed.to_text()).await
    }

    fn answered(mut self, answer: Claim) -> Result<Claiming, UnknownVersion> {
        match answer {
            Claim::Won => Ok(Claiming::Ours(self)),
            Claim::Taken(theirs) => {
                // Nothing to give up.
                self.0 = None;
                Claimed::parse(&theirs).map(Claiming::Theirs).ok_or(UnknownVersion)
            }
        }
    }

    /// Keeps the claim while the upstream is called: `fingerprint` comes once the request's body has
    /// been read, and [`Fate`] says what came of the call. The process stays until it is written. Where
    /// a run may last longer than its claim, the claim is renewed every so often.
    pub(super) fn keep(
        mut self,
        fingerprint: oneshot::Receiver<String>,
        renew_every: Option<Duration>,
        place: TaskTrackerToken,
    ) -> Fate {
        let mut keeper = self.0.take().expect("it is there until now");
        let (fate, told) = oneshot::channel();
        tokio::spawn(async move {
            keeper.keep(fingerprint, told).await;
            drop(place);
            if let Some(every) = renew_every {
                keeper.renew(every).await;
            }
        });
        Fate(fate)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Without a runtime the process is at its end, and the claim is that of a dead instance.
        if let (Some(mut keeper), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move { keeper.write(None).await });
        }
    }
}

impl Fate {
    /// A word of what comes of a call, for whoever keeps it elsewhere.
    pub(super) fn told() -> (Self, oneshot::Receiver<Outcome>) {
        let (fate, told) = oneshot::channel();
        (Fate(fate), told)
    }

    /// The answer is no run: the key is free.
    pub(super) fn nothing(self) {
        // Its keeper lives as long as it does.
        let _ = self.0.send(Outcome::Nothing);
    }

    /// The answer is a run of `session`, which the log has `opened`, or is going to.
    pub(super) fn run(self, session: SessionId, opened: bool) {
        let _ = self.0.send(Outcome::Run { session, opened });
    }
}

impl Keeper {
    async fn keep(&mut self, mut fingerprint: oneshot::Receiver<String>, mut told: oneshot::Receiver<Outcome>) {
        let mut next = self.claimed.clone();
        let outcome = tokio::select! {
            outcome = &mut told => outcome,
            taken = &mut fingerprint => {
                next.request = request(taken);
                // Who waits with another body need not wait for the answer to be told.
                if matches!(next.request, Request::Is(_)) {
                    self.write(Some(next.clone())).await;
                }
                told.await
            }
        };
        match outcome {
            Ok(Outcome::Nothing) => return self.write(None).await,
            Ok(Outcome::Run { session, opened }) => {
                next.session = session;
                next.state = if opened || self.opens(&next).await { State::Run } else { State::Lost };
                if next.request == Request::Coming {
                    next.request = request(fingerprint.await);
                }
            }
            Err(_) => next.state = State::Lost,
        }
        self.write(Some(next)).await;
    }

    /// Keeps the claim of a run until that has ended: a second run must not begin beside it.
    async fn renew(&mut self, every: Duration) {
        while self.claimed.state == State::Run {
            sleep(every).await;
            match self.log.run(&self.claimed.session, &self.claimed.run).await {
                Ok(Some(run)) if run.ended.is_none() => {}
                Err(_) => {}
                Ok(_) => return,
            }
            self.write(Some(self.claimed.clone())).await;
        }
    }

    /// Whether the log opens the run, however long that takes.
    async fn opens(&self, next: &Claimed) -> bool {
        loop {
            match self.log.run(&next.session, &next.run).await {
                Ok(Some(_)) => return true,
                Ok(None) if matches!(self.log.is_dead(&next.instance).await, Ok(true)) => return false,
                _ => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Writes until the answer is definite; `None` gives the key free. Where others have declared us
    /// dead they may have written first, and that stays.
    async fn write(&mut self, next: Option<Claimed>) {
        let text = next.as_ref().map(Claimed::to_text);
        let mut pause = BACKOFF.0;
        while self.log.amend(&self.key, self.claimed.to_text(), text.clone()).await.is_err() {
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
        if let Some(next) = next {
            self.claimed = next;
        }
    }
}

fn request(taken: Result<String, oneshot::error::RecvError>) -> Request {
    taken.map_or(Request::Never, Request::Is)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::embedded::{EmbeddedLog, EmbeddedOptions, Location};
    use crate::session::{InstanceId, RunId};

    async fn log() -> Arc<dyn Log> {
        EmbeddedLog::open(EmbeddedOptions::new(Location::Memory)).await.unwrap()
    }

    fn calling() -> Claimed {
        let (session, run) = (SessionId::from_random(crate::random::u128()), RunId::from_random(crate::random::u128()));
        Claimed::calling(session, run, InstanceId::from_random(1))
    }

    async fn ours(log: &Arc<dyn Log>) -> Held {
        match claim(log, "key", &calling()).await.unwrap().unwrap() {
            Claiming::Ours(held) => held,
            Claiming::Theirs(theirs) => panic!("taken: {theirs:?}"),
        }
    }

    /// What the claim says, once it is what the test waits for; `None`: it is free (and then ours).
    async fn becomes(log: &Arc<dyn Log>, wanted: impl Fn(Option<&Claimed>) -> bool) {
        let looking = async {
            loop {
                let claimed = match claim_again(log, "key", &calling()).await.unwrap().unwrap() {
                    Claiming::Ours(_) => None,
                    Claiming::Theirs(theirs) => Some(theirs),
                };
                if wanted(claimed.as_ref()) {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), looking).await.expect("the claim is not what it should be");
    }

    #[tokio::test]
    async fn a_claim_whose_caller_left_before_the_call_is_given_up() {
        let log = log().await;
        drop(ours(&log).await);
        becomes(&log, |claimed| claimed.is_none()).await;
    }

    #[tokio::test]
    async fn a_call_that_ends_without_a_word_is_lost() {
        let log = log().await;
        let tasks = tokio_util::task::TaskTracker::new();
        let (_reading, fingerprint) = oneshot::channel();
        drop(ours(&log).await.keep(fingerprint, None, tasks.token()));
        becomes(&log, |claimed| claimed.is_some_and(|claimed| claimed.state == State::Lost)).await;
    }

    #[tokio::test]
    async fn a_run_is_said_with_the_session_that_the_answer_named() {
        let log = log().await;
        let tasks = tokio_util::task::TaskTracker::new();
        let (read, fingerprint) = oneshot::channel();
        let fate = ours(&log).await.keep(fingerprint, None, tasks.token());
        let session = SessionId::from_random(7);
        fate.run(session.clone(), true);
        read.send("digest".to_owned()).unwrap();
        let request = Request::Is("digest".into());
        let told =
            |claimed: &Claimed| (claimed.state, &claimed.session, &claimed.request) == (State::Run, &session, &request);
        becomes(&log, |claimed| claimed.is_some_and(told)).await;
        tasks.close();
        tasks.wait().await;
    }
}
