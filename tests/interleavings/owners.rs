//! Owners of runs over a real store: whatever the upstream, those who cancel, other instances and the
//! store do to a run, it ends once, and its upstream is closed before anybody can read so.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use proptest::prelude::*;
use sidestream::dialect::Format;
use sidestream::log::*;
use sidestream::run::{
    Answer as UpstreamAnswer, CallerBody, Ending, RunSpec, Runs, RunsSettings, Started, Tagging, keep_lease,
};
use sidestream::session::*;
use sidestream::telemetry::Metrics;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::outage::{Away, Watched};
use crate::plan::{Dice, PATIENCE, play};
use crate::stores::{OpenStore, Store};
use crate::upstream::Upstream;

/// How long a run goes on without callers, where it needs one.
const GRACE: Duration = Duration::from_millis(10);

/// What happens in a session.
#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    runs: Vec<RunPlan>,
    outages: Vec<(u64, Away, u64)>,
    /// In the end the instance leaves, and interrupts what is left.
    leaves: bool,
}

/// A run.
#[derive(Clone, Debug)]
struct RunPlan {
    /// It is open before its upstream is asked, as a `send` is.
    sent: bool,
    /// There is somebody who reads the answer; else the caller has left at once.
    caller: bool,
    /// Its route ends a run whose callers have left.
    needs_a_caller: bool,
    steps: Vec<Step>,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Event,
    Burst(u64),
    /// An event in two pieces.
    Halves,
    Comment,
    Pause,
    Cancel,
    /// Another instance takes it for dead.
    TakeOver,
}

/// How the upstream ends, where it gets that far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Clean,
    /// In the middle of an event.
    Half,
    Reset,
    ErrorEvent,
    /// It never does: it is cancelled.
    Never,
    /// There is no answer (of a sent run).
    NoAnswer,
}

fn plans() -> impl Strategy<Value = Plan> {
    let step = prop_oneof![
        6 => Just(Step::Event),
        2 => (2..40u64).prop_map(Step::Burst),
        2 => Just(Step::Halves),
        1 => Just(Step::Comment),
        4 => Just(Step::Pause),
        1 => Just(Step::Cancel),
        1 => Just(Step::TakeOver),
    ];
    let end = prop_oneof![
        4 => Just(End::Clean), 1 => Just(End::Half), 2 => Just(End::Reset),
        1 => Just(End::ErrorEvent), 3 => Just(End::Never), 1 => Just(End::NoAnswer),
    ];
    let steps = prop::collection::vec(step, 0..20);
    let run = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.3), steps, end);
    let run = run.prop_map(|(sent, caller, needs_a_caller, steps, end)| RunPlan {
        sent,
        caller,
        needs_a_caller: needs_a_caller && !sent,
        steps,
        end,
    });
    let away = prop_oneof![Just(Away::Deaf), Just(Away::Dumb), Just(Away::Either)];
    let outages = prop::collection::vec((0..60u64, away, 5..150u64), 0..3);
    (any::<u64>(), prop::collection::vec(run, 1..6), outages, prop::bool::weighted(0.2))
        .prop_map(|(seed, runs, outages, leaves)| Plan { seed, runs, outages, leaves })
}

fn settings() -> RunsSettings {
    RunsSettings {
        dialects: Arc::default(),
        event_bytes: 1 << 10,
        pending_bytes: 1 << 20,
        run_duration: 4 * PATIENCE,
        caller_buffer: 1 << 20,
        eager_after: Duration::from_millis(30),
        outage_limit: 4 * PATIENCE,
    }
}

fn spec(session: &SessionId, run: &RunId, RunPlan { sent, needs_a_caller, .. }: &RunPlan) -> RunSpec {
    RunSpec {
        session: session.clone(),
        run: run.clone(),
        opening: vec![Record::run_state(run.clone(), RunState::Started, "{}")],
        status: (!sent).then_some(200),
        source: None,
        parent: None,
        key: None,
        route: "r".into(),
        on_busy: OnBusy::Parallel,
        values: Vec::new(),
        on_cancel: None,
        steer: None,
        subject: None,
        grace: needs_a_caller.then_some(GRACE),
        format: Format::default(),
        ending: Ending::default(),
        ids: Tagging::Off,
        stall: 4 * PATIENCE,
        stall_limit: 4 * PATIENCE,
    }
}

