//! Servers that go back in time with clocks that differ, and what is lost with their newest entries.
//! A server's clock cannot be set here: what it has written is, as if its clock had been ahead.

use std::collections::HashMap;

use sidestream::log::redis::{RedisLog, RedisOptions};
use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::redis_server::RedisServer;

const HOUR: u64 = 3_600_000;

async fn ask<T: ::redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    ::redis::cmd(words[0]).arg(&words[1..]).query_async(&mut server.client().await).await.unwrap()
}

/// What a crash now would leave.
async fn save(server: &RedisServer) {
    ask::<()>(server, &["SAVE"]).await;
}

/// A crash: the server is back at what was saved.
async fn crash(server: &mut RedisServer, log: &RedisLog, session: &SessionId) {
    server.restart();
    insist(async || log.bounds(session).await).await;
}

/// Moves the clock by which `session` is written ahead: what follows is stamped an hour later.
async fn ahead(server: &RedisServer, session: &SessionId) -> Offset {
    let (log, meta) = (format!("ss:{{default:{session}}}:log"), format!("ss:{{default:{session}}}:meta"));
    let last: String = ask(server, &["HGET", &meta, "last"]).await;
    let last: Offset = last.parse().unwrap();
    let next = Offset::new(last.ms + HOUR, last.seq + 1);
    ask::<String>(server, &["XADD", &log, &next.to_string(), "data", ""]).await;
    ask::<()>(server, &["HSET", &meta, "last", &next.to_string()]).await;
    ask::<()>(server, &["HINCRBY", &meta, "entries", "1"]).await;
    next
}

async fn forks(server: &RedisServer) -> Vec<String> {
    let forks: Option<String> = ask(server, &["HGET", "ss:{default:s}:meta", "forks"]).await;
    forks.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

async fn appended(log: &RedisLog, append: Append) -> Appended {
    insist(async || log.append(append.clone()).await).await
}

/// Does what every owner does that hears of a rollback: sends again what the log lacks of `said`.
async fn sends_again(log: &RedisLog, owner: &mut Owner, said: &[&str]) {
    let Appended::RolledBack { tail, n } = appended(log, owner.append(&["probe"])).await else { panic!("no rollback") };
    (owner.n, owner.tail) = (n, tail);
    if n == 0 {
        owner.open(log).await;
    }
    owner.says(log, &said[owner.n as usize - 1..]).await;
}

fn lost(from: Offset, to: Offset) -> Gap {
    Gap { from, to, lost: from.seq - to.seq, reason: GapReason::RolledBack }
}

#[tokio::test]
async fn a_server_whose_clock_is_an_hour_behind_gives_no_offset_again_and_readers_leave_at_the_fork() {
    let mut server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let (_, b) = owner.says(&*log, &["a", "b"]).await;
    save(&server).await;
    let mut cursors = vec![ahead(&server, &owner.session).await];
    for text in ["c", "d"] {
        cursors.push(owner.says(&*log, &[text]).await.1);
    }
    assert!(cursors[2].ms >= b.ms + HOUR, "the test is about a clock that was ahead");
    crash(&mut server, &log, &owner.session).await;
    for cursor in &cursors {
        assert_eq!(gap(&*log, &owner.session, *cursor).await, lost(*cursor, b), "before anybody has written");
    }

    sends_again(&log, &mut owner, &["a", "b", "c", "d"]).await;
    let (_, e) = owner.says(&*log, &["e"]).await;
    let all = read_after(&*log, &owner.session, Offset::ZERO).await;
    assert_contiguous(Offset::ZERO, &all);
    assert_eq!(data(&all), ["a", "b", "c", "d", "e"]);
    assert!(all[3].offset.ms > cursors[2].ms, "{} may have been given before", all[3].offset);
    for cursor in &cursors {
        assert_eq!(gap(&*log, &owner.session, *cursor).await, lost(*cursor, b));
    }

    // Once more, before the clock has caught up.
    save(&server).await;
    let (f, g) = owner.says(&*log, &["f", "g"]).await;
    crash(&mut server, &log, &owner.session).await;
    sends_again(&log, &mut owner, &["a", "b", "c", "d", "e", "f", "g"]).await;
    for cursor in [f, g] {
        // Two changes of server within a minute: the older of them is certain.
        assert!([b, e].contains(&gap(&*log, &owner.session, cursor).await.to), "{cursor}");
    }
    for cursor in &cursors {
        assert_eq!(gap(&*log, &owner.session, *cursor).await, lost(*cursor, b));
    }
}

#[tokio::test]
async fn a_clock_that_was_wrong_once_does_not_move_other_sessions() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let (mut owner, mut other) = (Owner::new("s", "r"), Owner::new("other", "r2"));
    let started = owner.open(&*log).await;
    other.open(&*log).await;
    ahead(&server, &other.session).await;
    let (far, _) = other.says(&*log, &["far"]).await;
    assert!(far.ms >= started.ms + HOUR);
    let (next, _) = owner.says(&*log, &["a"]).await;
    assert!(next.ms < started.ms + HOUR / 2, "{next} after {started}");
}

