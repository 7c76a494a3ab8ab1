//! What is no longer in the log is said, exactly; nothing is kept for ever.

use std::collections::BTreeMap;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Ask, Message, Run, RunningStore, Stage, Store, until};

const SMALL: &str = "[store]\nmax_entries = 300\n";

/// A session whose first entries are trimmed: its run, and all that it ever had.
async fn trimmed(stage: &mut Stage) -> (Run, Vec<Message>) {
    let mut run = stage.run_in("s").await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    // So that what the sidecar read for this device and keeps for others is only the beginning.
    let mut all = device.collect_until_live().await;
    let text: String = (0..100).map(|n| format!("data: {n}\n\n")).collect();
    for _ in 0..20 {
        run.upstream.write(&text).await;
        all.extend(device.collect_until(|message| message["json"] == 99).await);
    }
    all.retain(Message::is_entry);
    assert_eq!(all.len(), 2_001);
    (run, all)
}

/// Known failure 11: a cursor older than the log is silently moved forward.
#[rstest]
#[tokio::test]
async fn a_cursor_older_than_the_log_is_told_exactly_what_it_has_lost(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::with(store, SMALL).await;
    let (_run, all) = trimmed(&mut stage).await;
    let described = stage.sidecar.get("/_sidestream/v1/sessions/s").send().await.json().await;
    let lost = all.len() as u64 - described["entries"].as_u64().unwrap();
    assert_eq!(described["tail"], all.last().unwrap().offset().to_string());
    assert!(lost > 1_000, "{described}");
    let last_lost = all[lost as usize - 1].offset();
    assert_eq!(described["trimmed"], last_lost.to_string());

    let old = all[9].offset();
    let mut device = stage.sidecar.connect().await;
    device.attach_after("s", old.to_string()).await;
    let gap = device.expect("gap").await;
    assert_eq!((&gap["from"], &gap["to"]), (&json!(old.to_string()), &json!(last_lost.to_string())));
    assert_eq!((&gap["lost"], &gap["reason"]), (&json!(lost - 10), &json!("trimmed")));
    assert_eq!(device.entry().await.offset(), all[lost as usize].offset());

    let page = format!("/_sidestream/v1/sessions/s/events?after={old}");
    let answer = stage.sidecar.get(&page).header("accept", "application/json").send().await;
    assert_eq!(answer.status, 410);
    let problem = answer.json().await;
    assert_eq!((&problem["code"], &problem["to"]), (&json!("gone"), &json!(last_lost.to_string())));
    assert_eq!(problem["lost"], json!(lost - 10));

    // From the start is what there is, and says what there was.
    let answer = stage.sidecar.get("/_sidestream/v1/sessions/s/events").header("accept", "application/json");
    let page = answer.send().await.json().await;
    assert_eq!((&page["gap"]["lost"], &page["gap"]["to"]), (&json!(lost), &json!(last_lost.to_string())));
    assert_eq!(page["entries"][0]["offset"], all[lost as usize].offset().to_string());
}

#[tokio::test]
async fn a_run_whose_beginning_is_trimmed_is_gone_as_sse_before_any_body() {
    let mut stage = Stage::with(Store::Embedded, SMALL).await;
    let (run, all) = trimmed(&mut stage).await;
    let path = format!("/_sidestream/v1/sessions/s/runs/{}/stream", run.id);
    assert_eq!(stage.sidecar.get(&path).send().await.problem().await, (410, "gone".into()));
    let newest = all[1_990].offset();
    let answer = stage.sidecar.get(format!("{path}?after={newest}")).send().await;
    assert_eq!(answer.status, 200);
}

/// Known failure 6: a reconnect after the log has expired starts a second generation.
#[rstest]
#[case::get("GET")]
#[case::post("POST")]
#[tokio::test]
async fn a_reconnect_after_the_log_has_expired_never_asks_the_upstream(
    #[case] method: &str,
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let config = "[store]\nttl = \"1s\"\n[[route]]\nmatch = \"* /chat\"\nids = \"on\"";
    let mut stage = Stage::with(store, config).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("1").await;
    run.caller.arrives("\n\n").await;
    let body = String::from_utf8(run.caller.arrived().to_vec()).unwrap();
    let last = body.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    run.upstream.end().await;
    run.caller.whole().await;
    until("the session's expiry", async || {
        (stage.sidecar.get("/_sidestream/v1/sessions/s").send().await.status != 200).then_some(())
    })
    .await;
    let ask = Ask::new(method.parse().unwrap(), &stage.sidecar.url(), "/chat").header("last-event-id", last);
    let answer = ask.body("{}").send().await;
    assert!(matches!(answer.status.as_u16(), 404 | 410), "{answer:?}");
    assert_eq!(stage.agent.count(), 1);
}

