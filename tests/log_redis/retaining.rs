//! Nothing is kept for ever: every key goes when the documented time is over, and nobody who only looks
//! keeps anything longer.

use std::collections::BTreeMap;
use std::time::Duration;

use sidestream::log::redis::{RedisLog, RedisOptions};
use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::layout::{everything, matches};
use crate::redis_server::RedisServer;

const TTL: Duration = Duration::from_millis(1500);
/// The longest lease that [`everything`] takes.
const LEASE: Duration = Duration::from_secs(3);

/// The rows of the document's table of keys: pattern, and the longest that such a key may have to live.
fn documented() -> Vec<(String, Duration)> {
    let rows = include_str!("../../docs/store-layout.md").lines().filter(|line| line.starts_with("| `ss:"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let name = cells[0].trim_start_matches("| ").trim_matches('`').replace("{T}", "{default:<session>}");
        let (before, rest) = name.split_once('<').map_or((&*name, None), |(before, rest)| (before, Some(rest)));
        let pattern = rest.map_or(name.clone(), |rest| format!("{before}*{}", rest.split_once('>').unwrap().1));
        (pattern, longest(cells[2]))
    })
    .collect()
}

/// The longest time that the words of the document name.
fn longest(words: &str) -> Duration {
    let ways = words.split(", ").map(|way| way.trim_start_matches("or ")).filter(|way| !way.starts_with("renewed"));
    let term = |term: &str| match term.rsplit_once(' ') {
        None if term == "ttl" => TTL,
        _ if term.contains("lease") => LEASE,
        Some((count, unit)) => {
            let seconds = match unit {
                "s" => 1,
                "min" => 60,
                "d" => 24 * 3600,
                other => panic!("what is {other:?} in {words:?}?"),
            };
            Duration::from_secs(count.parse::<u64>().unwrap() * seconds)
        }
        None => panic!("how long is {words:?}?"),
    };
    ways.map(|way| way.split(" + ").map(term).sum()).max().unwrap()
}

async fn small(server: &RedisServer) -> std::sync::Arc<RedisLog> {
    let retention = Retention { ttl: TTL, ..Retention::default() };
    RedisLog::connect(RedisOptions { retention, ..RedisOptions::new(server.url()) }).await.unwrap()
}

/// The keys there are, and how long each has to live by its own clock.
async fn keys(server: &RedisServer) -> BTreeMap<String, Duration> {
    let mut client = server.client().await;
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    let mut all = BTreeMap::new();
    for key in keys {
        let left: i64 = ::redis::cmd("PTTL").arg(&key).query_async(&mut client).await.unwrap();
        assert!(left != -1, "{key} would stay for ever");
        // It may have gone meanwhile.
        if let Ok(left) = u64::try_from(left) {
            all.insert(key, Duration::from_millis(left));
        }
    }
    all
}

/// Asks everything that only looks.
async fn looks_at_everything(log: &RedisLog) {
    for name in ["active", "ended", "taken", "erased", "never", "produced", "elsewhere"] {
        let session = SessionId::parse(name).unwrap();
        let run = RunId::parse(&format!("run-{name}")).unwrap();
        let _ = log.bounds(&session).await.unwrap();
        let _ = log.read(&session, Offset::ZERO, PageLimits::default()).await.unwrap();
        let _ = log.locate(&session, Place::Last(3)).await.unwrap();
        let _ = log.entry(&session, Offset::new(1, 1)).await.unwrap();
        let _ = log.run(&session, &run).await.unwrap();
        let _ = log.session_of(&run).await.unwrap();
        let _ = log.shared(&session).await.unwrap();
        let _ = log.queue(&session).await.unwrap();
        drop(log.follow(&session).await.unwrap());
        let _ = log.is_listed(&InstanceId::parse("inst-1").unwrap(), &session, &run).await.unwrap();
    }
    let _ = log.sessions(100).await.unwrap();
    let _ = log.sessions_of(&Subject::from_digest([7; 32]), 10, None).await.unwrap();
    let _ = log.is_dead(&InstanceId::parse("inst-1").unwrap()).await.unwrap();
}

