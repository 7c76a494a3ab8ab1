//! Runs whose store is slow, away, or has lost something.

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::storing::ends_run;
use super::*;
use crate::log::RunFlags;
use crate::log::scripted::{Scripted, now};
use crate::log::{Appended, Opened};
use crate::run::caller::{CallerBody, caller};
use crate::run::fixtures;
use crate::run::{Begun, RunsSettings};
use crate::server::Body;
use crate::session::{Kind, RunState};
use crate::telemetry::Metrics;

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store that keeps what it is given, under the test's control.
struct Store {
    log: Arc<Scripted>,
    appends: watch::Receiver<Vec<Append>>,
    frozen: watch::Sender<bool>,
}

impl Store {
    /// Opens every run, and stores what comes `after` that.
    fn new(after: Duration) -> Self {
        let log = Arc::new(Scripted::default());
        log.open_run.answers(|open| {
            let started = Offset::new(1, open.records.len() as u64);
            now(Opened::Open { started, flags: RunFlags::default() })
        });
        let (kept, appends) = watch::channel(Vec::new());
        let kept = Arc::new(kept);
        let frozen = watch::Sender::new(false);
        let thawed = frozen.subscribe();
        log.append.answers(move |append: Append| {
            let (kept, mut thawed) = (kept.clone(), thawed.clone());
            async move {
                sleep(after).await;
                thawed.wait_for(|frozen| !frozen).await.unwrap();
                let (first, last) = (append.first_n, append.first_n + append.records.len() as u64 - 1);
                let (first, last) = (Offset::new(1, first), Offset::new(1, last));
                kept.send_modify(|kept| kept.push(append));
                Ok(Appended::Stored { first, last, flags: RunFlags::default(), next: None })
            }
            .boxed()
        });
        Store { log, appends, frozen }
    }

    /// What was appended, once the last of it is a terminal.
    async fn whole(&mut self) -> Vec<Record> {
        let records = |appends: &Vec<Append>| -> Vec<Record> {
            appends.iter().flat_map(|append| append.records.clone()).collect()
        };
        let ended = |appends: &Vec<Append>| appends.last().is_some_and(ends_run);
        let appends = timeout(PATIENCE, self.appends.wait_for(ended)).await.expect("no terminal comes").unwrap();
        records(&appends)
    }
}

fn settings() -> RunsSettings {
    RunsSettings {
        dialects: Arc::default(),
        event_bytes: 1 << 10,
        pending_bytes: 1 << 20,
        run_duration: Duration::from_secs(3600),
        caller_buffer: 1 << 20,
        eager_after: Duration::from_millis(20),
        outage_limit: Duration::from_secs(3600),
    }
}

fn spec(ids: Tagging) -> RunSpec {
    let session = SessionId::parse("s").unwrap();
    RunSpec { session, status: Some(200), ids, ..fixtures::spec(&RunId::parse("r").unwrap(), PATIENCE) }
}

fn owner(runs: Arc<Runs>, caller: Caller) -> Owner {
    Owner::new(runs, spec(Tagging::Off), Found::default(), Some(caller), oneshot::channel().0)
}

type Upstream = mpsc::Sender<&'static str>;

/// An upstream that says what the test says, and ends when the test drops it.
fn upstream() -> (Upstream, Body) {
    let (sender, receiver) = mpsc::channel::<&str>(8);
    let frames = futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let frames = frames.map(|text| Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes()))));
    (sender, StreamBody::new(frames).boxed_unsync())
}

async fn begun(store: &Store, settings: RunsSettings, ids: Tagging) -> (Upstream, Begun) {
    let (sender, body) = upstream();
    let runs = Runs::new(store.log.clone(), settings, Metrics::new());
    (sender, runs.begin(spec(ids), body).await)
}

async fn arrives(body: &mut CallerBody) -> Option<Result<Bytes, String>> {
    let frame = timeout(PATIENCE, body.frame()).await.expect("the caller hears nothing");
    frame.map(|frame| frame.map(|frame| frame.into_data().unwrap()).map_err(|error| error.to_string()))
}

#[tokio::test]
async fn a_run_that_is_over_in_every_way_but_for_the_store_waits_without_spinning() {
    let log = Arc::new(Scripted::default());
    let settings = RunsSettings { run_duration: Duration::ZERO, ..settings() };
    let (caller, _body) = caller(1);
    let mut owner = owner(Runs::new(log, settings, Metrics::new()), caller);
    (owner.ended, owner.gave_up, owner.caller) = (true, true, None);
    assert_eq!(owner.next_alarm(true, false, false), None);
}

