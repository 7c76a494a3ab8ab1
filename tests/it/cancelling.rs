//! `cancel`: from any device, through any instance, acknowledged when it has happened. The upstream
//! connection is closed, exactly one terminal is in the log, whatever wins the race.

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{End, Message, Sidecar, Stage, Store, WebSocket, terminal_of, until};

async fn cancel(device: &mut WebSocket, session: &str, target: Value) -> Message {
    let mut message = json!({"type": "cancel", "session": session});
    message.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
    device.ask(message).await
}

/// Known failures 14 and 16: Stop works only where the run was started; Stop closes only the browser's connection.
#[rstest]
#[tokio::test]
async fn stop_from_another_device_closes_the_upstream_and_ends_the_run_everywhere(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("1").await;
    let (mut phone, mut laptop) =
        (stage.sidecar.connect_to("/_sidestream/v1/ws?client=phone").await, stage.sidecar.connect().await);
    laptop.attach("s").await;
    while laptop.entry().await["json"] != 1 {}
    let ack = cancel(&mut phone, "s", json!({"run": run.id})).await;
    assert_eq!(
        (ack.kind(), &ack["outcome"], &ack["upstream"]),
        ("ack", &json!("cancelled"), &json!("closed")),
        "{ack}"
    );
    run.upstream.closed_by_the_sidecar().await;
    let terminal = laptop.collect_until_terminal(&run.id).await.pop().unwrap();
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("cancelled"), &json!("cancel")));
    assert_eq!((&terminal["by"]["client"], &terminal["events"]), (&json!("phone"), &json!(1)));
    assert_eq!(ack["runs"][0]["offset"], terminal["offset"]);
    assert_eq!(run.caller.whole().await.1, End::Aborted);
}

#[tokio::test]
async fn stop_through_another_instance_is_the_same_stop() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("1").await;
    let mut phone = other.connect().await;
    phone.attach("s").await;
    let ack = cancel(&mut phone, "s", json!({"run": "active"})).await;
    assert_eq!((&ack["outcome"], &ack["upstream"]), (&json!("cancelled"), &json!("closed")), "{ack}");
    run.upstream.closed_by_the_sidecar().await;
    let all = phone.collect_until_terminal(&run.id).await;
    assert_eq!(terminal_of(&all, &run.id)["state"], "cancelled");
}

#[tokio::test]
async fn a_stop_over_http_answers_with_what_became_of_it() {
    let mut stage = Stage::on(Store::Embedded).await;
    let run = stage.run_in("s").await;
    let path = format!("/_sidestream/v1/sessions/s/runs/{}/cancel", run.id);
    for (status, outcome) in [(200, "cancelled"), (200, "already_ended")] {
        let answer = stage.sidecar.post(&path).send().await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.json().await["outcome"], outcome);
    }
    let unknown = stage.sidecar.post("/_sidestream/v1/sessions/s/runs/nobody/cancel").send().await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json().await["outcome"], "not_found");
}

#[tokio::test]
async fn a_page_of_another_origin_stops_nothing() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.run_in("s").await;
    let cancel = stage.sidecar.post("/_sidestream/v1/sessions/s/runs/active/cancel");
    let refused = cancel.header("origin", "https://evil.example").send().await;
    assert_eq!(refused.problem().await, (403, "forbidden".into()));
    run.upstream.event("1").await;
    run.caller.arrives("data: 1\n\n").await;
}

#[tokio::test]
async fn a_cancel_is_idempotent_and_says_what_it_found() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut phone = stage.sidecar.connect().await;
    assert_eq!(cancel(&mut phone, "s", json!({"run": "active"})).await["outcome"], "not_found");
    let run = stage.run_in("s").await;
    run.upstream.end().await;
    phone.attach("s").await;
    phone.collect_until_terminal(&run.id).await;
    for _ in 0..2 {
        let ack = cancel(&mut phone, "s", json!({"run": run.id})).await;
        assert_eq!((&ack["outcome"], &ack["runs"][0]["run"]), (&json!("already_ended"), &json!(run.id)), "{ack}");
    }
    assert_eq!(cancel(&mut phone, "s", json!({"run": "nobody"})).await["outcome"], "not_found");
    assert_eq!(cancel(&mut phone, "s", json!({"run": "active"})).await["outcome"], "not_found");
}