#[rstest]
#[tokio::test]
async fn a_reader_of_an_expired_session_is_told_so(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::with(store, "[store]\nttl = \"1s\"").await;
    let mut run = stage.run_in("s").await;
    run.upstream.write("data: 1\n\ndata: 2\n\n").await;
    run.upstream.end().await;
    run.caller.whole().await;
    let all = stage.sidecar.entries("s").await;
    let (first, last) = (all[0].offset(), all[3].offset());
    let path = "/_sidestream/v1/sessions/s";
    let expired = until("the session's expiry", async || {
        let answer = stage.sidecar.get(path).send().await;
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(expired.await.problem().await, (410, "gone".into()));
    let mut device = stage.sidecar.connect().await;
    device.attach_after("s", first.to_string()).await;
    let gap = device.expect("gap").await;
    assert_eq!((&gap["reason"], &gap["to"], &gap["lost"]), (&json!("expired"), &json!(last.to_string()), &json!(3)));
    // Its offsets are never used again.
    let next = stage.run_in("s").await;
    let started = device.entry().await;
    assert_eq!((&started["run"], started.offset().seq), (&json!(next.id), last.seq + 1));
}

/// Known failure 20: keys without an end stay for ever.
#[tokio::test]
async fn every_key_in_redis_ends_by_itself() {
    let mut stage = Stage::on(Store::Redis).await;
    let RunningStore::Redis(server) = &stage.store else { unreachable!("it was asked for") };
    let mut redis = server.client().await;
    let mut run = stage.run_in("ended").await;
    run.upstream.event("1").await;
    run.upstream.end().await;
    run.caller.whole().await;
    let active = stage.run_in("active").await;
    let mut forever = BTreeMap::new();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
    assert!(keys.len() > 3, "{keys:?}");
    for key in keys {
        assert!(key.starts_with("ss:"), "{key}");
        let ttl: i64 = redis::cmd("TTL").arg(&key).query_async(&mut redis).await.unwrap();
        if ttl == -1 {
            forever.insert(key, ttl);
        }
    }
    assert_eq!(forever, BTreeMap::new());
    drop(active);
}

#[tokio::test]
async fn other_programs_read_the_stream_with_any_client() {
    let mut stage = Stage::on(Store::Redis).await;
    let RunningStore::Redis(server) = &stage.store else { unreachable!("it was asked for") };
    let mut redis = server.client().await;
    let mut run = stage.run_in("s").await;
    run.upstream.write("event: delta\nid: 7\ndata: {\"a\": 1}\n\n").await;
    run.upstream.end().await;
    run.caller.whole().await;
    type Fields = Vec<(String, BTreeMap<String, String>)>;
    let key = "ss:{default:s}:log";
    let stream: Fields = redis::cmd("XRANGE").arg(key).arg("-").arg("+").query_async(&mut redis).await.unwrap();
    let entries = stage.sidecar.entries("s").await;
    assert_eq!(stream.len(), entries.len());
    for ((id, _), entry) in stream.iter().zip(&entries) {
        assert_eq!(*id, entry.offset().to_string(), "an offset is the stream's own id");
    }
    let field = |name: &str| stream[1].1.get(name).map(String::as_str);
    assert_eq!((field("kind"), field("event"), field("id")), (None, Some("delta"), Some("7")));
    assert_eq!((field("data"), field("run")), (Some("{\"a\": 1}"), Some(run.id.as_str())));
    assert_eq!(stream[0].1["kind"], "run");
    let details: Value = serde_json::from_str(&stream[2].1["data"]).unwrap();
    assert_eq!((stream[2].1["event"].as_str(), &details["events"]), ("completed", &json!(1)));
}
