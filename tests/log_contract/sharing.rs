//! What the devices of a session share beside its entries: who is here, how far users have read, what
//! is said to those who are here.

use std::time::Duration;

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::{OpenStore, Store};

const LEASE: Duration = Duration::from_secs(60);

fn connection(name: &str) -> ConnectionId {
    ConnectionId::parse(name).unwrap()
}

fn client(name: &str) -> ClientName {
    ClientName::parse(name).unwrap()
}

fn present(id: &str, name: &str, state: &str) -> Present {
    Present { connection: connection(id), client: client(name), state: state.to_owned().into() }
}

fn read(user: User, offset: Offset) -> ReadCursor {
    ReadCursor { user, client: client("phone"), offset }
}

fn alice() -> User {
    User::Subject(Subject::from_digest([1; 32]))
}

fn bob() -> User {
    User::Client(client("bob"))
}

async fn appears(log: &OpenStore, who: Present) {
    assert_eq!(log.appear(&session("s"), who, LEASE).await.unwrap(), Appeared::Here);
}

async fn who(log: &OpenStore) -> Vec<Present> {
    log.shared(&session("s")).await.unwrap().present
}

/// The next note; a `Check` in between means nothing here.
async fn heard(following: &mut Following) -> Note {
    let hearing = async {
        loop {
            if let Push::Note(note) = following.next().await.expect("the store is open") {
                return note;
            }
        }
    };
    tokio::time::timeout(PATIENCE, hearing).await.expect("nothing was heard")
}