/// What a run has come to, as those around it saw it.
#[derive(Debug, Default)]
struct Outcome {
    /// Data of the events that the upstream has sent, all of each.
    said: Vec<String>,
    cancelled: bool,
    taken_over: bool,
    /// What the caller got, and whether it ended properly.
    caller: Option<(Vec<u8>, bool)>,
    /// All bytes that the upstream has sent.
    bytes: Vec<u8>,
}

struct Scene {
    log: Arc<Watched>,
    runs: Arc<Runs>,
    session: SessionId,
    seed: u64,
}

impl Scene {
    fn run(&self, i: usize) -> RunId {
        RunId::parse(&format!("{}.{i}", self.session)).unwrap()
    }

    async fn drive(&self, i: usize, plan: &RunPlan) -> Outcome {
        let run = self.run(i);
        let mut dice = Dice::new(self.seed, i);
        dice.pause().await;
        let closed = self.log.watch(&run);
        let (upstream, body) = Upstream::new(closed);
        let spec = spec(&self.session, &run, plan);
        let mut outcome = Outcome::default();
        let caller = if plan.sent {
            let no_answer = plan.end == End::NoAnswer;
            let call = move || {
                async move {
                    if no_answer {
                        drop(body);
                        return Err(sidestream::run::CallFailed { reason: "upstream_unreachable" });
                    }
                    Ok(UpstreamAnswer {
                        head: Started { status: 200, ..Started::default() },
                        format: Some(Format::default()),
                        ending: Ending::default(),
                        body,
                    })
                }
                .boxed()
            };
            let opening = self.runs.open(spec, Box::new(call)).expect("its id is new");
            let opened = timeout(PATIENCE, opening).await.expect("it never opened").expect("there is an answer");
            // It may have been opened by an attempt whose answer was lost, and be over by now.
            assert!(matches!(opened, Opened::Open { .. }), "{opened:?}");
            None
        } else {
            let body = self.runs.begin(spec, body).await.body;
            plan.caller.then(|| tokio::spawn(read(body)))
        };
        self.play(&run, plan, upstream, &mut outcome, &mut dice).await;
        if plan.sent && plan.end == End::NoAnswer {
            outcome.said.clear();
        }
        if let Some(caller) = caller {
            outcome.caller = Some(timeout(PATIENCE, caller).await.expect("the caller's body never ends").unwrap());
        }
        outcome
    }

    async fn play(&self, run: &RunId, plan: &RunPlan, upstream: Upstream, outcome: &mut Outcome, dice: &mut Dice) {
        for step in &plan.steps {
            match step {
                Step::Event => _ = event(&upstream, outcome, 1).await,
                Step::Burst(n) => _ = event(&upstream, outcome, *n).await,
                Step::Halves => {
                    let text = outcome.said.len().to_string();
                    if say(&upstream, outcome, "data: ").await {
                        dice.pause().await;
                        if say(&upstream, outcome, &format!("{text}\n\n")).await {
                            outcome.said.push(text);
                        }
                    }
                }
                Step::Comment => _ = say(&upstream, outcome, ": still here\n\n").await,
                Step::Pause => dice.pause().await,
                Step::Cancel => outcome.cancelled |= self.cancel(run).await,
                Step::TakeOver => outcome.taken_over |= self.take_over(run).await,
            }
        }
        match plan.end {
            End::Clean | End::NoAnswer => drop(upstream),
            End::Half => {
                say(&upstream, outcome, "data: half").await;
                drop(upstream);
            }
            End::Reset => upstream.resets().await,
            End::ErrorEvent => {
                let text = "no more".to_owned();
                if say(&upstream, outcome, &format!("event: error\ndata: {text}\n\n")).await {
                    outcome.said.push(text);
                }
                drop(upstream);
            }
            // Nobody is there, and nobody asks for anything.
            End::Never if plan.needs_a_caller && !plan.caller => {
                timeout(PATIENCE, upstream.is_closed()).await.expect("a run without a caller keeps its upstream");
            }
            // Who is fenced serves its caller to the end, so there must be one.
            End::Never if outcome.taken_over => drop(upstream),
            End::Never => {
                while !self.cancel(run).await && upstream.is_closed().now_or_never().is_none() {
                    // Its opening waits for the store.
                    dice.pause().await;
                }
                outcome.cancelled = true;
                timeout(PATIENCE, upstream.is_closed()).await.expect("a cancelled run keeps its upstream");
            }
        }
    }