#[tokio::test]
async fn a_session_that_was_lost_whole_begins_after_all_that_it_was() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    ahead(&server, &owner.session).await;
    let (_, tail) = owner.says(&*log, &["a", "b"]).await;
    ask::<()>(&server, &["FLUSHALL"]).await;

    sends_again(&log, &mut owner, &["a", "b"]).await;
    owner.says(&*log, &["c", "d", "e", "f"]).await;

    let all = read_after(&*log, &owner.session, Offset::ZERO).await;
    assert_eq!(data(&all), ["a", "b", "c", "d", "e", "f"]);
    assert!(all[0].offset.ms > tail.ms);
    for cursor in [started, tail] {
        assert_eq!(gap(&*log, &owner.session, cursor).await, lost(cursor, Offset::ZERO));
    }
    // A second change of server is not taken for the one that lost these.
    ask::<()>(&server, &["HSET", "ss:{default:s}:meta", "srv", "another"]).await;
    owner.says(&*log, &["g"]).await;
    for cursor in [started, tail] {
        assert_eq!(gap(&*log, &owner.session, cursor).await, lost(cursor, Offset::ZERO));
    }
}

#[tokio::test]
async fn whoever_knew_more_than_the_first_to_come_back_is_given_no_offset_again_either() {
    let mut server = RedisServer::start();
    let (log, other) = (connect(server.url()).await, connect(server.url()).await);
    let (mut ann, mut bob) = (Owner::new("s", "ann"), Owner::new("s", "bob"));
    ann.open(&*log).await;
    bob.open(&*other).await;
    save(&server).await;
    ahead(&server, &ann.session).await;
    let (_, lost_one) = bob.says(&*other, &["bob 1", "bob 2", "bob 3"]).await;
    crash(&mut server, &log, &ann.session).await;
    insist(async || other.bounds(&ann.session).await).await;

    // Ann's instance has heard nothing of the lost hour: it comes back to the present.
    let (first, _) = ann.says(&*log, &["ann 1", "ann 2"]).await;
    assert!(first.ms + HOUR / 2 < lost_one.ms, "the test is about an instance that does not know");
    sends_again(&other, &mut bob, &["bob 1", "bob 2", "bob 3"]).await;

    let all = read_after(&*log, &ann.session, Offset::ZERO).await;
    assert_contiguous(Offset::ZERO, &all);
    assert_eq!(data(&all), ["ann 1", "ann 2", "bob 1", "bob 2", "bob 3"]);
    assert!(all[4].offset.ms > lost_one.ms, "{} may have been given before", all[4].offset);
    let to = gap(&*log, &ann.session, lost_one).await.to;
    assert_eq!(to, all[1].offset, "the fork that ann recorded counts for what bob knew");
    let keyspace: Vec<String> = ask(&server, &["KEYS", "*:meta"]).await;
    assert_eq!(keyspace.len(), 1);
}

