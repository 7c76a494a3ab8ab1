//! `steer`: a running run is given something new to work on, in the way that its route knows, and
//! the client hears what became of it.

use serde_json::{Value, json};

use crate::support::{Message, Stage, Store, WebSocket, terminal_of};

async fn steer(device: &mut WebSocket, run: &str, body: Value) -> Message {
    device.ask(json!({"type": "steer", "session": "s", "run": run, "body": body})).await
}

fn route(steer: &str) -> String {
    format!("[[route]]\nmatch = \"POST /chat\"\nsteer = \"{steer}\"\nvalues = [\"run_id=json:/run_id\"]\n")
}

const FORWARD: &str = "forward POST /runs/{run_id}/input";

#[tokio::test]
async fn a_forwarded_steer_reaches_the_upstream_through_the_owner_and_leaves_a_receipt() {
    let mut stage = Stage::with(Store::Redis, &route(FORWARD)).await;
    let other = stage.another_sidecar_with(&route(FORWARD)).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event(r#"{"run_id":"7"}"#).await;
    let mut phone = other.connect_to("/chat?client=phone").await;
    phone.attach("s").await;
    while phone.entry().await.kind() != "event" {}
    let told = async {
        let told = stage.agent.asked().await;
        assert_eq!((told.path.as_str(), &told.body[..]), ("/runs/7/input", &br#"{"say":"shorter"}"#[..]));
        told.json(r#"{"consumed": true}"#).await;
    };
    let (ack, ()) = tokio::join!(steer(&mut phone, "active", json!({"say": "shorter"})), told);
    assert_eq!((ack.kind(), &ack["outcome"], &ack["run"]), ("ack", &json!("forwarded"), &json!(run.id)), "{ack}");
    let receipt = phone.collect_until(|message| message.kind() == "steer").await.pop().unwrap();
    assert_eq!((&receipt["outcome"], &receipt["consumed"]), (&json!("forwarded"), &json!(true)), "{receipt}");
    assert_eq!((&receipt["client"], &receipt["receipt"]), (&json!("phone"), &ack["receipt"]));
    run.upstream.end().await;
    phone.collect_until_terminal(&run.id).await;
}

#[tokio::test]
async fn a_steer_that_the_upstream_refuses_is_rejected() {
    let mut stage = Stage::with(Store::Embedded, &route(FORWARD)).await;
    let mut run = stage.run_in("s").await;
    let mut phone = stage.sidecar.connect_to("/chat").await;
    phone.attach("s").await;
    // The run has not said its id: the call cannot be made.
    let early = steer(&mut phone, &run.id, json!(1)).await;
    assert_eq!(early["outcome"], "rejected", "{early}");
    run.upstream.event(r#"{"run_id":"7"}"#).await;
    while phone.entry().await.kind() != "event" {}
    let told = async {
        let mut told = stage.agent.asked().await;
        told.raw("HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n").await;
    };
    let (ack, ()) = tokio::join!(steer(&mut phone, &run.id, json!(1)), told);
    assert_eq!(ack["outcome"], "rejected", "{ack}");
}

#[tokio::test]
async fn an_interrupting_steer_ends_the_run_and_begins_another() {
    let mut stage = Stage::with(Store::Embedded, &route("interrupt")).await;
    let mut run = stage.run_in("s").await;
    let mut phone = stage.sidecar.connect().await;
    phone.attach("s").await;
    let ack = steer(&mut phone, &run.id, json!({"say": "other"})).await;
    assert_eq!(ack["outcome"], "interrupted", "{ack}");
    run.upstream.closed_by_the_sidecar().await;
    let mut next = stage.agent.asked().await;
    assert_eq!((next.path.as_str(), &next.body[..]), ("/chat", &br#"{"say":"other"}"#[..]));
    next.sse().await;
    next.end().await;
    let all = phone.collect_until_terminal(ack["run"].as_str().unwrap()).await;
    assert_eq!(terminal_of(&all, &run.id)["state"], "cancelled");
}

#[tokio::test]
async fn a_queueing_steer_begins_when_the_run_has_ended() {
    let mut stage = Stage::on(Store::Embedded).await;
    let run = stage.run_in("s").await;
    let mut phone = stage.sidecar.connect().await;
    phone.attach("s").await;
    let ack = steer(&mut phone, "active", json!(2)).await;
    assert_eq!(ack["outcome"], "queued", "{ack}");
    assert_eq!(stage.agent.count(), 1);
    run.upstream.end().await;
    let mut next = stage.agent.asked().await;
    assert_eq!(next.body, b"2");
    next.sse().await;
    next.end().await;
    phone.collect_until_terminal(ack["run"].as_str().unwrap()).await;
}

/// Known failure 17: refused or impossible control messages are silent.
#[tokio::test]
async fn a_steer_that_is_not_possible_says_why() {
    let mut stage = Stage::with(Store::Embedded, &route("reject")).await;
    let mut phone = stage.sidecar.connect().await;
    let nowhere = steer(&mut phone, "active", json!(1)).await;
    assert_eq!((nowhere.kind(), &nowhere["code"]), ("error", &json!("not_found")), "{nowhere}");
    let run = stage.run_in("s").await;
    assert_eq!(steer(&mut phone, "active", json!(1)).await["outcome"], "rejected");
    run.upstream.end().await;
    phone.attach("s").await;
    phone.collect_until_terminal(&run.id).await;
    for named in ["active", &run.id] {
        let late = steer(&mut phone, named, json!(1)).await;
        assert_eq!((late.kind(), &late["code"]), ("error", &json!("conflict")), "{late}");
    }
    assert_eq!(steer(&mut phone, "nobody", json!(1)).await["code"], "not_found");
}

async fn steer_with_key(device: &mut WebSocket, key: &str, body: Value) -> Message {
    device.ask(json!({"type": "steer", "session": "s", "run": "active", "body": body, "key": key})).await
}

/// The repeat's `active` is the run that the first one began, and that run is what the user wants.
#[tokio::test]
async fn a_repeated_interrupting_steer_does_not_cancel_the_run_that_it_began() {
    let mut stage = Stage::with(Store::Redis, &route("interrupt")).await;
    let other = stage.another_sidecar_with(&route("interrupt")).await;
    let mut run = stage.run_in("s").await;
    let (mut phone, mut again) = (stage.sidecar.connect().await, other.connect().await);
    phone.attach("s").await;
    let first = steer_with_key(&mut phone, "k", json!(1)).await;
    assert_eq!(first["outcome"], "interrupted", "{first}");
    run.upstream.closed_by_the_sidecar().await;
    let mut next = stage.agent.asked().await;
    next.sse().await;
    let repeat = steer_with_key(&mut again, "k", json!(1)).await;
    assert_eq!((&repeat["outcome"], &repeat["run"]), (&json!("interrupted"), &first["run"]), "{repeat}");
    next.event(1).await;
    next.end().await;
    let begun = first["run"].as_str().unwrap();
    let all = phone.collect_until_terminal(begun).await;
    assert_eq!(terminal_of(&all, begun)["state"], "completed");
    // Nothing is active any more, and the answer is the same.
    let late = steer_with_key(&mut again, "k", json!(1)).await;
    assert_eq!((&late["outcome"], &late["run"]), (&json!("interrupted"), &first["run"]), "{late}");
    assert_eq!(steer_with_key(&mut again, "k", json!(2)).await["code"], "conflict");
    let named = again.ask(json!({"type": "steer", "session": "s", "run": begun, "body": 1, "key": "k"})).await;
    assert_eq!(named["code"], "conflict", "of another run: {named}");
    assert_eq!(stage.agent.count(), 2);
}

#[tokio::test]
async fn a_repeated_forwarded_steer_is_told_to_the_upstream_once() {
    let mut stage = Stage::with(Store::Redis, &route(FORWARD)).await;
    let other = stage.another_sidecar_with(&route(FORWARD)).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event(r#"{"run_id":"7"}"#).await;
    let (mut phone, mut again) = (stage.sidecar.connect().await, other.connect().await);
    phone.attach("s").await;
    while phone.entry().await.kind() != "event" {}
    let told = async { stage.agent.asked().await.json("{}").await };
    let (first, ()) = tokio::join!(steer_with_key(&mut phone, "k", json!(1)), told);
    assert_eq!(first["outcome"], "forwarded", "{first}");
    let asked = stage.agent.count();
    let repeat = steer_with_key(&mut again, "k", json!(1)).await;
    assert_eq!((&repeat["outcome"], &repeat["receipt"]), (&json!("forwarded"), &first["receipt"]), "{repeat}");
    run.upstream.end().await;
    phone.collect_until_terminal(&run.id).await;
    let late = steer_with_key(&mut again, "k", json!(1)).await;
    assert_eq!((&late["outcome"], &late["receipt"]), (&json!("forwarded"), &first["receipt"]), "{late}");
    assert_eq!(steer_with_key(&mut again, "k", json!(2)).await["code"], "conflict");
    assert_eq!(stage.agent.count(), asked);
}

/// A key that was refused for want of a run is not used up.
#[tokio::test]
async fn a_steer_that_came_too_early_can_be_repeated_with_its_key() {
    let mut stage = Stage::with(Store::Embedded, &route("queue")).await;
    let mut phone = stage.sidecar.connect().await;
    stage.run_in("s").await.upstream.end().await;
    phone.attach("s").await;
    while phone.entry().await["state"] != "completed" {}
    assert_eq!(steer_with_key(&mut phone, "k", json!(1)).await["code"], "conflict");
    let run = stage.run_in("s").await;
    assert_eq!(steer_with_key(&mut phone, "k", json!(2)).await["outcome"], "queued");
    run.upstream.end().await;
    let mut next = stage.agent.asked().await;
    assert_eq!(next.body, b"2");
    next.sse().await;
    next.end().await;
}

#[tokio::test]
async fn an_interrupting_steer_that_may_begin_nothing_ends_nothing() {
    let mut stage = Stage::with(Store::Embedded, &format!("{}send = false\n", route("interrupt"))).await;
    let run = stage.run_in("s").await;
    let mut phone = stage.sidecar.connect().await;
    phone.attach("s").await;
    let refused = steer(&mut phone, &run.id, json!(1)).await;
    assert_eq!((refused.kind(), &refused["code"]), ("error", &json!("forbidden")), "{refused}");
    run.upstream.end().await;
    let all = phone.collect_until_terminal(&run.id).await;
    assert_eq!(terminal_of(&all, &run.id)["state"], "completed");
}

/// An upstream that knows the key would answer what it answered to the run's own request.
#[tokio::test]
async fn what_steers_a_run_does_not_carry_the_key_of_the_send_that_began_it() {
    let mut stage = Stage::with(Store::Embedded, &route(FORWARD)).await;
    let mut phone = stage.sidecar.connect_to("/chat").await;
    phone.attach("s").await;
    let sent = phone.ask(json!({"type": "send", "session": "s", "body": 1, "key": "k"})).await;
    let mut upstream = stage.agent.asked().await;
    assert_eq!(upstream.header("idempotency-key"), Some("k"));
    upstream.sse().await;
    upstream.event(r#"{"run_id":"7"}"#).await;
    while phone.entry().await.kind() != "event" {}
    let told = async {
        let told = stage.agent.asked().await;
        assert_eq!(told.header("idempotency-key"), None);
        told.json("{}").await;
    };
    let (ack, ()) = tokio::join!(steer(&mut phone, sent["run"].as_str().unwrap(), json!(2)), told);
    assert_eq!(ack["outcome"], "forwarded", "{ack}");
}
