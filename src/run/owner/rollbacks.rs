//! Owners at a store that goes back in time: what it has lost is in it again, and nobody notices but its
//! readers, whom the store tells.

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::storing::ends_run;
use super::*;
use crate::log::scripted::{Scripted, now};
use crate::log::{Appended, Closed, Gap, GapReason, Page, Read, RunFlags, RunInfo, Starts, doubt};
use crate::run::fixtures;
use crate::run::remembered::remember;
use crate::run::{CallerBody, RunsSettings};
use crate::session::{Entry, Kind, RunState};
use crate::telemetry::Metrics;

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store with one session, which goes back when the test says so.
struct Store {
    log: Arc<Scripted>,
    entries: Arc<watch::Sender<Vec<Entry>>>,
    /// It counts milliseconds, one for every append and every time it goes back.
    clock: Arc<Mutex<u64>>,
}

impl Store {
    fn new() -> Self {
        let log = Arc::new(Scripted::default());
        let entries: Arc<watch::Sender<Vec<Entry>>> = Arc::default();
        let clock = Arc::new(Mutex::new(0));
        let store = Store { log, entries, clock };
        let (entries, clock) = (store.entries.clone(), store.clock.clone());
        store.log.open_run.answers(move |open| {
            let mut started = None;
            entries.send_if_modified(|entries| {
                started = entries.iter().find(|entry| of(entry, &open.run)).map(|entry| entry.offset);
                if started.is_none() {
                    started = Some(write(entries, &clock, &open.records));
                    return true;
                }
                false
            });
            now(Opened::Open { started: started.unwrap(), flags: RunFlags::default() })
        });
        let (entries, clock) = (store.entries.clone(), store.clock.clone());
        store.log.append.answers(move |append| {
            let mut answer = None;
            entries.send_if_modified(|entries| {
                let before = entries.len();
                answer = Some(appended(entries, &clock, append));
                entries.len() > before
            });
            now(answer.unwrap())
        });
        let entries = store.entries.clone();
        store.log.run.answers(move |run| now(info(&entries.borrow(), run)));
        let entries = store.entries.clone();
        store.log.read.answers(move |after| {
            let entries = entries.borrow();
            let tail = entries.last().map_or(Offset::ZERO, |entry| entry.offset);
            now(match entries.iter().any(|entry| entry.offset == after) {
                true => Read::Page(Page { entries: Vec::new(), tail }),
                false => Read::Gap(Gap { from: after, to: tail, lost: 1, reason: GapReason::RolledBack }),
            })
        });
        store
    }

    /// Loses all but the first `len` entries.
    fn go_back_to(&self, len: usize) {
        *self.clock.lock().unwrap() += 1;
        self.entries.send_modify(|entries| entries.truncate(len));
    }

    async fn until(&self, what: &str, holds: impl FnMut(&Vec<Entry>) -> bool) -> Vec<Entry> {
        let mut entries = self.entries.subscribe();
        let holding = timeout(PATIENCE, entries.wait_for(holds)).await;
        holding.unwrap_or_else(|_| panic!("waited for {what}: {:?}", said(&self.entries.borrow()))).unwrap().clone()
    }

    /// What it has, once it has a terminal of each of so many runs.
    async fn ended(&self, runs: usize) -> Vec<Entry> {
        self.until("the terminals", |entries| entries.iter().filter(|entry| ends(entry)).count() == runs).await
    }
}

fn of(entry: &Entry, run: &RunId) -> bool {
    entry.record.run.as_ref() == Some(run)
}

fn ends(entry: &Entry) -> bool {
    entry.record.state().and_then(RunState::terminal).is_some()
}

/// The last number of the range that the entry names as lost.
fn stands_for(record: &Record) -> Option<u64> {
    let data: serde_json::Value = serde_json::from_str(&record.data).ok()?;
    data["to_n"].as_u64().filter(|_| data["code"] == "lost")
}

fn write(entries: &mut Vec<Entry>, clock: &Mutex<u64>, records: &[Record]) -> Offset {
    let mut clock = clock.lock().unwrap();
    *clock += 1;
    for record in records {
        let offset = Offset::new(*clock, entries.len() as u64 + 1);
        entries.push(Entry { offset, record: record.clone() });
    }
    entries.last().unwrap().offset
}