    /// Asks until the answer is definite. `false`: it has not, and not by an attempt whose answer was lost.
    async fn cancel(&self, run: &RunId) -> bool {
        let target = CancelTarget::Run(run.clone());
        let request = CancelRequest { session: self.session.clone(), target, by: "{}".into() };
        let mut lost = false;
        loop {
            match self.log.cancel(request.clone()).await {
                Ok(Cancelled::Runs(runs)) => match runs[0].1 {
                    CancelOutcome::Requested { .. } => return true,
                    CancelOutcome::AlreadyEnded { .. } => return lost,
                    CancelOutcome::Withdrawn | CancelOutcome::NotFound => return false,
                },
                Ok(Cancelled::Remembered) => return false,
                Err(_) => (lost, ()) = (true, sleep(Duration::from_millis(2)).await),
            }
        }
    }

    /// The same for a takeover.
    async fn take_over(&self, run: &RunId) -> bool {
        let (session, run, nonce) = (self.session.clone(), run.clone(), "heir".into());
        let takeover = Takeover { session, run, nonce, details: "{}".into() };
        let mut lost = false;
        loop {
            match self.log.takeover(takeover.clone()).await {
                Ok(TakenOver::Ended { .. } | TakenOver::NeverStarted) => return true,
                Ok(TakenOver::AlreadyEnded { .. }) => return lost,
                Ok(TakenOver::Queued | TakenOver::Closed(_)) => return false,
                Err(_) => (lost, ()) = (true, sleep(Duration::from_millis(2)).await),
            }
        }
    }

    async fn entries(&self) -> Vec<Arc<Entry>> {
        let (mut entries, mut at) = (Vec::<Arc<Entry>>::new(), Offset::ZERO);
        while let Read::Page(page) = self.log.read(&self.session, at, PageLimits::default()).await.unwrap() {
            let Some(last) = page.entries.last() else { break };
            assert_eq!(page.entries[0].offset.seq, at.seq + 1, "a hole");
            at = last.offset;
            entries.extend(page.entries);
        }
        entries
    }

