//! What a `send` does while its route is busy: beside, after, instead, or not at all. What waits is
//! seen and withdrawn by any device, and outlives the instance that took it.

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Message, Sidecar, Stage, Store, WebSocket, terminal_of};

async fn send(device: &mut WebSocket, body: Value, fields: Value) -> Message {
    let mut message = json!({"type": "send", "session": "s", "body": body});
    message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    device.ask(message).await
}

async fn queue(device: &mut WebSocket) -> Vec<Value> {
    device.ask(json!({"type": "queue", "session": "s"})).await["items"].as_array().unwrap().clone()
}

async fn at_chat(sidecar: &Sidecar) -> WebSocket {
    let mut device = sidecar.connect_to("/chat?client=phone").await;
    device.attach("s").await;
    device
}

#[rstest]
#[tokio::test]
async fn a_follow_up_waits_for_the_end_of_the_run_before_it(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut phone = at_chat(&stage.sidecar).await;
    let first = send(&mut phone, json!(1), json!({})).await;
    let mut upstream = stage.agent.asked().await;
    upstream.sse().await;
    let second = send(&mut phone, json!(2), json!({"key": "k2"})).await;
    let third = send(&mut phone, json!(3), json!({"key": "k3"})).await;
    assert_eq!((&second["outcome"], &second["position"]), (&json!("queued"), &json!(1)), "{second}");
    assert_eq!((&third["outcome"], &third["position"]), (&json!("queued"), &json!(2)), "{third}");
    let again = send(&mut phone, json!(3), json!({"key": "k3"})).await;
    assert_eq!((&again["outcome"], &again["run"]), (&json!("queued"), &third["run"]), "a repeat waits once");
    let items = queue(&mut phone).await;
    assert_eq!(items.len(), 2);
    assert_eq!(
        (&items[0]["key"], &items[0]["run"], &items[0]["client"]),
        (&json!("k2"), &second["run"], &json!("phone"))
    );
    assert_eq!((&items[0]["input"], &items[1]["input"]), (&json!(2), &json!(3)));
    assert_eq!(stage.agent.count(), 1, "the follow-up began before its time");
    upstream.end().await;
    for (run, body) in [(&second, "2"), (&third, "3")] {
        let mut upstream = stage.agent.asked().await;
        assert_eq!(upstream.body, body.as_bytes());
        upstream.sse().await;
        upstream.end().await;
        phone.collect_until_terminal(run["run"].as_str().unwrap()).await;
    }
    let all = stage.sidecar.entries("s").await;
    let inputs: Vec<_> = all.iter().filter(|m| m.kind() == "input").map(|m| m["json"].clone()).collect();
    assert_eq!(inputs, [1, 2, 3]);
    assert_eq!(terminal_of(&all, first["run"].as_str().unwrap())["state"], "completed");
    assert!(queue(&mut phone).await.is_empty());
}

#[tokio::test]
async fn what_waits_is_withdrawn_by_another_device() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let (mut phone, mut laptop) = (at_chat(&stage.sidecar).await, at_chat(&other).await);
    send(&mut phone, json!(1), json!({})).await;
    let mut upstream = stage.agent.asked().await;
    upstream.sse().await;
    let waiting = send(&mut phone, json!(2), json!({"key": "k2"})).await;
    let ack = laptop.ask(json!({"type": "cancel", "session": "s", "key": "k2"})).await;
    assert_eq!((&ack["outcome"], &ack["runs"][0]["outcome"]), (&json!("cancelled"), &json!("withdrawn")), "{ack}");
    assert_eq!(ack["runs"][0]["run"], waiting["run"]);
    assert!(queue(&mut phone).await.is_empty());
    let again = send(&mut phone, json!(2), json!({"key": "k2"})).await;
    assert_eq!(again["outcome"], "cancelled", "a repeat of what was withdrawn begins nothing: {again}");
    upstream.end().await;
    phone.collect_until(|message| message["state"] == "completed").await;
    assert_eq!(stage.agent.count(), 1);
}

