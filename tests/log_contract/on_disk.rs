//! What only the embedded log on disk promises: it is there after a restart, and only one process
//! has it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use redb::TableDefinition;
use sidestream::log::embedded::{EmbeddedLog, EmbeddedOptions, Location, OpenError};
use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;

/// Names the directory to the process that is started to be killed.
const DIR: &str = "SIDESTREAM_TEST_LOG_DIR";

async fn open(dir: &Path) -> Result<Arc<EmbeddedLog>, OpenError> {
    EmbeddedLog::open(EmbeddedOptions::new(Location::Dir(dir.into()))).await
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).await.unwrap();
    let (mut ended, mut erased) = (Owner::new("s", "r1"), Owner::new("gone", "r2"));
    ended.open(&*log).await;
    ended.says(&*log, &texts("text", 20)).await;
    let end = ended.ends(&*log, Terminal::Completed).await;
    erased.open(&*log).await;
    log.erase(&erased.session).await.unwrap();
    log.claim("key", "mine".into()).await.unwrap();
    let (all, bounds) = (read_all(&*log, &ended.session).await, live(&*log, &ended.session).await);
    log.close().await;
    drop(log);

    let log = open(dir.path()).await.unwrap();
    assert_eq!(read_all(&*log, &ended.session).await, all);
    let again = live(&*log, &ended.session).await;
    assert_eq!(SessionBounds { expires_in: bounds.expires_in, ..again }, bounds);
    let late = log.append(ended.append_from(ended.n + 1, &["late"])).await.unwrap();
    assert_eq!(late, Appended::Closed(Closed::Terminal { offset: end, state: Terminal::Completed }));
    assert!(matches!(log.bounds(&erased.session).await.unwrap(), Bounds::Erased));
    assert_eq!(log.claim("key", "yours".into()).await.unwrap(), Claim::Taken("mine".into()));
    let next = Owner::new("s", "r3").open(&*log).await;
    assert_eq!(next.seq, end.seq + 1);
}

#[tokio::test]
async fn runs_that_were_active_are_interrupted_by_a_restart_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).await.unwrap();
    let mut owners: Vec<Owner> =
        ["a", "b", "b"].iter().zip(["r1", "r2", "r3"]).map(|(s, r)| Owner::new(s, r)).collect();
    for owner in &mut owners {
        owner.open(&*log).await;
        owner.says(&*log, &["text"]).await;
    }
    log.close().await;
    for _ in 0..2 {
        let log = open(dir.path()).await.unwrap();
        for owner in &owners {
            let info = log.run(&owner.session, &owner.run).await.unwrap().unwrap();
            let (offset, state) = info.ended.expect("the run has ended");
            assert_eq!(state, Terminal::Interrupted);
            let entries = read_all(&*log, &owner.session).await;
            let ends: Vec<_> = entries
                .iter()
                .filter(|entry| entry.record.run.as_ref() == Some(&owner.run))
                .filter(|entry| entry.record.state() == Some(RunState::Ended(Terminal::Interrupted)))
                .collect();
            assert_eq!(ends.len(), 1);
            assert_eq!(ends[0].offset, offset);
            let started = entries.iter().find(|entry| entry.offset == info.started).unwrap();
            let took_ms = offset.ms - started.offset.ms;
            let details = format!(r#"{{"duration_ms":{took_ms},"reason":"restart","events":1,"bytes":4}}"#);
            assert_eq!(ends[0].record.data, details);
            let late = log.append(owner.append_from(owner.n + 1, &["late"])).await.unwrap();
            assert_eq!(late, Appended::Fenced);
        }
        log.close().await;
    }
}

