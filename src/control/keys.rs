//! The keys of `send`s: which run a key stands for, whoever sends it again.
//!
//! The log has for a key `<session> <run> <digest>`, claimed before the run is opened, so that of all who
//! send with it one run is everybody's; and `<session> <run> <digest> begun` once the run was there or
//! waited, so that it is never begun again after it has left the log. A key is given free only where its
//! run can never begin any more.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::control::root::{ANSWER_WITHIN, ASK_AGAIN};
use crate::control::{Client, Control};
use crate::log::{CancelOutcome, CancelRequest, CancelTarget, Cancelled, Claim, Log, Opened, Unavailable};
use crate::server::Problem;
use crate::session::{RunId, SessionId};
use crate::wire::{Code, Outcome, Sent};

/// A key that stands for a run.
#[derive(Clone, Debug)]
pub(super) struct Key {
    name: String,
    pub(super) session: SessionId,
    pub(super) run: RunId,
    digest: String,
    /// An equal request was first.
    pub(super) is_taken: bool,
    /// What else its value says.
    mark: String,
}

/// The run was there, or waited.
const BEGUN: &str = "begun";

impl Control {
    /// Claims the key called `name` for a run, or finds whose it is. Two with an equal value, to which
    /// `mark` belongs, are both first.
    ///
    /// # Errors
    /// Another request has it; the store is away.
    pub(super) async fn claim(
        &self,
        name: String,
        session: &SessionId,
        run: &RunId,
        digest: String,
        mark: &str,
    ) -> Result<Key, Problem> {
        let (session, run) = (session.clone(), run.clone());
        let mine = Key { name, session, run, digest, is_taken: false, mark: mark.to_owned() };
        let deadline = Instant::now() + ANSWER_WITHIN;
        let claim = loop {
            match self.log.claim(&mine.name, mine.value()).await {
                Ok(claim) => break claim,
                Err(_) if Instant::now() + ASK_AGAIN < deadline => sleep(ASK_AGAIN).await,
                Err(error) => return Err(Problem::store_unavailable(error)),
            }
        };
        // An answer that was lost on its way looks as if somebody else had been first.
        let Claim::Taken(theirs) = claim else { return Ok(mine) };
        match mine.read(&theirs) {
            Some(key) if key.digest == mine.digest => Ok(key),
            Some(_) => Err(Problem::new(Code::Conflict, "this key was used for another request; take a new one")),
            None => Err(Problem::new(Code::Internal, "the key is held by something that is not a run")),
        }
    }

    /// The run that a key has begun or queued, where the log has it.
    pub(super) async fn find(&self, session: &SessionId, run: &RunId) -> Result<Option<Outcome>, Problem> {
        let sent = |offset, outcome| Outcome::Sent {
            session: session.clone(),
            run: run.clone(),
            offset,
            outcome,
            interrupted: Vec::new(),
        };
        let joined = || async {
            let info = self.log.run(session, run).await.map_err(Problem::store_unavailable)?;
            Ok::<_, Problem>(info.map(|info| sent(Some(info.started), Sent::Joined)))
        };
        if let Some(joined) = joined().await? {
            return Ok(Some(joined));
        }
        let waiting = self.log.queue(session).await.map_err(Problem::store_unavailable)?;
        match waiting.iter().find(|queued| queued.run == *run) {
            Some(queued) => Ok(Some(sent(None, Sent::Queued(queued.position)))),
            // It may have left the queue since it was looked for among the runs.
            None => joined().await,
        }
    }

    /// What is said of a key whose run has left the log: it was withdrawn, or is no longer kept.
    pub(super) async fn gone(&self, client: &Client, key: &Key) -> Result<Outcome, Problem> {
        let (session, run) = (key.session.clone(), key.run.clone());
        if self.is_withdrawn(&session, &run, client).await? {
            return Ok(Outcome::Sent { session, run, offset: None, outcome: Sent::Cancelled, interrupted: Vec::new() });
        }
        let detail = "the run that this key has begun is no longer kept; use a new key to ask again";
        Err(Problem::new(Code::Gone, detail).with("session", session.as_str()).with("run", run.as_str()))
    }

    /// Whether a run that is not there, and can never begin, was withdrawn.
    pub(super) async fn is_withdrawn(
        &self,
        session: &SessionId,
        run: &RunId,
        client: &Client,
    ) -> Result<bool, Problem> {
        let request =
            CancelRequest { session: session.clone(), target: CancelTarget::Run(run.clone()), by: client.by() };
        let cancelled = self.log.cancel(request).await.map_err(Problem::store_unavailable)?;
        Ok(matches!(cancelled, Cancelled::Runs(runs) if matches!(runs[..], [(_, CancelOutcome::Withdrawn)])))
    }
}