#[rstest]
#[tokio::test]
async fn every_device_is_told_when_what_waits_has_changed(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let (mut phone, mut laptop) = (at_chat(&stage.sidecar).await, at_chat(&stage.sidecar).await);
    send(&mut phone, json!(1), json!({})).await;
    let mut upstream = stage.agent.asked().await;
    for (key, after) in [("k2", 1), ("k3", 2)] {
        send(&mut phone, json!(key), json!({"key": key})).await;
        laptop.collect_until(|message| message.kind() == "queue").await;
        assert_eq!(queue(&mut laptop).await.len(), after);
    }
    phone.ask(json!({"type": "cancel", "session": "s", "key": "k2"})).await;
    laptop.collect_until(|message| message.kind() == "queue").await;
    assert_eq!(queue(&mut laptop).await.len(), 1);
    upstream.sse().await;
    upstream.end().await;
    let _second = stage.agent.asked().await;
    laptop.collect_until(|message| message.kind() == "queue").await;
    assert!(queue(&mut laptop).await.is_empty());
}

#[tokio::test]
async fn what_waits_is_listed_and_withdrawn_over_http() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut phone = at_chat(&stage.sidecar).await;
    send(&mut phone, json!(1), json!({})).await;
    let _upstream = stage.agent.asked().await;
    send(&mut phone, json!(2), json!({"key": "k/2"})).await;
    let list = stage.sidecar.get("/_sidestream/v1/sessions/s/queue").send().await.json().await;
    assert_eq!(list["items"][0]["key"], "k/2");
    let withdrawn = stage.sidecar.delete("/_sidestream/v1/sessions/s/queue/k%2F2").send().await;
    assert_eq!(withdrawn.status, 200);
    let begun = send(&mut phone, json!(3), json!({"key": "k3", "on_busy": "parallel"})).await;
    assert_eq!(begun["outcome"], "started");
    let not_waiting = stage.sidecar.delete("/_sidestream/v1/sessions/s/queue/k3").send().await;
    assert_eq!(not_waiting.status, 404, "what has begun is not withdrawn");
    assert!(queue(&mut phone).await.is_empty());
}

#[tokio::test]
async fn parallel_begins_beside_reject_does_not_and_interrupt_begins_instead() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut phone = at_chat(&stage.sidecar).await;
    let first = send(&mut phone, json!(1), json!({})).await;
    let mut one = stage.agent.asked().await;
    one.sse().await;
    let beside = send(&mut phone, json!(2), json!({"on_busy": "parallel"})).await;
    assert_eq!(beside["outcome"], "started");
    let mut two = stage.agent.asked().await;
    two.sse().await;
    let refused = send(&mut phone, json!(3), json!({"on_busy": "reject"})).await;
    assert_eq!((refused.kind(), &refused["code"], &refused["retryable"]), ("error", &json!("busy"), &json!(true)));
    let waiting = send(&mut phone, json!(4), json!({"key": "k4"})).await;
    assert_eq!(waiting["outcome"], "queued");
    let instead = send(&mut phone, json!(5), json!({"on_busy": "interrupt"})).await;
    assert_eq!(instead["outcome"], "started", "{instead}");
    assert_eq!(instead["interrupted"], json!([first["run"], beside["run"], waiting["run"]]));
    one.closed_by_the_sidecar().await;
    two.closed_by_the_sidecar().await;
    let mut three = stage.agent.asked().await;
    assert_eq!(three.body, b"5");
    three.sse().await;
    three.end().await;
    phone.collect_until_terminal(instead["run"].as_str().unwrap()).await;
    assert_eq!(stage.agent.count(), 3);
}

/// The symptom: with every run that it ended, the next one that waited called the upstream.
#[rstest]
#[tokio::test]
async fn what_waits_is_not_begun_by_a_send_that_interrupts(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut phone = at_chat(&stage.sidecar).await;
    let mut active = send(&mut phone, json!(0), json!({})).await;
    let mut upstream = stage.agent.asked().await;
    for round in 1..6 {
        let mut expected = vec![active["run"].clone()];
        for _ in 0..4 {
            let waiting = send(&mut phone, json!("waits"), json!({})).await;
            assert_eq!(waiting["outcome"], "queued");
            expected.push(waiting["run"].clone());
        }
        active = send(&mut phone, json!(round), json!({"on_busy": "interrupt"})).await;
        assert_eq!((&active["outcome"], &active["interrupted"]), (&json!("started"), &json!(expected)), "{active}");
        upstream.closed_by_the_sidecar().await;
        upstream = stage.agent.asked().await;
        assert_eq!(upstream.body, round.to_string().as_bytes());
    }
    assert!(queue(&mut phone).await.is_empty());
}

#[tokio::test]
async fn the_route_says_what_to_do_where_the_send_does_not() {
    let config = "[[route]]\nmatch = \"POST /chat\"\non_busy = \"reject\"";
    let mut stage = Stage::with(Store::Embedded, config).await;
    let mut phone = at_chat(&stage.sidecar).await;
    send(&mut phone, json!(1), json!({})).await;
    let _upstream = stage.agent.asked().await;
    assert_eq!(send(&mut phone, json!(2), json!({})).await["code"], "busy");
}