/// A process of its own that appends until it is killed. It prints a line for each append that was
/// acknowledged.
struct Appender {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Appender {
    fn start(dir: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["on_disk::the_process_that_appends_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Appender { process, lines }
    }

    /// The next text that was acknowledged; `None` once it is dead.
    fn acknowledged(&mut self) -> Option<String> {
        self.lines.by_ref().map_while(Result::ok).find_map(|line| Some(line.split_once("acknowledged ")?.1.to_owned()))
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
#[ignore = "a process that other tests start"]
async fn the_process_that_appends_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let log = open(Path::new(&dir)).await.unwrap();
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    for n in 1.. {
        let text = format!("text-{n}");
        owner.says(&*log, &[&text]).await;
        println!("acknowledged {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut appender = Appender::start(dir.path());
    let mut acknowledged: Vec<String> = (0..40).map(|_| appender.acknowledged().unwrap()).collect();
    appender.kill();
    acknowledged.extend(std::iter::from_fn(|| appender.acknowledged()));

    let log = open(dir.path()).await.unwrap();
    let entries = read_all(&*log, &session("s")).await;
    let stored = data(&entries[1..entries.len() - 1]);
    // One more may be stored whose answer was not heard.
    assert!(stored.len() - acknowledged.len() <= 1, "{} of {}", acknowledged.len(), stored.len());
    assert_eq!(stored[..acknowledged.len()], acknowledged);
    let end = &entries.last().unwrap().record;
    assert_eq!(end.state(), Some(RunState::Ended(Terminal::Interrupted)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_told_who_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut appender = Appender::start(dir.path());
    appender.acknowledged().unwrap();
    let Err(refused) = open(dir.path()).await else { panic!("two processes have the store") };
    let (pid, place) = (appender.process.id(), dir.path().display().to_string());
    assert!(matches!(&refused, OpenError::InUse { pid: Some(holder), .. } if *holder == pid), "{refused:?}");
    let message = refused.to_string();
    for part in [&*place, &format!("process {pid}"), "--store"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert!(appender.acknowledged().is_some(), "the first goes on");
    appender.kill();
    open(dir.path()).await.unwrap().close().await;
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).await.unwrap().close().await;
    let about: TableDefinition<&str, u64> = TableDefinition::new("about");
    let database = redb::Database::open(dir.path().join("log.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(about).unwrap().insert("format", 99).unwrap();
    transaction.commit().unwrap();
    drop(database);

    let Err(refused) = open(dir.path()).await else { panic!("a newer format was opened") };
    assert!(matches!(refused, OpenError::NewerFormat { found: 99, .. }), "{refused:?}");
    let message = refused.to_string();
    for part in [&*dir.path().display().to_string(), "format 99", "--store"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[tokio::test]
async fn what_is_not_a_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log.redb");
    let text = "this is not a database. ".repeat(1000);
    std::fs::write(&file, &text).unwrap();
    let Err(refused) = open(dir.path()).await else { panic!("a text was opened as a store") };
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
    let message = refused.to_string();
    assert!(message.contains(&dir.path().display().to_string()) && message.contains("--store"), "{message}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let place = dir.path().join("file/store");
    let Err(refused) = open(&place).await else { panic!("a store below a file") };
    assert!(matches!(refused, OpenError::NotWritable { .. }), "{refused:?}");
    let message = refused.to_string();
    assert!(message.contains(&place.display().to_string()) && message.contains("--store"), "{message}");
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_stored_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("new/store");
    open(&place).await.unwrap().close().await;
    assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn what_was_asked_to_end_is_cancelled_by_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).await.unwrap();
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let request = |target| CancelRequest { session: session("s"), target, by: "{}".into() };
    log.cancel(request(CancelTarget::Active)).await.unwrap();
    log.cancel(request(CancelTarget::Key("key".into()))).await.unwrap();
    log.close().await;
    drop(log);

    let log = open(dir.path()).await.unwrap();
    let info = log.run(&owner.session, &owner.run).await.unwrap().unwrap();
    assert_eq!(info.ended.unwrap().1, Terminal::Cancelled);
    let opened = log.open_run(OpenRun { key: Some("key".into()), ..Owner::new("s", "r2").opening() }).await.unwrap();
    assert!(matches!(opened, Opened::Open { flags: RunFlags { cancel: Some(_) }, .. }), "{opened:?}");
}

#[tokio::test]
async fn what_waits_outlives_a_restart_and_is_found_by_the_first_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).await.unwrap();
    let mut root = Owner::new("s", "root");
    root.open(&*log).await;
    let limits = QueueLimits { depth: 8, bytes: 1000 };
    for name in ["first", "second"] {
        let on_busy = OnBusy::Queue(Waiting { item: name.into(), client: None, limits });
        let opened = log.open_run(OpenRun { on_busy, ..Owner::new("s", name).opening() }).await.unwrap();
        assert!(matches!(opened, Opened::Queued { .. }), "{opened:?}");
    }
    let queue = log.queue(&root.session).await.unwrap();
    log.close().await;
    drop(log);

    let log = open(dir.path()).await.unwrap();
    assert_eq!(log.queue(&root.session).await.unwrap(), queue);
    let (me, hold) = (instance("me"), START_WITHIN);
    let dead = log.sweep(&me).await.unwrap();
    assert_eq!(dead.iter().map(|dead| dead.runs.clone()).collect::<Vec<_>>(), [[(session("s"), run_id("first"))]]);
    let first = Owner::new("s", "first");
    assert_eq!(log.takeover(first.takeover("heir")).await.unwrap(), TakenOver::Queued);
    let starts = log.start_queued(&first.session, &me, hold).await.unwrap();
    assert_eq!(starts.yours.iter().map(|start| &start.item[..]).collect::<Vec<_>>(), [b"first"]);
    log.unlist(&dead[0].instance, &first.session, &first.run).await.unwrap();
    assert_eq!(log.sweep(&me).await.unwrap(), vec![]);
    assert!(matches!(log.open_run(first.opening()).await.unwrap(), Opened::Open { .. }));
    assert_eq!(log.queue(&root.session).await.unwrap().len(), 1);
}