#[tokio::test]
async fn active_means_every_active_run() {
    let mut stage = Stage::on(Store::Embedded).await;
    let (mut one, mut two) = (stage.run_in("s").await, stage.run_in("s").await);
    let mut phone = stage.sidecar.connect().await;
    let ack = cancel(&mut phone, "s", json!({"run": "active"})).await;
    let runs: Vec<_> = ack["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap()).collect();
    assert_eq!(runs, [&one.id, &two.id]);
    one.upstream.closed_by_the_sidecar().await;
    two.upstream.closed_by_the_sidecar().await;
}

/// Known failure 15: Stop before the run has started is lost.
#[rstest]
#[tokio::test]
async fn stop_before_the_run_has_started_keeps_it_from_starting(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let stage = Stage::on(store).await;
    let mut phone = stage.sidecar.connect_to("/chat").await;
    let ack = cancel(&mut phone, "s", json!({"key": "k1"})).await;
    assert_eq!((ack.kind(), &ack["outcome"]), ("ack", &json!("cancelled")), "{ack}");
    phone.attach("s").await;
    let sent = phone.ask(json!({"type": "send", "session": "s", "body": 1, "key": "k1"})).await;
    assert_eq!(sent["outcome"], "cancelled", "{sent}");
    let run = sent["run"].as_str().unwrap();
    let all = phone.collect_until_terminal(run).await;
    assert_eq!(terminal_of(&all, run)["state"], "cancelled");
    assert_eq!(stage.agent.count(), 0, "the upstream was called");
}

/// The upstream has not even answered: its connection is closed all the same.
#[tokio::test]
async fn stop_while_the_upstream_still_thinks_closes_its_connection() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut phone = stage.sidecar.connect_to("/chat").await;
    let sent = phone.ask(json!({"type": "send", "session": "s", "body": 1})).await;
    let mut upstream = stage.agent.asked().await;
    let ack = cancel(&mut phone, "s", json!({"run": sent["run"]})).await;
    assert_eq!((&ack["outcome"], &ack["upstream"]), (&json!("cancelled"), &json!("closed")), "{ack}");
    upstream.closed_by_the_sidecar().await;
}

#[tokio::test]
async fn the_route_tells_the_upstream_in_its_own_words() {
    let config = r#"
        [[route]]
        match = "POST /chat"
        cancel = "POST /runs/{run_id}/cancel?session={session}"
        values = ["run_id=json:/metadata/run_id"]
    "#;
    let mut stage = Stage::with(Store::Embedded, config).await;
    let ask = stage.sidecar.post("/chat").header("sidestream-session", "s").header("authorization", "Bearer secret");
    let mut run = stage.answered(ask).await;
    run.upstream.event(r#"{"metadata":{"run_id":"r/7"}}"#).await;
    let mut phone = stage.sidecar.connect().await;
    phone.attach("s").await;
    while phone.entry().await.kind() != "event" {}
    let ack = cancel(&mut phone, "s", json!({"run": run.id})).await;
    assert_eq!(ack["outcome"], "cancelled");
    let told = stage.agent.asked().await;
    assert_eq!(told.path, "/runs/r%2F7/cancel?session=s");
    assert_eq!(told.header("authorization"), Some("Bearer secret"), "with the credentials of the run's own request");
}

/// A request of a backend whose own cancel Sidestream knows, the event that it answers with, and the call that follows.
struct Native {
    preset: &'static str,
    path: &'static str,
    body: &'static str,
    event: &'static str,
    call: &'static str,
    says: &'static str,
}

#[rstest]
#[case::dify(Native {
    preset: "dify",
    path: "/v1/chat-messages",
    body: r#"{"query": "hi", "user": "u-1"}"#,
    event: r#"{"event": "message", "task_id": "t/1", "conversation_id": "c", "answer": "a"}"#,
    call: "/v1/chat-messages/t%2F1/stop",
    says: r#"{"user":"u-1"}"#,
})]
#[case::dify_workflow(Native {
    preset: "dify",
    path: "/v1/workflows/run",
    body: r#"{"inputs": {}, "user": "u-1"}"#,
    event: r#"{"event": "workflow_started", "task_id": "t", "workflow_run_id": "w"}"#,
    call: "/v1/workflows/tasks/t/stop",
    says: r#"{"user":"u-1"}"#,
})]
#[case::langgraph(Native {
    preset: "langgraph",
    path: "/threads/t-1/runs/stream",
    body: "{}",
    event: r#"{"run_id": "r-1"}"#,
    call: "/threads/t-1/runs/r-1/cancel?action=interrupt",
    says: "",
})]
#[case::mcp_until_2025(Native {
    preset: "mcp",
    path: "/mcp",
    body: r#"{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {}}"#,
    event: r#"{"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}"#,
    call: "/mcp",
    says: r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#,
})]
#[case::a2a(Native {
    preset: "a2a",
    path: "/",
    body: r#"{"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": {"message": {"contextId": "c"}}}"#,
    event: r#"{"jsonrpc": "2.0", "id": 1, "result": {"task": {"id": "t-1", "contextId": "c", "status": {"state": "x"}}}}"#,
    call: "/",
    says: r#"{"id":"cancel","jsonrpc":"2.0","method":"CancelTask","params":{"id":"t-1"}}"#,
})]
#[tokio::test]
async fn a_known_backend_is_told_in_its_own_words(#[case] native: Native) {
    let mut stage = Stage::with(Store::Embedded, &format!("preset = [\"{}\"]\n", native.preset)).await;
    let ask = stage.sidecar.post(native.path).header("sidestream-session", "s").header("mcp-session-id", "m-1");
    let mut run = stage.answered(ask.header("content-type", "application/json").body(native.body)).await;
    run.upstream.event(native.event).await;
    let mut phone = stage.sidecar.connect().await;
    phone.attach("s").await;
    while phone.entry().await.kind() != "event" {}
    assert_eq!(cancel(&mut phone, "s", json!({"run": run.id})).await["outcome"], "cancelled");
    let told = stage.agent.asked().await;
    assert_eq!(told.path, native.call);
    assert_eq!(String::from_utf8_lossy(&told.body), native.says);
    assert_eq!(told.header("mcp-session-id"), (native.preset == "mcp").then_some("m-1"));
}