/// The symptom: runs in the middle of large events filled the memory of all, and none was read on.
#[tokio::test]
async fn runs_that_hold_unfinished_events_do_not_wait_for_each_others_memory() {
    let settings = RunsSettings { pending_bytes: 1, ..settings() };
    let runs = Runs::new(Arc::new(Scripted::default()), settings, Metrics::new());
    let mut owners = [(); 2].map(|()| {
        let mut owner = owner(runs.clone(), caller(1).0);
        assert!(owner.chunk(Some(Ok(http_body::Frame::data(Bytes::from_static(b"data: half"))))).is_none());
        owner.account();
        owner
    });
    assert!(owners.iter().all(Owner::may_read));
    // What waits for the store is another matter.
    assert!(owners[0].chunk(Some(Ok(http_body::Frame::data(Bytes::from_static(b" and whole\n\n"))))).is_none());
    assert!(!owners[0].may_read());
}

#[tokio::test]
async fn a_slow_store_is_told_once_that_it_was_slow_and_not_for_ever() {
    let store = Store::new(Duration::from_millis(60));
    let (upstream, mut begun) = begun(&store, settings(), Tagging::Off).await;
    upstream.send("data: a\n\n").await.unwrap();
    assert_eq!(arrives(&mut begun.body).await.unwrap().unwrap(), "data: a\n\n");
    sleep(Duration::from_secs(1)).await;
    let appends = store.appends.borrow();
    let kinds: Vec<_> = appends.iter().flat_map(|append| &append.records).map(|record| record.kind).collect();
    assert_eq!(kinds, [Kind::Event, Kind::Status]);
}

#[tokio::test]
async fn a_caller_whose_run_ends_as_the_store_goes_away_is_not_kept_waiting_for_the_end() {
    let store = Store::new(Duration::ZERO);
    let (upstream, mut begun) = begun(&store, settings(), Tagging::Off).await;
    store.frozen.send_replace(true);
    drop(upstream);
    assert_eq!(arrives(&mut begun.body).await, None);
}

#[tokio::test]
async fn what_reached_the_caller_ahead_of_the_store_is_said_before_the_terminal() {
    let mut store = Store::new(Duration::ZERO);
    let (upstream, mut begun) = begun(&store, settings(), Tagging::Off).await;
    store.frozen.send_replace(true);
    upstream.send("data: a\n\n").await.unwrap();
    assert_eq!(arrives(&mut begun.body).await.unwrap().unwrap(), "data: a\n\n");
    drop(upstream);
    assert_eq!(arrives(&mut begun.body).await, None);
    store.frozen.send_replace(false);
    let kinds: Vec<_> = store.whole().await.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [Kind::Event, Kind::Status, Kind::Run]);
}

#[tokio::test]
async fn a_run_that_ends_before_its_caller_is_served_ahead_of_the_store_says_so_before_the_terminal() {
    let mut store = Store::new(Duration::ZERO);
    let (upstream, mut begun) = begun(&store, settings(), Tagging::Off).await;
    store.frozen.send_replace(true);
    // Two pieces: the terminal must not be in the append that is under way.
    upstream.send("data: a\n\n").await.unwrap();
    while upstream.capacity() < 8 {
        tokio::task::yield_now().await;
    }
    drop(upstream);
    assert_eq!(arrives(&mut begun.body).await.unwrap().unwrap(), "data: a\n\n");
    assert_eq!(arrives(&mut begun.body).await, None);
    store.frozen.send_replace(false);
    let kinds: Vec<_> = store.whole().await.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [Kind::Event, Kind::Status, Kind::Run]);
}

#[tokio::test]
async fn a_caller_with_our_ids_is_cut_off_in_a_long_outage_and_gets_nothing_that_is_not_stored() {
    let mut store = Store::new(Duration::ZERO);
    let settings = RunsSettings { outage_limit: Duration::from_millis(200), ..settings() };
    let (upstream, mut begun) = begun(&store, settings, Tagging::On).await;
    upstream.send("data: a\n\n").await.unwrap();
    assert_eq!(arrives(&mut begun.body).await.unwrap().unwrap(), "data: a\nid: ss1.s.r.1-2\n\n");
    store.frozen.send_replace(true);
    upstream.send("data: b\n\n").await.unwrap();
    upstream.send("data: c\n\n").await.unwrap();
    assert!(arrives(&mut begun.body).await.unwrap().is_err());
    store.frozen.send_replace(false);
    let data: Vec<_> = store.whole().await.iter().map(|record| record.kind).collect();
    assert_eq!(data, [Kind::Event, Kind::Event, Kind::Run]);
}