fn appended(entries: &mut Vec<Entry>, clock: &Mutex<u64>, append: Append) -> Appended {
    let Writer::Run { run, .. } = &append.writer else { panic!("{append:?}") };
    let own: Vec<&Entry> = entries.iter().filter(|entry| of(entry, run)).collect();
    let tail = entries.last().map_or(Offset::ZERO, |entry| entry.offset);
    let flags = RunFlags::default;
    let terminal = own.iter().find(|entry| ends(entry)).map(|entry| entry.offset);
    let n = own.iter().filter(|entry| !ends(entry)).fold(0, |n, entry| stands_for(&entry.record).unwrap_or(n + 1));
    let last_n = append.first_n + append.records.len() as u64 - 1;
    if last_n <= n {
        return Appended::Duplicate { last: own.last().unwrap().offset, flags: flags() };
    }
    if let Some(offset) = terminal {
        return Appended::Closed(Closed::Terminal { offset, state: Terminal::Completed });
    }
    if append.seen.is_some_and(|seen| entries.iter().all(|entry| entry.offset != seen)) {
        return Appended::RolledBack { tail, n };
    }
    if n == 0 {
        return Appended::Closed(Closed::Unknown);
    }
    if append.first_n > n + 1 && !append.skips {
        return Appended::Gap { expected: n + 1 };
    }
    assert!(append.first_n > n, "a part is stored already: {append:?}");
    let last = write(entries, clock, &append.records);
    Appended::Stored { first: last, last, flags: flags(), next: None }
}

fn info(entries: &[Entry], run: RunId) -> Option<RunInfo> {
    let mut own = entries.iter().filter(|entry| of(entry, &run));
    let started = own.next()?.offset;
    let last = own.next_back().map_or(started, |entry| entry.offset);
    let ended = entries.iter().find(|entry| of(entry, &run) && ends(entry));
    let ended = ended.map(|entry| (entry.offset, Terminal::Completed));
    let owner = InstanceId::from_random(1);
    Some(RunInfo { run, owner, started, last, ended, parent: None, cancel: None })
}

/// What the entries say, in short.
fn said(entries: &[Entry]) -> Vec<String> {
    let short = |record: &Record| match record.kind {
        Kind::Run => record.event.as_deref().unwrap_or_default().to_owned(),
        _ => record.data.to_string(),
    };
    entries.iter().map(|entry| short(&entry.record)).collect()
}

fn runs_at(store: &Store) -> Arc<Runs> {
    let settings = RunsSettings {
        event_bytes: 1 << 10,
        pending_bytes: 1 << 20,
        caller_buffer: 1 << 20,
        ..fixtures::settings(Duration::from_secs(3600))
    };
    let runs = Runs::new(store.log.clone(), settings, Metrics::new());
    let watched = runs.clone();
    tokio::spawn(async move { tokio::join!(doubt(&*watched.log, &watched.doubts), remember(&watched)) });
    runs
}

/// A run with an upstream that says what the test says, and a direct caller.
struct Driven {
    upstream: mpsc::Sender<String>,
    caller: CallerBody,
}

impl Driven {
    async fn begin(runs: &Arc<Runs>, run: &str) -> Self {
        let (upstream, receiver) = mpsc::channel::<String>(8);
        let frames =
            futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        let body = StreamBody::new(frames.map(|text| Ok(http_body::Frame::data(Bytes::from(text))))).boxed_unsync();
        let session = SessionId::parse("s").unwrap();
        let spec = RunSpec { session, status: Some(200), ..fixtures::spec(&RunId::parse(run).unwrap(), PATIENCE) };
        let begun = runs.begin(spec, body).await;
        assert!(begun.started.is_some());
        Driven { upstream, caller: begun.body }
    }

    async fn says(&mut self, data: &str) {
        let event = format!("data: {data}\n\n");
        self.upstream.send(event.clone()).await.unwrap();
        let frame = timeout(PATIENCE, self.caller.frame()).await.expect("the caller hears nothing");
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), event);
    }

    async fn ends(self) {
        drop(self.upstream);
        let rest = timeout(PATIENCE, self.caller.collect()).await.expect("the caller hears no end");
        assert_eq!(rest.unwrap().to_bytes(), "");
    }
}

