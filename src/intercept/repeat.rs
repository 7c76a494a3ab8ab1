//! A request whose key somebody else has claimed: waits until it is known what came of the first.
//! Must never call the upstream, nor answer before the two requests are known to be the same one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::claim::{Claiming, Held, UnknownVersion, claim_again};
use super::claimed::{Claimed, Request, State};
use crate::log::{Log, Unavailable};
use crate::server::Problem;
use crate::session::{RunId, SessionId};
use crate::wire::Code;

/// First and longest pause between two looks at the claim.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// How often it is asked whether the claimant is still alive.
const IS_IT_DEAD: Duration = Duration::from_secs(1);

/// How long the first request's body may still be on its way. A caller that has lost its network in
/// the middle of it repeats itself while nobody has noticed yet that the first one is gone.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What came of the first request.
pub(super) enum Settled {
    /// This run.
    Run(SessionId, RunId),
    /// Nothing; the key is ours now.
    Free(Held),
}

/// Waits for what comes of the request that has claimed `key`, whose claim is `theirs`. It may take
/// as long as the upstream's head: the first caller waits for that as well. `fingerprint` is that
/// of the repeated request, `mine` what it would claim.
pub(super) async fn settled(
    log: &Arc<dyn Log>,
    key: &str,
    mine: &Claimed,
    fingerprint: &str,
    mut theirs: Claimed,
) -> Result<Settled, Problem> {
    let began = Instant::now();
    let (mut asked, mut pause) = (began, PAUSES.0);
    loop {
        match (&theirs.request, theirs.state) {
            (Request::Is(first), _) if *first != *fingerprint => return Err(another_request()),
            (_, State::Lost) => return Err(lost()),
            (Request::Is(_), State::Run) => return Ok(Settled::Run(theirs.session, theirs.run)),
            (_, State::Run) => return Err(never_known()),
            (Request::Coming, State::Calling) if began.elapsed() > BODY_WITHIN => return Err(still_coming()),
            (_, State::Calling) => {}
        }
        if asked.elapsed() > IS_IT_DEAD {
            asked = Instant::now();
            bury(log, key, &theirs).await.map_err(Problem::store_unavailable)?;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
        theirs = match claim_again(log, key, mine).await.map_err(Problem::store_unavailable)?.map_err(unreadable)? {
            Claiming::Ours(held) => return Ok(Settled::Free(held)),
            Claiming::Theirs(theirs) => theirs,
        };
    }
}

/// Says of a claim whose claimant is dead what has become of its call. It may have opened the run
/// and died before it could say so: then its run is interrupted, or will be.
async fn bury(log: &Arc<dyn Log>, key: &str, theirs: &Claimed) -> Result<(), Unavailable> {
    if !log.is_dead(&theirs.instance).await? {
        return Ok(());
    }
    let opened = log.run(&theirs.session, &theirs.run).await?.is_some();
    let comparable = matches!(theirs.request, Request::Is(_));
    let state = if opened && comparable { State::Run } else { State::Lost };
    // Whoever was faster has said the same, and the next look finds it.
    log.amend(key, theirs.to_text(), Some(Claimed { state, ..theirs.clone() }.to_text())).await.map(drop)
}

/// The request is not the one that the key was first used for.
fn another_request() -> Problem {
    let detail = "this Idempotency-Key was used for another request (body, query or session); use a new key";
    Problem::new(Code::Conflict, detail)
}

/// The upstream answered before it had read the first request.
fn never_known() -> Problem {
    let detail = "the first request with this Idempotency-Key was not read to its end, so that nobody can know \
                  whether this is the same one; use a new key";
    Problem::new(Code::Conflict, detail)
}

/// The first request is still being sent.
pub(super) fn still_coming() -> Problem {
    Problem::new(Code::Busy, "the first request with this Idempotency-Key is still being sent; try again")
}

/// The upstream may have been called, and its answer is not in the log.
fn lost() -> Problem {
    let detail = "whoever called the upstream for this Idempotency-Key died before the answer began; it may have \
                  done its work. Use a new key to ask again";
    Problem::new(Code::Gone, detail).with("reason", "interrupted")
}

/// The run has left the log.
pub(super) fn no_longer_kept() -> Problem {
    Problem::new(Code::Gone, "the answer to this Idempotency-Key is no longer kept; use a new key to ask again")
}

pub(super) fn unreadable(_: UnknownVersion) -> Problem {
    Problem::new(Code::Internal, "a newer version has written what is known of this Idempotency-Key")
}