#[tokio::test]
async fn a_caller_with_our_ids_whose_run_ends_in_an_outage_is_cut_off_as_well() {
    let store = Store::new(Duration::ZERO);
    let settings = RunsSettings { outage_limit: Duration::from_millis(200), ..settings() };
    let (upstream, mut begun) = begun(&store, settings, Tagging::On).await;
    store.frozen.send_replace(true);
    drop(upstream);
    assert!(arrives(&mut begun.body).await.unwrap().is_err());
}

#[tokio::test]
async fn a_run_that_is_given_up_says_what_its_caller_had_ahead_of_the_store() {
    let mut store = Store::new(Duration::ZERO);
    let settings = RunsSettings { outage_limit: Duration::from_millis(200), ..settings() };
    let (upstream, mut begun) = begun(&store, settings, Tagging::Off).await;
    store.frozen.send_replace(true);
    for text in ["data: a\n\n", "data: b\n\n"] {
        upstream.send(text).await.unwrap();
        assert_eq!(arrives(&mut begun.body).await.unwrap().unwrap(), text);
    }
    sleep(Duration::from_millis(400)).await;
    store.frozen.send_replace(false);
    let records = store.whole().await;
    let kinds: Vec<_> = records.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [Kind::Event, Kind::Status, Kind::Run]);
    assert_eq!(records[1].data, r#"{"code":"eager","first_n":2,"last_n":2}"#);
    assert_eq!(records[2].state(), Some(RunState::Ended(Terminal::Failed)));
}

/// The symptom: the caller stalled until outage_limit once more had come than may wait for the store.
#[tokio::test]
async fn a_caller_streams_on_at_once_when_no_more_may_wait_for_the_store() {
    let mut store = Store::new(Duration::ZERO);
    let settings = RunsSettings { pending_bytes: 1, ..settings() };
    let (upstream, mut begun) = begun(&store, settings, Tagging::Off).await;
    store.frozen.send_replace(true);
    for text in ["data: a\n\n", "data: b\n\n", "data: c\n\n"] {
        upstream.send(text).await.unwrap();
        assert_eq!(arrives(&mut begun.body).await.unwrap().unwrap(), text);
    }
    drop(upstream);
    assert_eq!(arrives(&mut begun.body).await, None);
    store.frozen.send_replace(false);
    let records = store.whole().await;
    let kinds: Vec<_> = records.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [Kind::Event, Kind::Status, Kind::Run]);
    assert_eq!(records[2].state(), Some(RunState::Ended(Terminal::Failed)));
    assert!(records[2].data.contains("store_unavailable"), "{}", records[2].data);
}

#[tokio::test]
async fn a_run_without_a_caller_waits_for_the_store_and_is_not_said_to_be_stalled() {
    let mut store = Store::new(Duration::ZERO);
    let settings = RunsSettings { pending_bytes: 1, ..settings() };
    let (sender, body) = upstream();
    let runs = Runs::new(store.log.clone(), settings, Metrics::new());
    let spec = RunSpec { stall: Duration::from_millis(300), ..spec(Tagging::Off) };
    runs.write(spec, body).unwrap().await.unwrap();
    store.frozen.send_replace(true);
    sender.send("data: a\n\n").await.unwrap();
    // Only one of these is read: the others wait in the upstream's connection, longer than a silence may be.
    for _ in 0..8 {
        sender.send("data: b\n\n").await.unwrap();
    }
    assert!(timeout(Duration::from_millis(600), sender.reserve()).await.is_err(), "it is read on");
    store.frozen.send_replace(false);
    drop(sender);
    let records = store.whole().await;
    let kinds: Vec<_> = records.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [[Kind::Event; 9].as_slice(), &[Kind::Run]].concat());
    assert_eq!(records[9].state(), Some(RunState::Ended(Terminal::Completed)));
}

#[tokio::test]
async fn a_run_without_a_caller_has_failed_when_the_store_was_away_for_too_long() {
    let mut store = Store::new(Duration::ZERO);
    let settings = RunsSettings { outage_limit: Duration::from_millis(200), ..settings() };
    let (sender, body) = upstream();
    let runs = Runs::new(store.log.clone(), settings, Metrics::new());
    runs.write(spec(Tagging::Off), body).unwrap().await.unwrap();
    store.frozen.send_replace(true);
    sender.send("data: a\n\n").await.unwrap();
    timeout(PATIENCE, sender.closed()).await.expect("the upstream is not let go of");
    store.frozen.send_replace(false);
    let records = store.whole().await;
    assert_eq!(records.last().unwrap().state(), Some(RunState::Ended(Terminal::Failed)));
    assert!(records.last().unwrap().data.contains("store_unavailable"));
}
