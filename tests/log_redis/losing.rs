//! Servers that forget: rolled back, emptied, evicted, written to by strangers.

use sidestream::log::redis::{RedisLog, RedisOptions};
use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::redis_server::RedisServer;

const LOG: &str = "ss:{default:s}:log";
const META: &str = "ss:{default:s}:meta";

async fn delete(server: &RedisServer, keys: &[&str]) {
    let deleted: usize = ::redis::cmd("DEL").arg(keys).query_async(&mut server.client().await).await.unwrap();
    assert_eq!(deleted, keys.len());
}

/// A run with three texts, a snapshot, two more texts, a crash: the server is back at the snapshot.
async fn rolled_back(server: &mut RedisServer, log: &RedisLog) -> (Owner, Vec<Offset>) {
    let mut owner = Owner::new("s", "r");
    let mut offsets = vec![owner.open(log).await];
    for text in ["a", "b", "c", "d", "e"] {
        if text == "d" {
            let _: () = ::redis::cmd("SAVE").query_async(&mut server.client().await).await.unwrap();
        }
        offsets.push(owner.says(log, &[text]).await.1);
    }
    server.restart();
    insist(async || log.bounds(&owner.session).await).await;
    (owner, offsets)
}

#[tokio::test]
async fn an_owner_hears_that_the_store_went_back_and_goes_on_from_there() {
    let mut server = RedisServer::start();
    let log = connect(server.url()).await;
    let (mut owner, offsets) = rolled_back(&mut server, &log).await;
    for texts in [&["f"][..], &["f", "g"]] {
        let answer = insist(async || log.append(owner.append(texts)).await).await;
        assert_eq!(answer, Appended::RolledBack { tail: offsets[3], n: 4 });
    }

    // What it had appended is appended again, with new offsets.
    (owner.n, owner.tail) = (4, offsets[3]);
    owner.says(&*log, &["d", "e", "f"]).await;

    let all = read_after(&*log, &owner.session, Offset::ZERO).await;
    assert_contiguous(Offset::ZERO, &all);
    assert_eq!(data(&all), ["a", "b", "c", "d", "e", "f"]);
    assert_ne!(all[4].offset, offsets[4], "an offset is never given to two entries");
}

#[tokio::test]
async fn a_reader_of_the_lost_branch_is_told_where_it_ends() {
    let mut server = RedisServer::start();
    let log = connect(server.url()).await;
    let (mut owner, offsets) = rolled_back(&mut server, &log).await;
    let (d, e) = (offsets[4], offsets[5]);
    // Nobody has written yet; the server is another one, which shows where.
    let expected = Gap { from: e, to: offsets[3], lost: 2, reason: GapReason::RolledBack };
    assert_eq!(gap(&*log, &owner.session, e).await, expected);

    (owner.n, owner.tail) = (4, offsets[3]);
    owner.says(&*log, &["d", "e", "f"]).await;

    // The writer noticed another server, so the end of the common branch is known.
    for (cursor, lost) in [(d, 1), (e, 2)] {
        let expected = Gap { from: cursor, to: offsets[3], lost, reason: GapReason::RolledBack };
        assert_eq!(gap(&*log, &owner.session, cursor).await, expected);
    }
    assert_eq!(data(&read_after(&*log, &owner.session, offsets[3]).await), ["d", "e", "f"]);
}

#[tokio::test]
async fn a_restart_that_lost_nothing_is_no_rollback() {
    let mut server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    owner.says(&*log, &["a"]).await;
    let _: () = ::redis::cmd("SAVE").query_async(&mut server.client().await).await.unwrap();
    server.restart();
    let answer = insist(async || log.append(owner.append(&["b"])).await).await;
    assert!(matches!(answer, Appended::Stored { .. }), "{answer:?}");
    assert_eq!(data(&read_after(&*log, &owner.session, started).await), ["a", "b"]);
}

#[tokio::test]
async fn an_empty_server_behind_the_same_address_is_noticed_and_the_run_opened_again() {
    let mut server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let (_, tail) = owner.says(&*log, &["a", "b"]).await;
    server.restart();

    let answer = insist(async || log.append(owner.append(&["c"])).await).await;
    assert_eq!(answer, Appended::RolledBack { tail: Offset::ZERO, n: 0 });
    assert!(matches!(log.read(&owner.session, tail, PageLimits::default()).await.unwrap(), Read::NotFound));
    let started = owner.open(&*log).await;
    owner.says(&*log, &["a", "b", "c"]).await;

    assert_eq!(started.seq, 1);
    assert_ne!(read_after(&*log, &owner.session, started).await[1].offset, tail);
    assert_eq!(gap(&*log, &owner.session, tail).await.reason, GapReason::RolledBack);
}

