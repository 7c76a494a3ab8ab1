//! A store that does not answer for a while: the direct caller is served all the same, and the log
//! is whole when it answers again.

use serde_json::json;

use crate::support::{End, Run, Stage, Store, events_of, terminal_of, until};

const EAGER: &str = "[store]\neager_after = \"100ms\"";

/// A run whose caller has read its first event; then the store freezes.
async fn frozen() -> (Stage, Run) {
    let mut stage = Stage::with(Store::Redis, EAGER).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event(0).await;
    run.caller.arrives("data: 0\n\n").await;
    stage.store.redis().freeze();
    (stage, run)
}

#[tokio::test]
async fn a_caller_is_served_while_the_store_is_frozen_and_nothing_is_missing_when_it_thaws() {
    let (mut stage, mut run) = frozen().await;
    for n in 1..50 {
        run.upstream.event(n).await;
        run.caller.arrives(&format!("data: {n}\n\n")).await;
    }
    stage.store.redis().thaw();
    let mut device = until("a device", async || {
        let mut device = stage.sidecar.connect().await;
        let attached = device.ask(json!({"type": "attach", "session": "s"})).await;
        (attached.kind() == "attached").then_some(device)
    })
    .await;
    run.upstream.event(50).await;
    run.upstream.end().await;
    assert_eq!(run.caller.whole().await.1, End::Clean);
    let all = device.collect_until_terminal(&run.id).await;
    let data: Vec<String> = events_of(&all, &run.id, "").into_iter().map(|event| event.data).collect();
    assert_eq!(data, (0..=50).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(terminal_of(&all, &run.id)["state"], "completed");
    let eager: Vec<_> = all.iter().filter(|entry| entry.kind() == "status" && entry["code"] == "eager").collect();
    assert!(!eager.is_empty(), "the log says what was served before it was stored: {all:?}");
}

#[tokio::test]
async fn a_run_that_ends_while_the_store_is_frozen_is_completed_once_it_thaws() {
    let (mut stage, mut run) = frozen().await;
    run.upstream.event(1).await;
    run.caller.arrives("data: 1\n\n").await;
    run.upstream.end().await;
    assert_eq!(run.caller.whole().await.1, End::Clean);
    stage.store.redis().thaw();
    let all = until("the terminal", async || {
        let path = "/_sidestream/v1/sessions/s";
        let described = stage.sidecar.get(path).send().await;
        if described.status != 200 || described.json().await["runs"] != json!([]) {
            return None;
        }
        Some(stage.sidecar.entries("s").await)
    })
    .await;
    assert_eq!(events_of(&all, &run.id, "").len(), 2);
    assert_eq!(terminal_of(&all, &run.id)["state"], "completed");
}

#[tokio::test]
async fn a_session_that_the_store_has_lost_is_rolled_back_for_its_readers_and_not_erased() {
    let mut stage = Stage::on(Store::Redis).await;
    let path = "/_sidestream/v1/sessions/s/events";
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    assert_eq!(stage.sidecar.post(path).body(r#"{"data":"a"}"#).send().await.status, 200);
    let lost = device.entry().await.offset().to_string();
    let mut redis = stage.store.redis().client().await;
    redis::cmd("FLUSHALL").query_async::<()>(&mut redis).await.unwrap();
    // A lost connection makes its followers look at once; a silent session is looked at less often.
    let kill = ["KILL", "TYPE", "pubsub"];
    redis::cmd("CLIENT").arg(&kill).query_async::<u64>(&mut redis).await.unwrap();
    let gap = device.expect("gap").await;
    assert_eq!((&gap["from"], &gap["to"]), (&json!(lost), &json!("0-0")));
    assert_eq!((&gap["lost"], &gap["reason"]), (&json!(1), &json!("rolled_back")));

    assert_eq!(stage.sidecar.post(path).body(r#"{"data":"b"}"#).send().await.status, 200);
    assert_eq!(device.entry().await["text"], "b");
}
