//! Requests of clients that try again by themselves and say so (`x-stainless-retry-count`, which the SDKs of OpenAI
//! and Anthropic send with every request): one that repeats another, with the same body, gets its run. They know no
//! key, so that the first is found by what it asked, for ten minutes.
//!
//! They give up before the answer's head only, so that the first mostly waits for its upstream still, and a request
//! whose caller was there for its answer is never the first: somebody who asks the same several times at once wants
//! several answers. What joins is the same request of the same caller; a run that did not end well is never what a
//! repeat is given, for that is what it is there to mend. A store that is away, or a body that is too large to keep, makes it a request as any other.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, Request, Response, request};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::candidate::Candidate;
use super::claim::{Fate, Outcome};
use super::claimed::{self, Claimed, State};
use super::fingerprint::Fingerprint;
use super::interceptor::{Interceptor, client_left, grace};
use super::scope::of_body;
use crate::config::{Repeats, Route};
use crate::log::{Claim, Log};
use crate::proxy::buffer;
use crate::server::{Body, Problem};
use crate::session::{Offset, RunId, SessionId, Terminal};
use crate::wire::Code;

/// By which the SDKs say how often they have tried.
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");

/// How long a run is found by what was asked.
const KEPT: Duration = Duration::from_secs(600);

/// How long the store may take to say what it knows.
const PATIENCE: Duration = Duration::from_secs(2);

/// First and longest pause between two looks at the first request.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// How often it is asked whether the instance that has the first request lives.
const IS_IT_DEAD: Duration = Duration::from_secs(1);

/// A request of a client that tries again.
pub(super) struct Retry {
    /// It does so now.
    repeats: bool,
    head: request::Parts,
    caller: [u8; 32],
}

impl Interceptor {
    /// What a request says of its being tried again; `None`: nothing, or nobody asked.
    pub(super) fn retry(&self, route: &Route, head: &request::Parts) -> Option<Retry> {
        let count: u32 = head.headers.get(RETRY_COUNT)?.to_str().ok()?.parse().ok()?;
        let mut kept = http::Request::new(()).into_parts().0;
        (kept.method, kept.uri) = (head.method.clone(), head.uri.clone());
        let caller = caller(self.gateway.principal.secret(&head.headers).as_ref(), &head.headers);
        // A run that ends with its caller has ended when its caller tries again.
        let joins = route.repeats == Repeats::Join && grace(route).is_none();
        joins.then_some(Retry { repeats: count > 0, head: kept, caller })
    }

    /// Answers it: with the run of the first, where there is one, or with a run that is found in turn.
    pub(super) async fn retried(
        self: &Arc<Self>,
        route: &Arc<Route>,
        candidate: Candidate,
        mut request: Request<Body>,
        retry: Retry,
        mut fingerprint: Fingerprint,
        place: TaskTrackerToken,
    ) -> Result<Response<Body>, Problem> {
        let mine = Claimed::calling(candidate.identity.session().clone(), candidate.run.clone(), self.runs.instance());
        let index = Index { log: self.gateway.log.clone(), head: retry.head, caller: retry.caller };
        let (digest, body);
        if retry.repeats {
            let (again, whole) = buffer(request, self.body_limit).await.map_err(|_| client_left())?;
            let Some(whole) = whole else {
                return self.without_its_caller(route, candidate, again, None, place).await;
            };
            fingerprint.update(&whole);
            let taken = fingerprint.finish();
            let first = tokio::select! {
                first = index.first(&taken) => first,
                () = self.gateway.shutdown.closing() => {
                    return Err(Problem::new(Code::Draining, "this instance is shutting down; try again"));
                }
            };
            if let Some((session, run)) = first {
                return self.replay(&candidate, session, run).await;
            }
            let (told, known) = oneshot::channel();
            // Who receives it is there.
            let _ = told.send(taken);
            digest = known;
            request = again;
        } else {
            let (head, plain) = request.into_parts();
            (body, digest) = fingerprint.taken_of(plain);
            request = Request::from_parts(head, body);
        }
        let (fate, told) = Fate::told();
        let (answered, left) = oneshot::channel();
        tokio::spawn(index.keep(mine, digest, told, left));
        let answer = self.without_its_caller(route, candidate, request, Some(fate), place).await;
        // Its caller is there. Where it has left we do not come here.
        let _ = answered.send(());
        answer
    }
}

/// Where runs are found by what was asked.
struct Index {
    log: Arc<dyn Log>,
    head: request::Parts,
    caller: [u8; 32],
}

impl Index {
    fn key(&self, digest: &str) -> String {
        of_body(&self.head, &self.caller, digest)
    }