#[tokio::test]
async fn a_flush_below_the_same_connection_is_noticed_as_well() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    owner.says(&*log, &["a"]).await;
    let _: () = ::redis::cmd("FLUSHALL").query_async(&mut server.client().await).await.unwrap();
    let answer = log.append(owner.append(&["b"])).await.unwrap();
    assert_eq!(answer, Appended::RolledBack { tail: Offset::ZERO, n: 0 });
}

#[tokio::test]
async fn a_log_that_was_evicted_goes_on_and_its_readers_get_the_gap() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    let (_, tail) = owner.says(&*log, &["a", "b"]).await;
    delete(&server, &[LOG]).await;
    let expected = Gap { from: started, to: tail, lost: 2, reason: GapReason::Trimmed };
    assert_eq!(gap(&*log, &owner.session, started).await, expected);
    assert_eq!(read_after(&*log, &owner.session, tail).await, vec![], "who had all of it has missed nothing");

    let (first, _) = owner.says(&*log, &["c"]).await;

    assert_eq!(first.seq, tail.seq + 1);
    assert_eq!(gap(&*log, &owner.session, started).await, expected);
    assert_eq!(data(&read_after(&*log, &owner.session, tail).await), ["c"]);
    let Bounds::Live(bounds) = log.bounds(&owner.session).await.unwrap() else { panic!("not live") };
    assert_eq!((bounds.trimmed, bounds.entries), (tail, 1));
}

#[tokio::test]
async fn meta_that_was_evicted_is_rebuilt_from_the_log() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let (mut owner, mut ended) = (Owner::new("s", "r"), Owner::new("s", "ended"));
    let started = ended.open(&*log).await;
    let end = ended.ends(&*log).await;
    owner.open(&*log).await;
    owner.says(&*log, &["a", "b"]).await;
    let Bounds::Live(before) = log.bounds(&owner.session).await.unwrap() else { panic!("not live") };

    // A reader finds it first.
    delete(&server, &[META]).await;
    assert_eq!(read_after(&*log, &owner.session, started).await.len(), 4);
    let Bounds::Live(after) = log.bounds(&owner.session).await.unwrap() else { panic!("not live") };
    assert_eq!((after.tail, after.trimmed), (before.tail, before.trimmed));
    assert_eq!((after.entries, after.bytes), (before.entries, before.bytes));
    assert_eq!(after.active.len(), 1);

    // A writer finds it first.
    delete(&server, &[META]).await;
    let (first, _) = owner.says(&*log, &["c"]).await;
    assert_eq!(first.seq, before.tail.seq + 1);
    let late = log.append(ended.append(&["late"])).await.unwrap();
    let closed = Closed::Terminal { offset: end, state: Terminal::Completed };
    assert_eq!(late, Appended::Closed(closed));
    assert_eq!(data(&read_after(&*log, &owner.session, end).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn what_a_session_that_has_expired_left_behind_is_not_taken_for_a_log_without_meta() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut client = server.client().await;
    for meta_is_there in [true, false] {
        // In the millisecond in which it expires its log is still there. That lasts, here.
        let mut owner = Owner::new("s", if meta_is_there { "r1" } else { "r2" });
        owner.open(&*log).await;
        let (_, tail) = owner.says(&*log, &["old"]).await;
        let (seconds, _): (u64, u64) = ::redis::cmd("TIME").query_async(&mut client).await.unwrap();
        let past = (seconds - 1) * 1000;
        if meta_is_there {
            let past = ::redis::cmd("HSET").arg(META).arg("expires").arg(past).to_owned();
            let _: () = past.query_async(&mut client).await.unwrap();
        } else {
            delete(&server, &[META]).await;
        }
        let tomb = ::redis::cmd("SET").arg("ss:{default:s}:tomb").arg(format!("live {tail} {past} server")).to_owned();
        let _: () = tomb.query_async(&mut client).await.unwrap();

        assert!(matches!(log.bounds(&owner.session).await.unwrap(), Bounds::Expired { last } if last == tail));
        assert_eq!(gap(&*log, &owner.session, Offset::ZERO).await.reason, GapReason::Expired);
        let late = log.append(owner.append(&["late"])).await.unwrap();
        assert_eq!(late, Appended::Closed(Closed::Expired));
        let mut next = Owner::new("s", if meta_is_there { "next-1" } else { "next-2" });
        next.open(&*log).await;
        next.says(&*log, &["new"]).await;
        assert_eq!(data(&read_after(&*log, &owner.session, tail).await), ["new"]);
        let Bounds::Live(bounds) = log.bounds(&owner.session).await.unwrap() else { panic!("not live") };
        assert_eq!((bounds.entries, bounds.trimmed, bounds.active.len()), (2, tail, 1));
        log.erase(&owner.session).await.unwrap();
        delete(&server, &["ss:{default:s}:tomb"]).await;
    }
}

#[tokio::test]
async fn a_session_that_was_evicted_whole_goes_on_with_its_offsets() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    let started = owner.open(&*log).await;
    let (_, tail) = owner.says(&*log, &["a", "b"]).await;
    delete(&server, &[LOG, META]).await;
    assert_eq!(gap(&*log, &owner.session, started).await.to, tail);

    let (first, _) = owner.says(&*log, &["c"]).await;

    assert_eq!(first.seq, tail.seq + 1);
    owner.says(&*log, &["d"]).await;
    let expected = Gap { from: started, to: tail, lost: 2, reason: GapReason::Trimmed };
    assert_eq!(gap(&*log, &owner.session, started).await, expected);
    assert_eq!(data(&read_after(&*log, &owner.session, tail).await), ["c", "d"]);
}