#[tokio::test]
async fn what_the_store_has_lost_of_a_run_is_in_it_again_and_the_run_goes_on() {
    let store = Store::new();
    let mut run = Driven::begin(&runs_at(&store), "r").await;
    for data in ["a", "b", "c"] {
        run.says(data).await;
    }
    let before = store.entries.borrow()[2].offset;
    store.go_back_to(2);
    run.says("d").await;
    run.ends().await;
    let all = store.ended(1).await;
    assert_eq!(said(&all), ["started", "a", "b", "c", "d", "completed"]);
    assert_ne!(all[2].offset, before, "an offset is never given to two entries");
}

#[tokio::test]
async fn a_run_is_opened_again_where_its_opening_is_lost() {
    let store = Store::new();
    let mut run = Driven::begin(&runs_at(&store), "r").await;
    run.says("a").await;
    store.go_back_to(0);
    run.says("b").await;
    run.ends().await;
    assert_eq!(said(&store.ended(1).await), ["started", "a", "b", "completed"]);
}

#[tokio::test]
async fn several_owners_in_one_session_each_append_theirs_again() {
    let store = Store::new();
    let runs = runs_at(&store);
    let mut first = Driven::begin(&runs, "r1").await;
    first.says("a1").await;
    let mut second = Driven::begin(&runs, "r2").await;
    second.says("a2").await;
    first.says("b1").await;
    second.says("b2").await;
    store.go_back_to(2);
    first.says("c1").await;
    second.says("c2").await;
    first.ends().await;
    second.ends().await;
    let all = store.ended(2).await;
    for (run, expected) in
        [("r1", ["started", "a1", "b1", "c1", "completed"]), ("r2", ["started", "a2", "b2", "c2", "completed"])]
    {
        let run = RunId::parse(run).unwrap();
        let own: Vec<_> = all.iter().filter(|entry| of(entry, &run)).cloned().collect();
        assert_eq!(said(&own), expected);
    }
}

#[tokio::test]
async fn a_store_that_goes_back_while_it_is_told_again_is_told_once_more() {
    let store = Store::new();
    let mut run = Driven::begin(&runs_at(&store), "r").await;
    for data in ["a", "b", "c", "d"] {
        run.says(data).await;
    }
    // As soon as anything of it was appended again, that is lost, too.
    let (entries, times) = (store.entries.clone(), Mutex::new(0));
    let clock = store.clock.clone();
    store.log.append.answers(move |append| {
        let mut answer = None;
        let mut times = times.lock().unwrap();
        entries.send_if_modified(|entries| {
            if *times < 4 {
                *times += 1;
                *clock.lock().unwrap() += 1;
                entries.truncate(4 - *times);
            }
            answer = Some(appended(entries, &clock, append));
            true
        });
        now(answer.unwrap())
    });
    run.says("e").await;
    run.ends().await;
    assert_eq!(said(&store.ended(1).await), ["started", "a", "b", "c", "d", "e", "completed"]);
}

#[tokio::test]
async fn what_nobody_has_any_more_is_named_before_the_rest() {
    let store = Store::new();
    let runs = runs_at(&store);
    let mut run = Driven::begin(&runs, "r").await;
    for data in ["a", "b", "c"] {
        run.says(data).await;
    }
    // The bound on what all runs keep leaves each its newest entry.
    runs.retained.fetch_add(ALL_RETAINED_BYTES, Ordering::AcqRel);
    run.says("d").await;
    store.go_back_to(2);
    run.says("e").await;
    run.ends().await;
    let lost = r#"{"code":"lost","from_n":3,"to_n":4}"#;
    assert_eq!(said(&store.ended(1).await), ["started", "a", lost, "d", "e", "completed"]);
}

#[tokio::test]
async fn a_silent_run_notices_what_the_store_has_lost() {
    let store = Store::new();
    let runs = runs_at(&store);
    let mut run = Driven::begin(&runs, "r").await;
    for data in ["a", "b"] {
        run.says(data).await;
    }
    let mut silent = Driven::begin(&runs, "silent").await;
    silent.says("c").await;
    let mut opened = Driven::begin(&runs, "opened").await;
    store.go_back_to(1);
    // One of them says something: all look.
    run.says("d").await;
    store.until("what was lost", |entries| entries.len() == 7).await;
    silent.says("e").await;
    opened.says("f").await;
    assert_eq!(store.entries.borrow().len(), 9);
}