async fn who_is_here_is_told_to_followers_and_to_whoever_asks(store: Store) {
    let log = store.open().await;
    let mut following = log.follow(&session("s")).await.unwrap();
    let phone = present("c1", "phone", r#"{"typing": false}"#);
    let tablet = present("c2", "tablet", "1");
    appears(&log, phone.clone()).await;
    appears(&log, tablet.clone()).await;
    assert_eq!(heard(&mut following).await, Note::Here(phone.clone()));
    assert_eq!(heard(&mut following).await, Note::Here(tablet.clone()));
    let shared = log.shared(&session("s")).await.unwrap();
    assert_eq!(shared.present, [phone.clone(), tablet.clone()]);
    assert!(shared.lease_ends_in.is_some_and(|left| left <= LEASE && left > LEASE / 2), "{shared:?}");

    let typing = present("c1", "phone", r#"{"typing": true}"#);
    appears(&log, typing.clone()).await;
    assert_eq!(heard(&mut following).await, Note::Here(typing));
    log.depart(&session("s"), &connection("c1")).await.unwrap();
    assert_eq!(heard(&mut following).await, Note::Left(connection("c1")));
    assert_eq!(who(&log).await, [tablet]);
    assert!(who_in(&log, "another").await.is_empty());
}

async fn who_in(log: &OpenStore, name: &str) -> Vec<Present> {
    log.shared(&session(name)).await.unwrap().present
}

async fn a_repeat_tells_nobody_anything_new(store: Store) {
    let log = store.open().await;
    let mut following = log.follow(&session("s")).await.unwrap();
    for _ in 0..3 {
        appears(&log, present("c1", "phone", "1")).await;
    }
    for _ in 0..2 {
        log.depart(&session("s"), &connection("c1")).await.unwrap();
    }
    appears(&log, present("c2", "phone", "2")).await;
    assert_eq!(heard(&mut following).await, Note::Here(present("c1", "phone", "1")));
    assert_eq!(heard(&mut following).await, Note::Left(connection("c1")));
    assert_eq!(heard(&mut following).await, Note::Here(present("c2", "phone", "2")));
}

async fn whoever_is_not_renewed_is_gone_when_its_lease_ends(store: Store) {
    let log = store.open().await;
    let short = Duration::from_millis(300);
    for name in ["c1", "c2"] {
        log.appear(&session("s"), present(name, "phone", "1"), short).await.unwrap();
    }
    let both = vec![connection("c1"), connection("c9")];
    assert_eq!(log.stay(&session("s"), both, LEASE).await.unwrap(), [connection("c9")]);
    let gone = async {
        while who(&log).await.len() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it stays");
    assert_eq!(who(&log).await, [present("c1", "phone", "1")]);
    // Who comes back is told to all again.
    assert_eq!(log.stay(&session("s"), vec![connection("c2")], LEASE).await.unwrap(), [connection("c2")]);
    let mut following = log.follow(&session("s")).await.unwrap();
    appears(&log, present("c2", "phone", "1")).await;
    assert_eq!(heard(&mut following).await, Note::Here(present("c2", "phone", "1")));
}

async fn only_so_many_are_here_and_the_dead_make_room(store: Store) {
    let log = store.open().await;
    let short = Duration::from_millis(500);
    log.appear(&session("s"), present("short", "phone", "1"), short).await.unwrap();
    for i in 1..MOST_PRESENT {
        appears(&log, present(&format!("c{i}"), "phone", "1")).await;
    }
    let one_more = async {
        let mut full = 0;
        loop {
            match log.appear(&session("s"), present("more", "phone", "1"), LEASE).await.unwrap() {
                Appeared::Full => full += 1,
                Appeared::Here => return full,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, one_more).await.expect("no room was made");
    let again = log.appear(&session("s"), present("one-too-many", "phone", "1"), LEASE).await.unwrap();
    assert_eq!(again, Appeared::Full);
    // Whoever is here may still say something new of itself.
    appears(&log, present("c5", "phone", "2")).await;
}

async fn presence_leaves_no_trace_in_the_log(store: Store) {
    let log = store.open().await;
    appears(&log, present("c1", "phone", "1")).await;
    log.say(&session("s"), Ephemeral { client: client("phone"), event: None, data: "x".into() }).await.unwrap();
    assert!(matches!(log.bounds(&session("s")).await.unwrap(), Bounds::NotFound));
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    assert_eq!(read_all(&*log, &owner.session).await.len(), 1);
}

async fn what_is_said_reaches_followers_as_it_was(store: Store) {
    let log = store.open().await;
    let mut following = log.follow(&session("s")).await.unwrap();
    for (event, data) in [(Some("typing"), r#"{"a": "b c"}"#), (None, "plain\ntext"), (Some("ü ~"), "")] {
        let said = Ephemeral { client: client("phone"), event: event.map(Into::into), data: data.into() };
        log.say(&session("s"), said.clone()).await.unwrap();
        assert_eq!(heard(&mut following).await, Note::Said(said));
    }
}

async fn a_read_cursor_moves_only_forward(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let first = owner.open(&*log).await;
    let (second, third) = owner.says(&*log, &["a", "b"]).await;
    let mut following = log.follow(&session("s")).await.unwrap();
    let mark = async |user: User, offset| log.mark_read(&session("s"), read(user, offset)).await.unwrap();
    assert_eq!(mark(alice(), second).await, Marked::At(second));
    assert_eq!(mark(bob(), third).await, Marked::At(third));
    assert_eq!(mark(alice(), first).await, Marked::At(second), "it does not go back");
    assert_eq!(mark(alice(), second).await, Marked::At(second));
    assert_eq!(mark(alice(), third).await, Marked::At(third));
    for expected in [read(alice(), second), read(bob(), third), read(alice(), third)] {
        assert_eq!(heard(&mut following).await, Note::Read(expected));
    }
    let mut cursors = log.shared(&session("s")).await.unwrap().cursors;
    cursors.sort_by(|a, b| a.user.cmp(&b.user));
    assert_eq!(cursors, [read(alice(), third), read(bob(), third)]);
}

async fn a_read_cursor_is_of_an_entry_that_the_session_has(store: Store) {
    let log = store.open().await;
    let mark = async |offset| log.mark_read(&session("s"), read(alice(), offset)).await.unwrap();
    assert_eq!(mark(Offset::new(1, 1)).await, Marked::NotFound);
    let mut owner = Owner::new("s", "r");
    let tail = owner.open(&*log).await;
    assert_eq!(mark(Offset::new(tail.ms, tail.seq + 1)).await, Marked::Ahead);
    assert_eq!(mark(Offset::new(tail.ms + 1, tail.seq)).await, Marked::Ahead);
    assert_eq!(mark(tail).await, Marked::At(tail));
    assert!(log.erase(&session("s")).await.unwrap());
    assert_eq!(mark(tail).await, Marked::NotFound);
    owner.run = run_id("another");
    owner.open(&*log).await;
    assert_eq!(log.shared(&session("s")).await.unwrap().cursors, [], "erased with the session");
}

async fn of_too_many_read_cursors_the_one_furthest_behind_goes(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let first = owner.open(&*log).await;
    let (_, last) = owner.says(&*log, &["a"]).await;
    log.mark_read(&session("s"), read(alice(), first)).await.unwrap();
    for i in 0..MOST_CURSORS {
        let user = User::Client(client(&format!("user-{i}")));
        log.mark_read(&session("s"), read(user, last)).await.unwrap();
    }
    let cursors = log.shared(&session("s")).await.unwrap().cursors;
    assert_eq!(cursors.len(), MOST_CURSORS);
    assert!(cursors.iter().all(|cursor| cursor.user != alice()));
}

on_every_store!(
    who_is_here_is_told_to_followers_and_to_whoever_asks,
    a_repeat_tells_nobody_anything_new,
    whoever_is_not_renewed_is_gone_when_its_lease_ends,
    only_so_many_are_here_and_the_dead_make_room,
    presence_leaves_no_trace_in_the_log,
    what_is_said_reaches_followers_as_it_was,
    a_read_cursor_moves_only_forward,
    a_read_cursor_is_of_an_entry_that_the_session_has,
    of_too_many_read_cursors_the_one_furthest_behind_goes,
);