#[tokio::test]
async fn a_terminal_that_was_lost_is_sent_again_and_is_there_once() {
    let mut server = RedisServer::start();
    let log = connect(server.url()).await;
    for (name, before) in [("right-before", &["a", "b"][..]), ("with-more", &["a"])] {
        let mut owner = Owner::new("s", name);
        owner.open(&*log).await;
        owner.says(&*log, before).await;
        save(&server).await;
        if before.len() == 1 {
            owner.says(&*log, &["b"]).await;
        }
        let end = owner.append_records(vec![Record::run_state(
            owner.run.clone(),
            RunState::Ended(Terminal::Completed),
            "{}",
        )]);
        let Appended::Stored { last: lost_end, .. } = log.append(end.clone()).await.unwrap() else { panic!("{name}") };
        let there = log.append(end.clone()).await.unwrap();
        let state = Terminal::Completed;
        assert_eq!(there, Appended::Closed(Closed::Terminal { offset: lost_end, state }), "whoever asks hears so");
        crash(&mut server, &log, &owner.session).await;

        let answer = appended(&log, end.clone()).await;
        if before.len() == 1 {
            let Appended::RolledBack { tail, n: 2 } = answer else { panic!("{answer:?}") };
            (owner.n, owner.tail) = (2, tail);
            owner.says(&*log, &["b"]).await;
            owner.ends(&*log).await;
        } else {
            assert!(matches!(answer, Appended::Stored { last, .. } if last != lost_end), "{answer:?}");
        }
        assert_eq!(gap(&*log, &owner.session, lost_end).await.reason, GapReason::RolledBack);
        let all = read_after(&*log, &owner.session, Offset::ZERO).await;
        let own = |entry: &&std::sync::Arc<Entry>| entry.record.run.as_ref() == Some(&owner.run);
        let states: Vec<_> = all.iter().filter(own).filter_map(|entry| entry.record.state()).collect();
        assert_eq!(states, [RunState::Started, RunState::Ended(Terminal::Completed)]);
        save(&server).await;
    }
}

#[tokio::test]
async fn a_run_whose_opening_was_lost_is_opened_again() {
    let mut server = RedisServer::start();
    let log = connect(server.url()).await;
    let (mut first, mut owner) = (Owner::new("s", "first"), Owner::new("s", "r"));
    first.open(&*log).await;
    save(&server).await;
    let lost_start = owner.open(&*log).await;
    owner.says(&*log, &["a"]).await;
    crash(&mut server, &log, &owner.session).await;

    let tail = insist(async || log.append(owner.append(&["b"])).await).await;
    assert!(matches!(tail, Appended::RolledBack { n: 0, tail } if tail == first.tail), "{tail:?}");
    let started = owner.open(&*log).await;
    assert_ne!(started, lost_start);
    assert_eq!(owner.clone().open(&*log).await, started, "and a repeat is recognised");
    owner.says(&*log, &["a", "b"]).await;
    assert_eq!(gap(&*log, &owner.session, lost_start).await, lost(lost_start, first.tail));
    assert_eq!(data(&read_after(&*log, &owner.session, started).await), ["a", "b"]);
}

#[tokio::test]
async fn a_life_that_began_after_an_erasure_and_was_lost_is_not_called_erased() {
    let mut server = RedisServer::start();
    let log = connect(server.url()).await;
    let (mut first, mut owner) = (Owner::new("s", "first"), Owner::new("s", "r"));
    first.open(&*log).await;
    log.erase(&first.session).await.unwrap();
    save(&server).await;
    let started = owner.open(&*log).await;
    owner.says(&*log, &["a"]).await;
    crash(&mut server, &log, &owner.session).await;

    let late = appended(&log, first.append(&["late"])).await;
    assert_eq!(late, Appended::Closed(Closed::Erased));
    sends_again(&log, &mut owner, &["a", "b"]).await;
    assert_eq!(gap(&*log, &owner.session, started).await, lost(started, Offset::ZERO));
}