/// The symptom: a run was active for ever, because its owner was gone before the store lost its terminal.
#[tokio::test]
async fn a_terminal_that_the_store_has_lost_is_written_again_by_its_owner() {
    for kept in [3, 1, 0] {
        let store = Store::new();
        let runs = runs_at(&store);
        let mut run = Driven::begin(&runs, "r").await;
        run.says("a").await;
        run.says("b").await;
        run.ends().await;
        let before = store.ended(1).await;
        let gone = timeout(PATIENCE, async {
            while runs.active() > 0 {
                tokio::task::yield_now().await;
            }
        });
        gone.await.expect("a run that has ended counts as active");
        for _ in 0..2 {
            store.go_back_to(kept);
            let again = store.ended(1).await;
            assert_eq!(said(&again), ["started", "a", "b", "completed"]);
            assert_eq!(again[3].record, before[3].record);
            assert_ne!(again[3].offset, before[3].offset);
        }
    }
}

#[tokio::test]
async fn of_runs_that_have_ended_only_so_much_is_remembered() {
    let store = Store::new();
    let runs = runs_at(&store);
    let mut run = Driven::begin(&runs, "r").await;
    run.says("a").await;
    run.ends().await;
    store.ended(1).await;
    timeout(PATIENCE, async {
        while runs.remembered.bytes() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is not remembered");
    let whole = runs.remembered.bytes();
    assert!(runs.remembered.shed());
    assert!((1..whole).contains(&runs.remembered.bytes()), "the terminal is what is left");
    store.go_back_to(1);
    let lost = r#"{"code":"lost","from_n":2,"to_n":2}"#;
    assert_eq!(said(&store.ended(1).await), ["started", lost, "completed"]);
    while runs.remembered.shed() {}
    assert_eq!(runs.remembered.bytes(), 0);
}

/// Where there are several servers, the newest terminal may be on one that has lost nothing.
#[tokio::test]
async fn a_terminal_that_is_lost_is_missed_though_a_newer_one_is_there() {
    let store = Store::new();
    let runs = runs_at(&store);
    for n in 0..20 {
        Driven::begin(&runs, &format!("r{n}")).await.ends().await;
    }
    store.ended(20).await;
    let gone = RunId::parse("r3").unwrap();
    store.entries.send_modify(|entries| entries.retain(|entry| !(of(entry, &gone) && ends(entry))));
    store.ended(20).await;
}

/// The symptom: a run was active for ever, because the store went back while its owner still saw to what waited for
/// its end.
#[tokio::test]
async fn a_terminal_that_is_lost_before_its_owner_is_done_is_written_again() {
    let store = Store::new();
    let runs = runs_at(&store);
    let (entries, clock) = (store.entries.clone(), store.clock.clone());
    store.log.append.answers(move |append| {
        let ends = ends_run(&append);
        let mut answer = None;
        entries.send_modify(|entries| answer = Some(appended(entries, &clock, append)));
        now(match answer.unwrap() {
            Appended::Stored { first, last, flags, .. } if ends => {
                Appended::Stored { first, last, flags, next: Some(RunId::parse("next").unwrap()) }
            }
            other => other,
        })
    });
    let (asked, free) = (watch::Sender::new(0), watch::Sender::new(false));
    let (told, frees) = (asked.clone(), free.clone());
    store.log.start_queued.answers(move |_| {
        told.send_modify(|times| *times += 1);
        let mut frees = frees.subscribe();
        async move {
            frees.wait_for(|free| *free).await.unwrap();
            Ok(Starts::default())
        }
        .boxed()
    });
    let mut run = Driven::begin(&runs, "r").await;
    run.says("a").await;
    run.ends().await;
    let waiting = timeout(PATIENCE, async { asked.subscribe().wait_for(|times| *times > 0).await.map(drop) }).await;
    waiting.expect("nothing waits for the end").unwrap();
    store.go_back_to(1);
    // Everybody has looked at least once before the owner is done.
    let before = runs.doubts.count();
    runs.doubts.raise();
    let doubts = timeout(PATIENCE, async { runs.doubts.subscribe().wait_for(|count| *count > before).await.map(drop) });
    doubts.await.expect("no doubt").unwrap();
    sleep(Duration::from_millis(300)).await;
    free.send_replace(true);
    assert_eq!(said(&store.ended(1).await), ["started", "a", "completed"]);
}