/// Whoever wins: one terminal, and the answer names it.
#[rstest]
#[tokio::test]
async fn a_cancel_that_races_the_end_of_the_run_leaves_one_terminal(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut phone = stage.sidecar.connect().await;
    phone.attach("s").await;
    for _ in 0..20 {
        let run = stage.run_in("s").await;
        let (ack, ()) = tokio::join!(cancel(&mut phone, "s", json!({"run": run.id})), run.upstream.end());
        let all = stage.sidecar.entries("s").await;
        let terminal = terminal_of(&all, &run.id);
        let expected = if ack["outcome"] == "cancelled" { "cancelled" } else { "completed" };
        assert_eq!(terminal["state"], expected, "{ack}");
        assert_eq!(ack["runs"][0]["offset"], terminal["offset"]);
    }
}

/// The flag is in the log before the owner hears of it, and before anybody is answered.
#[tokio::test]
async fn a_cancel_through_an_instance_that_dies_right_after_still_happens() {
    let mut stage = Stage::on(Store::Redis).await;
    let mut other = stage.another_sidecar().await;
    let mut run = stage.run_in("s").await;
    let mut redis = stage.store.redis().client().await;
    // The owner hears nothing for now.
    stage.sidecar.process().signal("STOP");
    let mut phone = other.connect().await;
    phone.send(json!({"type": "cancel", "session": "s", "run": run.id}).to_string()).await;
    until("the flag", async || {
        let active: String =
            redis::cmd("HGET").arg("ss:{default:s}:active").arg(&run.id).query_async(&mut redis).await.unwrap();
        (active.split(' ').nth(2) == Some("1")).then_some(())
    })
    .await;
    other.process().kill();
    stage.sidecar.process().signal("CONT");
    run.upstream.closed_by_the_sidecar().await;
    let mut laptop = stage.sidecar.connect().await;
    laptop.attach("s").await;
    assert_eq!(terminal_of(&laptop.collect_until_terminal(&run.id).await, &run.id)["state"], "cancelled");
}

#[tokio::test]
async fn a_closed_connection_is_only_a_disconnect() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut phone = stage.sidecar.connect_to("/chat").await;
    let sent = phone.ask(json!({"type": "send", "session": "s", "body": 1})).await;
    let mut upstream = stage.agent.asked().await;
    upstream.sse().await;
    drop(phone);
    upstream.event("1").await;
    upstream.end().await;
    let mut laptop = stage.sidecar.connect().await;
    laptop.attach("s").await;
    let run = sent["run"].as_str().unwrap();
    assert_eq!(terminal_of(&laptop.collect_until_terminal(run).await, run)["state"], "completed");
}

#[tokio::test]
async fn erasing_a_session_ends_its_runs() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.run_in("s").await;
    let erased = stage.sidecar.delete("/_sidestream/v1/sessions/s").send().await;
    assert_eq!(erased.status, 204);
    run.upstream.closed_by_the_sidecar().await;
}

#[rstest]
#[case::names_nothing(json!({}))]
#[case::names_both(json!({"run": "r", "key": "k"}))]
#[case::is_not_a_run(json!({"run": "a b"}))]
#[tokio::test]
async fn a_cancel_that_makes_no_sense_is_told_so(#[case] target: Value) {
    let sidecar = Sidecar::of("http://127.0.0.1:9").start().await;
    let refused = cancel(&mut sidecar.connect().await, "s", target).await;
    assert_eq!((refused.kind(), &refused["code"]), ("error", &json!("bad_message")), "{refused}");
}
