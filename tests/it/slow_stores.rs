//! A store that does not answer for a while: the direct caller is served all the same, and the log
//! is whole when it answers again.

use serde_json::json;

use crate::support::{
    End, RedisServerOptions, Run, RunningStore, ScriptedAgent, Sidecar, SseClient, Stage, Store, events_of,
    terminal_of, until,
};

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
async fn nothing_is_lost_and_nothing_comes_twice_while_redis_is_killed_and_started_again_with_its_data() {
    let server = RedisServerOptions::default().directive("appendonly yes").directive("appendfsync always").start();
    let agent = ScriptedAgent::start().await;
    let sidecar = Sidecar::of(agent.url()).store(server.url()).config(EAGER).start().await;
    let mut stage = Stage { sidecar, agent, store: RunningStore::Redis(server) };
    let (mut run, mut silent) = (stage.run_in("s").await, stage.run_in("s").await);
    let mut device = stage.sidecar.connect_to("/chat").await;
    device.attach("s").await;
    run.upstream.event(0).await;
    run.caller.arrives("data: 0\n\n").await;
    stage.store.redis().kill();
    // Who has a socket is told, and keeps it; what it asks for is refused for the time being.
    device.collect_until(|message| message.kind() == "status" && message["code"] == "store_unavailable").await;
    for asked in [
        json!({"type": "send", "session": "s", "body": 1}),
        json!({"type": "publish", "session": "s", "data": 1}),
        json!({"type": "cancel", "session": "s", "run": silent.id}),
    ] {
        let refused = device.ask(asked).await;
        let (code, retryable) = (&refused["code"], &refused["retryable"]);
        assert_eq!(
            (refused.kind(), code, retryable),
            ("error", &json!("store_unavailable"), &json!(true)),
            "{refused}"
        );
    }
    for n in 1..20 {
        run.upstream.event(n).await;
        run.caller.arrives(&format!("data: {n}\n\n")).await;
    }
    // A new request is passed through.
    let answered = async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse().await;
        upstream.event("new").await;
        upstream.end().await;
    };
    let (caller, ()) = tokio::join!(stage.sidecar.post("/chat").send(), answered);
    assert_eq!(caller.header("sidestream-durable"), "no");
    assert_eq!(caller.whole().await, ("data: new\n\n".into(), End::Clean));

    stage.store.redis().restart();
    let mut all = device.collect_until(|message| message.kind() == "status" && message["code"] == "ok").await;
    silent.upstream.event("still").await;
    silent.caller.arrives("data: still\n\n").await;
    run.upstream.event(20).await;
    run.upstream.end().await;
    let (body, end) = run.caller.whole().await;
    let expected: String = (0..=20).map(|n| format!("data: {n}\n\n")).collect();
    assert_eq!((std::str::from_utf8(&body).unwrap(), end), (&*expected, End::Clean));
    all.extend(device.collect_until_terminal(&run.id).await);
    silent.upstream.end().await;
    if !all.iter().any(|entry| entry.is_terminal() && entry["run"] == silent.id) {
        all.extend(device.collect_until_terminal(&silent.id).await);
    }
    let log = stage.sidecar.entries("s").await;
    for (run, expected) in
        [(&run.id, (0..=20).map(|n| n.to_string()).collect()), (&silent.id, vec!["still".to_owned()])]
    {
        let data: Vec<String> = events_of(&log, run, "").into_iter().map(|event| event.data).collect();
        assert_eq!(data, expected);
        assert_eq!(terminal_of(&log, run)["state"], "completed");
    }
    assert!(log.iter().any(|entry| entry.kind() == "status" && entry["code"] == "eager"));
    assert!(!log.iter().any(|entry| entry["code"] == "lost"));
}

#[tokio::test]
async fn a_caller_with_our_ids_is_cut_off_in_an_outage_and_comes_back_for_the_rest() {
    let ids = "[[route]]\nmatch = \"* /chat\"\nids = \"on\"\nintercept = true\n";
    let config = format!("{ids}[store]\neager_after = \"100ms\"\noutage_limit = \"1s\"");
    let mut stage = Stage::with(Store::Redis, &config).await;
    let Run { id, caller, mut upstream, .. } = stage.run_in("s").await;
    let mut reader = SseClient::new(caller);
    upstream.event("1").await;
    let first = reader.next().await.unwrap();
    stage.store.redis().freeze();
    upstream.event("2").await;
    assert!(reader.next().await.is_err(), "it gets something that is not in the log");
    stage.store.redis().thaw();
    let answer = until("the store", async || {
        let ask = stage.sidecar.post("/chat").header("last-event-id", &first.id).header("accept", "text/event-stream");
        let answer = ask.send().await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.header("sidestream-run"), id);
    let mut reader = SseClient::new(answer);
    assert_eq!(reader.next().await.unwrap().data, "2");
    let log = until("the end", async || {
        let log = stage.sidecar.entries("s").await;
        log.iter().any(|entry| entry.is_terminal()).then_some(log)
    })
    .await;
    // Nobody was left for whom it could have gone on.
    assert_eq!(terminal_of(&log, &id)["reason"], "store_unavailable");
}

#[tokio::test]
async fn a_caller_streams_on_when_more_comes_than_may_wait_for_the_store() {
    let limits = "[limits]\nevent_bytes = \"256KiB\"\npending_bytes = \"1MiB\"";
    let mut stage = Stage::with(Store::Redis, &format!("{EAGER}\n{limits}")).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event(0).await;
    run.caller.arrives("data: 0\n\n").await;
    stage.store.redis().freeze();
    let large = "x".repeat(200 << 10);
    for n in 1..20 {
        run.upstream.event(format!("{n}{large}")).await;
        run.caller.arrives(&format!("data: {n}{large}\n\n")).await;
    }
    run.upstream.end().await;
    assert_eq!(run.caller.whole().await.1, End::Clean);
    stage.store.redis().thaw();
    let log = until("the terminal", async || {
        let path = "/_sidestream/v1/sessions/s/events?after=start";
        let answer = stage.sidecar.get(path).header("accept", "application/json").send().await;
        if answer.status != 200 {
            return None;
        }
        let log = stage.sidecar.entries("s").await;
        log.iter().any(|entry| entry.is_terminal()).then_some(log)
    })
    .await;
    let terminal = terminal_of(&log, &run.id);
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("failed"), &json!("store_unavailable")));
    let stored = events_of(&log, &run.id, "").len();
    assert!((2..20).contains(&stored), "{stored}");
    let eager = log.iter().find(|entry| entry["code"] == "eager").unwrap();
    assert_eq!((&eager["first_n"], &eager["last_n"]), (&json!(3), &json!(stored + 1)));
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
