//! Whose a session is, so that a new device finds it.

use std::time::Duration;

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

fn subject(byte: u8) -> Subject {
    Subject::from_digest([byte; 32])
}

/// Opens a run of `session` for a subject.
async fn opens(log: &dyn Log, session_name: &str, run: &str, whose: Option<Subject>) -> Owner {
    let mut owner = Owner::new(session_name, run);
    let opened = log.open_run(OpenRun { subject: whose, ..owner.opening() }).await.unwrap();
    let Opened::Open { started, .. } = opened else { panic!("{opened:?}") };
    until_after_the_millisecond_of(started).await;
    owner.n = 1;
    owner
}

async fn names(log: &dyn Log, whose: Subject) -> Vec<String> {
    let rows = log.sessions_of(&whose, 100, None).await.unwrap();
    rows.iter().map(|row| row.used.session.to_string()).collect()
}

async fn a_subject_finds_its_sessions_the_newest_first(store: Store) {
    let log = store.open().await;
    let mut first = opens(&*log, "first", "r1", Some(subject(1))).await;
    opens(&*log, "second", "r2", Some(subject(1))).await;
    opens(&*log, "theirs", "r3", Some(subject(2))).await;
    opens(&*log, "nobodys", "r4", None).await;
    let tail = first.ends(&*log, Terminal::Completed).await;
    assert_eq!(names(&*log, subject(1)).await, ["second", "first"]);
    assert_eq!(names(&*log, subject(2)).await, ["theirs"]);
    assert_eq!(names(&*log, subject(3)).await, [""; 0]);
    let rows = log.sessions_of(&subject(1), 100, None).await.unwrap();
    let bounds = live(&*log, &first.session).await;
    assert_eq!((rows[1].tail, rows[1].created_ms, rows[1].active), (tail, bounds.created_ms, 0));
    assert_eq!(rows[0].active, 1);
    // What is used again is the newest again.
    opens(&*log, "first", "r5", Some(subject(1))).await;
    assert_eq!(names(&*log, subject(1)).await, ["first", "second"]);
}

async fn a_session_stays_with_the_subject_that_came_first(store: Store) {
    let log = store.open().await;
    opens(&*log, "s", "r1", None).await;
    assert!(log.bind(&session("s"), &subject(1)).await.unwrap());
    assert!(!log.bind(&session("s"), &subject(2)).await.unwrap());
    opens(&*log, "s", "r2", Some(subject(2))).await;
    assert!(log.bind(&session("s"), &subject(1)).await.unwrap(), "a repeat");
    assert!(!log.bind(&session("unknown"), &subject(1)).await.unwrap());
    assert_eq!(names(&*log, subject(1)).await, ["s"]);
    assert_eq!(names(&*log, subject(2)).await, [""; 0]);
    assert_eq!(names(&*log, subject(1)).await, ["s"]);
}

async fn the_list_goes_on_where_a_page_ended(store: Store) {
    let log = store.open().await;
    for i in 0..7 {
        opens(&*log, &format!("s{i}"), &format!("r{i}"), Some(subject(1))).await;
    }
    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let page = log.sessions_of(&subject(1), 3, before.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.used.clone());
        pages.push(page.iter().map(|row| row.used.session.to_string()).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec!["s6", "s5", "s4"], vec!["s3", "s2", "s1"], vec!["s0"]]);
}

async fn an_erased_session_leaves_its_subject(store: Store) {
    let log = store.open().await;
    opens(&*log, "kept", "r1", Some(subject(1))).await;
    opens(&*log, "erased", "r2", Some(subject(1))).await;
    assert!(log.erase(&session("erased")).await.unwrap());
    assert_eq!(names(&*log, subject(1)).await, ["kept"]);
    // Whoever begins it anew may have it.
    opens(&*log, "erased", "r3", Some(subject(2))).await;
    assert_eq!(names(&*log, subject(1)).await, ["kept"]);
    assert_eq!(names(&*log, subject(2)).await, ["erased"]);
}

async fn a_session_that_has_expired_is_nobodys(store: Store) {
    // Longer than the two calls at the end may take on a busy machine.
    let retention = Retention { ttl: Duration::from_secs(3), ..Retention::default() };
    let log = store.open_with(retention).await;
    let mut owner = opens(&*log, "s", "r", Some(subject(1))).await;
    owner.ends(&*log, Terminal::Completed).await;
    let gone = async {
        while !names(&*log, subject(1)).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it stays");
    opens(&*log, "s", "r2", None).await;
    assert!(log.bind(&session("s"), &subject(2)).await.unwrap());
}

on_every_store!(
    a_subject_finds_its_sessions_the_newest_first,
    a_session_stays_with_the_subject_that_came_first,
    the_list_goes_on_where_a_page_ended,
    an_erased_session_leaves_its_subject,
    a_session_that_has_expired_is_nobodys,
);