/// The symptom: what its user had erased was there again, sent once more by an owner who had not yet heard that the
/// store had gone back.
#[tokio::test]
async fn a_session_that_is_erased_after_the_store_went_back_stays_erased() {
    let mut server = RedisServer::start();
    let log = connect(server.url()).await;
    let (mut owner, mut late) = (Owner::new("s", "r"), Owner::new("s", "late"));
    owner.open(&*log).await;
    save(&server).await;
    owner.says(&*log, &["a"]).await;
    late.open(&*log).await;
    crash(&mut server, &log, &owner.session).await;

    assert!(log.erase(&owner.session).await.unwrap());
    for owner in [&owner, &late] {
        assert_eq!(appended(&log, owner.append(&["b"])).await, Appended::Closed(Closed::Erased));
    }
}

#[tokio::test]
async fn everybody_who_lost_entries_hears_how_many_the_log_still_has() {
    let mut server = RedisServer::start();
    let (log, other) = (connect(server.url()).await, connect(server.url()).await);
    let (mut ann, mut bob) = (Owner::new("s", "ann"), Owner::new("s", "bob"));
    ann.open(&*log).await;
    bob.open(&*other).await;
    let epoch = |append: Append, first_n| Append {
        writer: Writer::Producer { id: "p".into(), epoch: 1 },
        first_n,
        records: append.records.into_iter().map(|record| Record { run: None, ..record }).collect(),
        ..append
    };
    ann.says(&*log, &["ann 1"]).await;
    log.append(epoch(ann.append(&["p 1"]), 1)).await.unwrap();
    bob.says(&*other, &["bob 1"]).await;
    save(&server).await;
    bob.says(&*other, &["bob 2", "bob 3"]).await;
    let Appended::Stored { last: p_seen, .. } = log.append(epoch(ann.append(&["p 2"]), 2)).await.unwrap() else {
        panic!("not stored")
    };
    ann.says(&*log, &["ann 2"]).await;
    let seen: Vec<Offset> = read_after(&*log, &ann.session, bob.tail).await.iter().map(|e| e.offset).collect();
    crash(&mut server, &log, &ann.session).await;
    insist(async || other.bounds(&ann.session).await).await;

    sends_again(&log, &mut ann, &["ann 1", "ann 2"]).await;
    sends_again(&other, &mut bob, &["bob 1", "bob 2", "bob 3"]).await;
    let p = Append { seen: Some(p_seen), ..epoch(ann.append(&["p 3"]), 3) };
    let Appended::RolledBack { tail, n: 1 } = appended(&log, p).await else { panic!("no rollback") };
    let p = Append { seen: Some(tail), ..epoch(ann.append(&["p 2", "p 3"]), 2) };
    assert!(matches!(appended(&log, p).await, Appended::Stored { .. }));

    let all = read_after(&*log, &ann.session, Offset::ZERO).await;
    assert_contiguous(Offset::ZERO, &all);
    let mut said = data(&all);
    for (who, texts) in [("ann", 2), ("bob", 3), ("p", 3)] {
        let own: Vec<&str> = said.iter().copied().filter(|text| text.starts_with(who)).collect();
        assert_eq!(own, (1..=texts).map(|i| format!("{who} {i}")).collect::<Vec<_>>());
    }
    said.dedup();
    assert_eq!(said.len(), 8);
    for cursor in seen {
        assert_eq!(gap(&*log, &ann.session, cursor).await.reason, GapReason::RolledBack, "{cursor}");
    }
    assert_eq!(forks(&server).await.len(), 1, "one change of server, whoever noticed it first");
}

#[tokio::test]
async fn a_takeover_that_was_lost_is_undone_and_the_former_fence_holds_again() {
    let mut server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    save(&server).await;
    let takeover = || {
        let (session, run) = (owner.session.clone(), owner.run.clone());
        Takeover { session, run, nonce: "heir".into(), details: "{}".into() }
    };
    assert!(matches!(log.takeover(takeover()).await.unwrap(), TakenOver::Ended { .. }));
    let fenced = log.append(owner.append(&["a"])).await.unwrap();
    assert_eq!(fenced, Appended::Fenced);
    crash(&mut server, &log, &owner.session).await;
    let Bounds::Live(bounds) = log.bounds(&owner.session).await.unwrap() else { panic!("it is gone") };
    assert_eq!(bounds.active.len(), 1);
    assert!(matches!(appended(&log, owner.append(&["a"])).await, Appended::Stored { .. }), "its owner lives");
    assert!(matches!(log.takeover(takeover()).await.unwrap(), TakenOver::Ended { .. }), "or it is taken over again");
}