impl Key {
    /// Gives the key free: its run never begins.
    ///
    /// # Errors
    /// The store is away; nothing is known then.
    pub(super) async fn free(&self, log: &dyn Log) -> Result<(), Unavailable> {
        log.amend(&self.name, self.value(), None).await.map(drop)
    }

    /// Notes that the run is there, or waits. Whoever asked does not wait for that: it matters once
    /// the run has left the log.
    pub(super) fn begins(&self, log: &Arc<dyn Log>) {
        if self.has_begun() {
            return;
        }
        let (log, key) = (log.clone(), self.clone());
        tokio::spawn(async move {
            let begun = Key { mark: BEGUN.to_owned(), ..key.clone() }.value();
            // A store that is away leaves it at that: the run itself is what is looked for first.
            let _ = log.amend(&key.name, key.value(), Some(begun)).await;
        });
    }

    /// Whether its run was there, or waited.
    pub(super) fn has_begun(&self) -> bool {
        self.mark == BEGUN
    }

    fn value(&self) -> ByteString {
        let Key { session, run, digest, mark, .. } = self;
        format!("{session} {run} {digest} {mark}").trim_end().into()
    }

    /// What the log has for the same name.
    fn read(&self, value: &str) -> Option<Key> {
        let mut words = value.split(' ');
        let (session, run) = (SessionId::from_store(words.next()?).ok()?, RunId::from_store(words.next()?).ok()?);
        let (digest, mark) = (words.next()?.to_owned(), words.next().unwrap_or_default().to_owned());
        Some(Key { name: self.name.clone(), session, run, digest, is_taken: true, mark })
    }
}