#[test]
fn the_document_says_how_long_in_words_that_this_test_understands() {
    let documented = documented();
    let of = |pattern: &str| documented.iter().find(|row| row.0 == pattern).unwrap_or_else(|| panic!("{pattern}")).1;
    assert_eq!(of("ss:{default:*}:log"), TTL);
    assert_eq!(of("ss:{default:*}:tomb"), TTL + Duration::from_secs(30 * 24 * 3600));
    assert_eq!(of("ss:{default:*}:cancels"), Duration::from_secs(600));
    assert_eq!(of("ss:{inst}:alive:*"), TTL + Duration::from_secs(60));
    assert_eq!(of("ss:{inst}:all"), TTL + Duration::from_secs(60));
}

#[tokio::test]
async fn nothing_lives_longer_than_the_document_says_and_looking_prolongs_nothing() {
    let server = RedisServer::start();
    let log = small(&server).await;
    everything(&*log).await;
    let documented = documented();
    let begun = tokio::time::Instant::now();
    let first = keys(&server).await;
    assert!(first.len() > 20, "{first:?}");
    for (key, left) in &first {
        let row = documented.iter().find(|(pattern, _)| matches(pattern, key));
        let (pattern, longest) = row.unwrap_or_else(|| panic!("{key} is not documented"));
        assert!(left <= longest, "{key} has {left:?} to live, and {pattern} at most {longest:?}");
    }

    // What everybody may forget when the ttl is over is gone then, whoever looked in between.
    let mut left = first.clone();
    until(async || {
        looks_at_everything(&log).await;
        left = keys(&server).await;
        begun.elapsed() > TTL + LEASE && left.len() < first.len()
    })
    .await;
    for (key, still) in left {
        let longest = documented.iter().find(|(pattern, _)| matches(pattern, &key)).unwrap().1;
        assert!(longest > TTL, "{key} outlives the ttl");
        let before = first.get(&key).unwrap_or_else(|| panic!("{key} was made by somebody who only looked"));
        assert!(still + TTL <= *before, "{key} was prolonged: {before:?}, then {still:?}");
    }
}

#[tokio::test]
async fn when_all_has_ended_and_its_time_has_passed_nothing_is_left() {
    let server = RedisServer::start();
    let log = small(&server).await;
    everything(&*log).await;
    let mut client = server.client().await;
    // The rest of what the document says passes at once.
    for key in keys(&server).await.into_keys() {
        let shorter = ::redis::cmd("PEXPIRE").arg(&key).arg(1000).arg("LT").to_owned();
        let _: i64 = shorter.query_async(&mut client).await.unwrap_or(0);
    }
    until(async || {
        looks_at_everything(&log).await;
        let left: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
        left.is_empty()
    })
    .await;
}

#[tokio::test]
async fn erasing_leaves_the_tombstone_and_what_names_no_more_than_the_run() {
    let server = RedisServer::start();
    let log = small(&server).await;
    everything(&*log).await;
    let session = SessionId::parse("active").unwrap();
    assert!(log.erase(&session).await.unwrap());
    let left = keys(&server).await;
    let of_it: Vec<&str> = left.keys().map(String::as_str).filter(|key| key.contains("{default:active}")).collect();
    assert_eq!(of_it, ["ss:{default:active}:tomb"]);
    let mut client = server.client().await;
    let tomb: String = ::redis::cmd("GET").arg(of_it[0]).query_async(&mut client).await.unwrap();
    let ["erased", last, when] = tomb.split(' ').collect::<Vec<_>>()[..] else { panic!("{tomb}") };
    last.parse::<Offset>().unwrap();
    when.parse::<u64>().unwrap();
    assert_eq!(log.sessions_of(&Subject::from_digest([7; 32]), 10, None).await.unwrap(), vec![]);
    let subject = left.keys().find(|key| key.starts_with("ss:subj:"));
    assert_eq!(subject, None, "the subject used no other session");
    // Found by a run's id alone: to where it was. It says nothing of what was there.
    for key in left.keys().filter(|key| key.starts_with("ss:run:")) {
        let value: String = ::redis::cmd("GET").arg(key).query_async(&mut client).await.unwrap();
        SessionId::from_store(&value).unwrap();
    }
}