#[tokio::test]
async fn an_epoch_of_a_producer_that_was_lost_is_told_so() {
    let mut server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    let from = |owner: &Owner, epoch, first_n, run: Option<RunId>| {
        let append = owner.append(&["x"]);
        let records = append.records.into_iter().map(|record| Record { run: run.clone(), ..record }).collect();
        Append { writer: Writer::Producer { id: "p".into(), epoch }, first_n, records, ..append }
    };
    log.append(from(&owner, 1, 1, None)).await.unwrap();
    save(&server).await;
    owner.open(&*log).await;
    let run = Some(owner.run.clone());
    for n in 1..3 {
        assert!(matches!(log.append(from(&owner, 2, n, run.clone())).await.unwrap(), Appended::Stored { .. }));
    }
    crash(&mut server, &log, &owner.session).await;
    // Also where the run that it writes into is lost, which its owner will open again.
    let answer = appended(&log, from(&owner, 2, 3, run.clone())).await;
    assert!(matches!(answer, Appended::RolledBack { n: 0, .. }), "{answer:?}");
    (owner.n, owner.tail) = (0, Offset::ZERO);
    owner.open(&*log).await;
    for n in 1..4 {
        assert!(matches!(log.append(from(&owner, 2, n, run.clone())).await.unwrap(), Appended::Stored { .. }));
    }
    assert_eq!(log.append(from(&owner, 1, 2, None)).await.unwrap(), Appended::Fenced);
}

#[tokio::test]
async fn what_was_lost_before_the_oldest_fork_that_is_remembered_goes_back_to_the_beginning() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    for i in 0..20 {
        ask::<()>(&server, &["HSET", "ss:{default:s}:meta", "srv", &format!("server-{i}")]).await;
        owner.says(&*log, &["on"]).await;
    }
    let forks = forks(&server).await;
    assert_eq!(forks.len(), 16);
    assert!(forks[0].starts_with("0-0@") && forks[15].starts_with(&format!("{}-20@", owner.tail.ms)[..10]));
    let stranger = Offset::new(owner.tail.ms + 1, 15);
    assert_eq!(gap(&*log, &owner.session, stranger).await, lost(stranger, Offset::ZERO));
    // Everything that the log has is there for its readers, as ever.
    assert_eq!(read_after(&*log, &owner.session, Offset::ZERO).await.len(), 21);
}

#[tokio::test]
async fn a_reader_goes_back_before_what_was_trimmed_since_and_is_told_of_both() {
    let mut server = RedisServer::start();
    let retention = Retention { max_entries: 10, ..Retention::default() };
    let log = RedisLog::connect(RedisOptions { retention, ..RedisOptions::new(server.url()) }).await.unwrap();
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let (_, b) = owner.says(&*log, &["a", "b"]).await;
    save(&server).await;
    let (_, d) = owner.says(&*log, &["c", "d"]).await;
    crash(&mut server, &log, &owner.session).await;
    sends_again(&log, &mut owner, &["a", "b", "c", "d"]).await;
    for i in 0..20 {
        owner.says(&*log, &[format!("{i}")]).await;
    }
    assert_eq!(gap(&*log, &owner.session, d).await, lost(d, b));
    let trimmed = gap(&*log, &owner.session, b).await;
    assert_eq!((trimmed.reason, trimmed.lost), (GapReason::Trimmed, trimmed.to.seq - b.seq));
    assert_eq!(read_after(&*log, &owner.session, trimmed.to).await.len(), 10);
    let fields: HashMap<String, String> = ask(&server, &["HGETALL", "ss:{default:s}:meta"]).await;
    assert!(!fields.contains_key("base"), "the session began at its beginning");
}