#[tokio::test]
async fn a_queue_that_is_too_long_refuses_and_loses_nothing() {
    let mut stage = Stage::with(Store::Embedded, "limits.queue_depth = 2").await;
    let mut phone = at_chat(&stage.sidecar).await;
    send(&mut phone, json!(1), json!({})).await;
    let mut upstream = stage.agent.asked().await;
    for n in 2..4 {
        assert_eq!(send(&mut phone, json!(n), json!({})).await["outcome"], "queued");
    }
    let refused = send(&mut phone, json!(4), json!({})).await;
    assert_eq!((refused.kind(), &refused["code"]), ("error", &json!("too_many")), "{refused}");
    upstream.sse().await;
    upstream.end().await;
    for n in 2..4 {
        let mut upstream = stage.agent.asked().await;
        assert_eq!(upstream.body, n.to_string().as_bytes());
        upstream.sse().await;
        upstream.end().await;
    }
}

#[tokio::test]
async fn a_client_with_credentials_waits_only_where_the_route_has_its_own() {
    let key = std::env::temp_dir().join(format!("sidestream-credential-{}", std::process::id()));
    std::fs::write(&key, "Bearer service").unwrap();
    let vouching = format!("[[route]]\nmatch = \"POST /vouched\"\ncredential = \"file:{}\"", key.display());
    let mut stage = Stage::with(Store::Embedded, &vouching).await;
    let headers = [("authorization", "Bearer mine")];
    let mut phone = WebSocket::open(&stage.sidecar.url(), "/chat", &headers).await.unwrap();
    phone.expect("welcome").await;
    phone.attach("s").await;
    for path in ["/chat", "/vouched"] {
        send(&mut phone, json!(1), json!({"path": path})).await;
        let mut upstream = stage.agent.asked().await;
        assert_eq!(upstream.header("authorization"), Some("Bearer mine"));
        let waiting = send(&mut phone, json!(2), json!({"path": path})).await;
        if path == "/chat" {
            assert_eq!((waiting.kind(), &waiting["code"]), ("error", &json!("busy")), "{waiting}");
            assert!(waiting["message"].as_str().unwrap().contains("credential"));
            continue;
        }
        assert_eq!(waiting["outcome"], "queued", "{waiting}");
        upstream.sse().await;
        upstream.end().await;
        assert_eq!(stage.agent.asked().await.header("authorization"), Some("Bearer service"));
    }
    std::fs::remove_file(key).unwrap();
}

/// The symptom: after a deploy that named the route, the second that waited never began.
#[tokio::test]
async fn what_waits_begins_in_its_turn_though_its_route_has_another_name_by_now() {
    let mut stage = Stage::on(Store::Redis).await;
    let mut phone = at_chat(&stage.sidecar).await;
    send(&mut phone, json!(1), json!({})).await;
    let _upstream = stage.agent.asked().await;
    for n in 2..5 {
        assert_eq!(send(&mut phone, json!(n), json!({})).await["outcome"], "queued");
    }
    let _next = stage.another_sidecar_with("[[route]]\nmatch = \"POST /chat\"").await;
    stage.sidecar.process().kill();
    for n in 2..5 {
        let mut upstream = stage.agent.asked().await;
        assert_eq!(upstream.body, n.to_string().as_bytes());
        upstream.sse().await;
        upstream.end().await;
    }
}

#[tokio::test]
async fn what_waits_outlives_a_restart_of_the_only_instance() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = crate::support::ScriptedAgent::start().await;
    let store = format!("file:{}", dir.path().display());
    let mut sidecar = Sidecar::of(agent.url()).store(store).start().await;
    let mut phone = at_chat(&sidecar).await;
    let first = send(&mut phone, json!(1), json!({})).await;
    let upstream = agent.asked().await;
    let second = send(&mut phone, json!(2), json!({})).await;
    assert_eq!(second["outcome"], "queued");
    sidecar.process().kill();
    drop(upstream);
    let sidecar = sidecar.restart().await;
    let mut next = agent.asked().await;
    assert_eq!(next.body, b"2");
    next.sse().await;
    next.end().await;
    let mut phone = at_chat(&sidecar).await;
    let all = phone.collect_until_terminal(second["run"].as_str().unwrap()).await;
    assert_eq!(terminal_of(&all, first["run"].as_str().unwrap())["state"], "interrupted");
}