/// Nobody waits any more for a run that the store has not opened yet: its client has been told that nothing
/// was begun, and its owner ends it before the upstream hears of it. What the store puts into the queue
/// after all is withdrawn (`withdraw`), unless it has a key, by which the repeat finds it there; the key of
/// a run that was opened for nothing is free again.
pub(super) async fn never_mind(
    log: Arc<dyn Log>,
    opening: oneshot::Receiver<Opened>,
    withdraw: CancelRequest,
    key: Option<Key>,
) {
    match (opening.await, key) {
        (Ok(Opened::Queued { .. }), None) => {
            while log.cancel(withdraw.clone()).await.is_err() {
                sleep(ASK_AGAIN).await;
            }
        }
        (Ok(Opened::Open { .. }), Some(key)) => {
            while key.free(&*log).await.is_err() {
                sleep(ASK_AGAIN).await;
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::hub::{Hub, HubLimits};
    use crate::log::embedded::{EmbeddedLog, EmbeddedOptions, Location};
    use crate::log::{Append, Fence, OpenRun, RunFlags, Takeover, Writer};
    use crate::proxy::Passthrough;
    use crate::run::{Runs, RunsSettings};
    use crate::server::Peer;
    use crate::session::{InstanceId, Offset, Record, RunState, Terminal};
    use crate::telemetry::Metrics;
    use crate::wire::SendRun;

    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

    fn control(log: Arc<dyn Log>) -> Arc<Control> {
        let settings = RunsSettings {
            dialects: Arc::default(),
            event_bytes: 1 << 10,
            pending_bytes: 1 << 20,
            run_duration: PATIENCE,
            caller_buffer: 1,
            eager_after: PATIENCE,
            outage_limit: PATIENCE,
        };
        let (metrics, config) = (Metrics::new(), Config::new(http::Uri::from_static("http://127.0.0.1:9")));
        let runs = Runs::new(log.clone(), settings, metrics.clone());
        let tasks = tokio_util::task::TaskTracker::new();
        let (hub, _) = Hub::new(log.clone(), HubLimits { ring_bytes: 1 << 10 }, metrics.clone(), tasks);
        let proxy = Arc::new(Passthrough::new(&config.upstream, Vec::new(), Vec::new()).unwrap());
        Control::new(log, hub, runs, proxy, &config, metrics)
    }

    fn client() -> Client {
        let peer = Peer { addr: ([127, 0, 0, 1], 7).into() };
        Client::new("phone".into(), peer, &http::HeaderMap::new(), &[], Some("/chat".into()))
    }

    fn session() -> SessionId {
        SessionId::from_random(1)
    }

    fn send() -> SendRun {
        SendRun::parse(r#"{"body":1,"key":"k"}"#, session()).unwrap()
    }

    /// The key of `send` as somebody had claimed it who was to begin `run`.
    async fn claimed_by_another(control: &Control, run: &RunId) -> Key {
        let sendable = crate::control::request::Sendable::new(&send(), &client(), &control.send).unwrap();
        let name = format!("send\nsession {}\nk", session());
        control.claim(name, &session(), run, sendable.digest(), "").await.unwrap()
    }

    fn outcome(sent: Result<Outcome, Problem>) -> (RunId, Sent) {
        match sent.unwrap() {
            Outcome::Sent { run, outcome, .. } => (run, outcome),
            other => panic!("not sent: {other:?}"),
        }
    }

    fn open(run: &RunId) -> OpenRun {
        let started = Record::run_state(run.clone(), RunState::Started, "{}");
        OpenRun::new(session(), run.clone(), InstanceId::from_random(1), "n".into(), vec![started])
    }

    /// The symptom: whoever claimed the key died before it had opened the run; every repeat was told that
    /// it had been cancelled, and nobody ever answered.
    #[tokio::test]
    async fn a_key_whose_claimant_died_before_it_opened_the_run_begins_another() {
        let log: Arc<dyn Log> = EmbeddedLog::open(EmbeddedOptions::new(Location::Memory)).await.unwrap();
        let (control, lost) = (control(log.clone()), RunId::from_random(7));
        claimed_by_another(&control, &lost).await;
        let takeover = Takeover { session: session(), run: lost.clone(), nonce: "t".into(), details: "{}".into() };
        log.takeover(takeover).await.unwrap();
        let (run, begun) = outcome(control.send(&client(), send()).await);
        assert!(run != lost && begun == Sent::Started, "{run} {begun:?}");
        assert_eq!(outcome(control.send(&client(), send()).await), (run, Sent::Joined));
    }

    #[tokio::test]
    async fn a_key_whose_run_has_left_the_log_begins_no_second_one() {
        let mut options = EmbeddedOptions::new(Location::Memory);
        options.retention.max_entries = 4;
        let log: Arc<dyn Log> = EmbeddedLog::open(options).await.unwrap();
        let (control, first) = (control(log.clone()), RunId::from_random(7));
        let key = claimed_by_another(&control, &first).await;
        log.open_run(open(&first)).await.unwrap();
        key.begins(&log);
        let terminal = Record::run_state(first.clone(), RunState::Ended(Terminal::Completed), "{}");
        let writer = Writer::Run { run: first.clone(), fence: Fence { counter: 1, nonce: "n".into() } };
        let append =
            Append { session: session(), writer, first_n: 2, records: vec![terminal], seen: None, skips: false };
        log.append(append).await.unwrap();
        assert_eq!(outcome(control.send(&client(), send()).await), (first.clone(), Sent::Joined));
        let filling = async {
            for n in 100.. {
                log.open_run(open(&RunId::from_random(n))).await.unwrap();
                if log.run(&session(), &first).await.unwrap().is_none() {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, filling).await.expect("the log forgets the run");
        let again = control.send(&client(), send()).await.unwrap_err();
        assert_eq!(again.code, Code::Gone, "{again:?}");
    }

    /// Its client may have sent it again without a key.
    #[tokio::test]
    async fn what_the_store_queues_after_its_client_was_told_that_it_is_away_is_withdrawn() {
        let log: Arc<dyn Log> = EmbeddedLog::open(EmbeddedOptions::new(Location::Memory)).await.unwrap();
        log.open_run(open(&RunId::from_random(1))).await.unwrap();
        let late = RunId::from_random(2);
        let limits = crate::log::QueueLimits { depth: 9, bytes: 99 };
        let waiting = crate::log::Waiting { item: bytes::Bytes::new(), client: None, limits };
        let on_busy = crate::log::OnBusy::Queue(waiting);
        let opened = log.open_run(OpenRun { on_busy, ..open(&late) }).await.unwrap();
        assert_eq!(opened, Opened::Queued { position: 1 });
        let (answer, opening) = oneshot::channel();
        answer.send(opened).unwrap();
        let withdraw = CancelRequest { session: session(), target: CancelTarget::Run(late), by: "{}".into() };
        never_mind(log.clone(), opening, withdraw, None).await;
        assert_eq!(log.queue(&session()).await.unwrap(), []);
    }

    #[tokio::test]
    async fn the_key_of_a_run_that_was_opened_for_nobody_is_free_again() {
        let log: Arc<dyn Log> = EmbeddedLog::open(EmbeddedOptions::new(Location::Memory)).await.unwrap();
        let (control, first) = (control(log.clone()), RunId::from_random(7));
        let key = claimed_by_another(&control, &first).await;
        let (answer, opening) = oneshot::channel();
        answer.send(Opened::Open { started: Offset::new(1, 1), flags: RunFlags::default() }).unwrap();
        let withdraw = CancelRequest { session: session(), target: CancelTarget::Run(first.clone()), by: "{}".into() };
        never_mind(log, opening, withdraw, Some(key)).await;
        let (run, begun) = outcome(control.send(&client(), send()).await);
        assert!(run != first && begun == Sent::Started, "{run} {begun:?}");
    }
}