    /// The run of the request that was this one, once it has one; `None`: there is none to be given.
    async fn first(&self, digest: &str) -> Option<(SessionId, RunId)> {
        let key = self.key(digest);
        let (mut pause, mut asked, mut missing) = (PAUSES.0, Instant::now(), None);
        loop {
            let first = self.claimed(&key).await?;
            match first.state {
                State::Lost => return None,
                State::Run => {
                    if let Some(run) = timeout(PATIENCE, self.log.run(&first.session, &first.run)).await.ok()?.ok()? {
                        let fits = run.ended.is_none_or(|(_, end)| end == Terminal::Completed) && is_new(run.started);
                        return fits.then_some((first.session, first.run));
                    }
                    // It is to be opened soon, or was erased.
                    if missing.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return None;
                    }
                }
                State::Calling => {}
            }
            // It calls, or the log has not opened its run yet.
            if asked.elapsed() > IS_IT_DEAD {
                asked = Instant::now();
                if timeout(PATIENCE, self.log.is_dead(&first.instance)).await.ok()?.ok()? {
                    return None;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// What is known of the first request. Nothing is written: a claim that comes to be ours is given up at once.
    async fn claimed(&self, key: &str) -> Option<Claimed> {
        match timeout(PATIENCE, self.log.claim(key, NOBODY.into())).await.ok()?.ok()? {
            Claim::Taken(text) => Claimed::parse(&text),
            Claim::Won => {
                // Where this fails it is nobody's all the same.
                let _ = timeout(PATIENCE, self.log.amend(key, NOBODY.into(), None)).await;
                None
            }
        }
    }

    /// Keeps where the run of a request is while it is found: from when its body has been read, until its caller was
    /// `answered`.
    async fn keep(
        self,
        mine: Claimed,
        digest: oneshot::Receiver<String>,
        told: oneshot::Receiver<Outcome>,
        answered: oneshot::Receiver<()>,
    ) {
        let Ok(digest) = digest.await else { return };
        let key = self.key(&digest);
        let calling = Claimed { request: claimed::Request::Is(digest), ..mine };
        if self.put(&key, &calling).await.is_none() {
            return;
        }
        let next = match told.await {
            // Dropped without a word: its caller has left.
            Ok(Outcome::Run { session, .. }) if answered.await.is_err() => {
                Some(Claimed { session, state: State::Run, ..calling.clone() })
            }
            Ok(_) | Err(_) => None,
        };
        let text = next.as_ref().map(Claimed::to_text);
        let written = timeout(PATIENCE, self.log.amend(&key, calling.to_text(), text.clone())).await;
        if let (Ok(Ok(true)), Some(text)) = (written, text) {
            sleep(KEPT).await;
            // Another request that asked the same may have taken its place.
            let _ = timeout(PATIENCE, self.log.amend(&key, text, None)).await;
        }
    }

    /// Puts a request in the place of an earlier one that asked the same. `None`: the store does not answer in time.
    async fn put(&self, key: &str, mine: &Claimed) -> Option<()> {
        let writing = async {
            loop {
                match self.log.claim(key, mine.to_text()).await {
                    Ok(Claim::Won) => return Ok(()),
                    Ok(Claim::Taken(theirs)) if theirs == mine.to_text() => return Ok(()),
                    Ok(Claim::Taken(theirs)) => {
                        if self.log.amend(key, theirs, Some(mine.to_text())).await? {
                            return Ok(());
                        }
                    }
                    Err(unavailable) => return Err(unavailable),
                }
            }
        };
        timeout(PATIENCE, writing).await.ok()?.ok()
    }
}

/// Whose request it is: who says so by whatever header, known to us as a principal or not. A key or a cookie of any
/// name may be the credential, so that all headers count but those that say nothing of the caller.
fn caller(principal: Option<&[u8; 32]>, headers: &HeaderMap) -> [u8; 32] {
    let mut lines: Vec<(&[u8], &[u8])> = headers
        .iter()
        .filter(|(name, _)| !SAYS_NOTHING.contains(&name.as_str()) && !name.as_str().starts_with(SDK))
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
        .collect();
    // Of one name they stay in their order.
    lines.sort_by_key(|(name, _)| *name);
    let mut digest = Sha256::new();
    let principal = principal.map_or(&[][..], |principal| &principal[..]);
    for part in std::iter::once(principal).chain(lines.into_iter().flat_map(|(name, value)| [name, value])) {
        // The lengths keep (ab, c) and (a, bc) apart.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// What differs from one try to the next of one caller, or is a matter of its connection.
const SAYS_NOTHING: [&str; 18] = [
    "b3",
    "baggage",
    "cf-ray",
    "connection",
    "content-length",
    "date",
    "expect",
    "keep-alive",
    "request-id",
    "sentry-trace",
    "te",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-request-id",
];

/// What the SDKs say of themselves, their count of tries among it.
const SDK: &str = "x-stainless-";

/// The value of a claim that nobody holds.
const NOBODY: &str = "nobody";

/// Whether a run that began there is found still, by the clock of the store.
fn is_new(started: Offset) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = now.saturating_sub(Duration::from_millis(started.ms));
    age < KEPT
}