#[tokio::test]
async fn an_append_that_a_strangers_entry_prevents_is_not_called_stored() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let mut client = server.client().await;
    // Adds and deletes an entry far in the future: Redis accepts no smaller id any more.
    let stranger = "99999999999999-1";
    let _: () = ::redis::cmd("XADD").arg(LOG).arg(stranger).arg("x").arg("y").query_async(&mut client).await.unwrap();
    let _: () = ::redis::cmd("XDEL").arg(LOG).arg(stranger).query_async(&mut client).await.unwrap();
    let mut meta = async || -> std::collections::BTreeMap<String, String> {
        ::redis::cmd("HGETALL").arg(META).query_async(&mut client).await.unwrap()
    };
    let before = meta().await;
    for _ in 0..2 {
        let refused = log.append(owner.append(&["a"])).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    assert_eq!(meta().await, before, "meta does not claim what is not stored");
    assert_eq!(read_after(&*log, &owner.session, Offset::ZERO).await.len(), 1);
}

#[tokio::test]
async fn a_newer_layout_is_refused_in_words() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let newer = ::redis::cmd("HSET").arg(META).arg("v").arg(2).to_owned();
    let _: () = newer.query_async(&mut server.client().await).await.unwrap();
    let refusals = [
        log.append(owner.append(&["a"])).await.unwrap_err(),
        log.read(&owner.session, Offset::ZERO, PageLimits::default()).await.unwrap_err(),
        log.bounds(&owner.session).await.unwrap_err(),
    ];
    for refused in refusals {
        assert!(refused.detail.contains("layout 2") && refused.detail.contains("upgrade"), "{refused}");
    }
}

#[tokio::test]
async fn of_a_repeat_only_what_was_new_counts() {
    let server = RedisServer::start();
    let log = connect(server.url()).await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let part = owner.append(&["first", "second"]);
    log.append(part).await.unwrap();
    let answer = log.append(owner.append(&["first", "second", "third", "fourth"])).await.unwrap();
    assert!(matches!(answer, Appended::Stored { first, .. } if first.seq == 4), "{answer:?}");
    let all = read_after(&*log, &owner.session, Offset::ZERO).await;
    assert_eq!(data(&all), ["first", "second", "third", "fourth"]);
    let Bounds::Live(bounds) = log.bounds(&owner.session).await.unwrap() else { panic!("not live") };
    let bytes: usize = all.iter().map(|entry| entry.record.size()).sum();
    assert_eq!((bounds.entries, bounds.bytes), (5, bytes as u64));
}

#[tokio::test]
async fn the_thousand_newest_producers_are_remembered() {
    let server = RedisServer::start();
    let options = RedisOptions::new(server.url());
    let log = RedisLog::connect(options).await.unwrap();
    let owner = Owner::new("s", "r");
    let from = |i: usize| {
        let mut append = owner.append(&["x"]);
        append.records.iter_mut().for_each(|record| record.run = None);
        Append { writer: Writer::Producer { id: format!("p{i}").into(), epoch: 1 }, first_n: 1, seen: None, ..append }
    };
    for i in 0..1100 {
        let answer = log.append(from(i)).await.unwrap();
        assert!(matches!(answer, Appended::Stored { .. }), "{i}: {answer:?}");
    }
    assert!(matches!(log.append(from(1099)).await.unwrap(), Appended::Duplicate { .. }));
    assert!(matches!(log.append(from(200)).await.unwrap(), Appended::Duplicate { .. }));
    let fields: usize = ::redis::cmd("HLEN").arg(META).query_async(&mut server.client().await).await.unwrap();
    assert!(fields <= 1000 + 20, "{fields}");
}