    fn judge(&self, i: usize, plan: &RunPlan, leaves: bool, outcome: &Outcome, entries: &[Arc<Entry>]) {
        let run = self.run(i);
        let own: Vec<_> = entries.iter().filter(|entry| entry.record.run.as_ref() == Some(&run)).collect();
        let what = |what: &str| format!("run {i}, {what}: {outcome:?}\n{own:#?}");
        let ends: Vec<Terminal> =
            own.iter().filter_map(|entry| entry.record.state().and_then(RunState::terminal)).collect();
        if own.is_empty() && outcome.taken_over {
            // Taken over before it was there.
            return;
        }
        assert_eq!(ends.len(), 1, "{}", what("terminals"));
        let end = ends[0];
        let last = own[own.len() - 1];
        assert!(last.record.state().and_then(RunState::terminal).is_some(), "{}", what("what follows its end"));
        let natural = match plan.end {
            End::NoAnswer if plan.sent => Some(Terminal::Failed),
            End::Clean | End::Half | End::NoAnswer => Some(Terminal::Completed),
            End::Reset | End::ErrorEvent => Some(Terminal::Failed),
            End::Never => None,
        };
        let possible = [
            natural,
            (outcome.cancelled || plan.needs_a_caller && !plan.caller).then_some(Terminal::Cancelled),
            (outcome.taken_over || leaves).then_some(Terminal::Interrupted),
        ];
        assert!(possible.contains(&Some(end)), "{}", what("it ended otherwise"));
        let stored: Vec<&str> =
            own.iter().filter(|entry| entry.record.kind == Kind::Event).map(|entry| &*entry.record.data).collect();
        let whole = matches!(end, Terminal::Completed | Terminal::Failed);
        if whole {
            assert_eq!(stored, outcome.said, "{}", what("its events"));
        } else {
            assert!(stored.len() <= outcome.said.len(), "{}", what("more than was said"));
            assert_eq!(stored, outcome.said[..stored.len()], "{}", what("its events"));
        }
        if let Some((bytes, clean)) = &outcome.caller {
            assert!(outcome.bytes.starts_with(bytes), "{}", what("the caller got something else"));
            if *clean {
                assert_eq!(bytes, &outcome.bytes, "{}", what("the caller's answer ended properly, and is not whole"));
                let over = plan.end == End::Reset || plan.end == End::Never && !outcome.taken_over;
                assert!(!over, "{}", what("the upstream never ended properly"));
            }
        }
    }
}

/// So many events, in one piece.
async fn event(upstream: &Upstream, outcome: &mut Outcome, count: u64) -> bool {
    let first = outcome.said.len();
    let texts: Vec<String> = (first..first + count as usize).map(|n| n.to_string()).collect();
    let piece: String = texts.iter().map(|text| format!("data: {text}\n\n")).collect();
    let said = say(upstream, outcome, &piece).await;
    if said {
        outcome.said.extend(texts);
    }
    said
}

async fn say(upstream: &Upstream, outcome: &mut Outcome, text: &str) -> bool {
    let said = timeout(PATIENCE, upstream.says(text.to_owned())).await.expect("the upstream is not read");
    if said {
        outcome.bytes.extend_from_slice(text.as_bytes());
    }
    said
}

async fn read(mut body: CallerBody) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match body.frame().await {
            Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(_)) => return (bytes, false),
            None => return (bytes, true),
        }
    }
}

async fn drive(store: &OpenStore, number: u64, plan: Plan) {
    let log = Watched::new(store.handle());
    let runs = Runs::new(log.clone(), settings(), Metrics::new());
    let (_hub, attended) = mpsc::channel(1);
    let lease = tokio::spawn(keep_lease(runs.clone(), attended));
    let session = SessionId::parse(&format!("s{number}")).unwrap();
    let scene = Scene { log: log.clone(), runs: runs.clone(), session, seed: plan.seed };
    let outages = async {
        for (after, away, lasting) in &plan.outages {
            sleep(Duration::from_millis(*after)).await;
            log.set(Some(*away));
            sleep(Duration::from_millis(*lasting)).await;
            log.set(None);
        }
    };
    let leaving = async {
        if plan.leaves {
            sleep(Duration::from_millis(plan.seed % 80)).await;
            runs.interrupt();
        }
    };
    let driving = join_all(plan.runs.iter().enumerate().map(|(i, plan)| scene.drive(i, plan)));
    let (outcomes, (), ()) = tokio::join!(driving, outages, leaving);
    timeout(PATIENCE, runs.idle()).await.expect("an owner never ends");
    let entries = scene.entries().await;
    for (i, (outcome, run)) in outcomes.iter().zip(&plan.runs).enumerate() {
        scene.judge(i, run, plan.leaves, outcome, &entries);
    }
    assert_eq!(*log.too_early.lock().unwrap(), [], "their terminals came before their upstreams were closed");
    lease.abort();
}

async fn whatever_happens_to_a_run_it_ends_once_and_its_upstream_is_closed_before(store: Store) {
    let store = store.open().await;
    play(plans(), async |number, plan| drive(&store, number, plan).await).await;
}

on_every_store!(whatever_happens_to_a_run_it_ends_once_and_its_upstream_is_closed_before);
