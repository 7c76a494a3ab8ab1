//! Control over HTTP that cannot be done: each refusal has its status and code, and costs nobody
//! anything. Over WebSocket the promises' own modules have them.

use serde_json::{Value, json};

use crate::support::{Sidecar, Stage, Store, terminal_of};

async fn post(sidecar: &Sidecar, path: &str, body: Value) -> (u16, Value) {
    let ask = sidecar.post(format!("/_sidestream/v1/sessions/{path}")).body(body.to_string());
    let answer = ask.send().await;
    (answer.status.as_u16(), answer.json().await)
}

#[tokio::test]
async fn what_is_refused_is_said_and_neither_begins_nor_ends_nor_loses_anything() {
    let config = "intercept = [\"POST /chat\"]\nlimits.queue_depth = 1";
    let mut stage = Stage::with(Store::Embedded, config).await;
    let (status, first) = post(&stage.sidecar, "s/runs", json!({"path": "/chat", "body": 1, "key": "k"})).await;
    assert_eq!((status, &first["outcome"]), (202, &json!("started")), "{first}");
    let mut upstream = stage.agent.asked().await;
    upstream.sse().await;
    let (status, second) = post(&stage.sidecar, "s/runs", json!({"path": "/chat", "body": 2})).await;
    assert_eq!((status, &second["outcome"]), (202, &json!("queued")), "{second}");

    let refusals = [
        ("s/runs", json!({"path": "/chat", "body": 3, "key": "k"}), 409, "conflict"),
        ("s/runs", json!({"path": "/chat", "body": 3}), 429, "too_many"),
        ("s/runs", json!({"path": "/chat", "body": 3, "on_busy": "reject"}), 409, "busy"),
        ("s/runs", json!({"path": "/admin", "body": 3}), 403, "forbidden"),
        ("s/runs", json!({"path": "/chat", "body": 3, "headers": {"x-admin": "1"}}), 403, "forbidden"),
        ("s/runs", json!({"path": "/chat"}), 400, "bad_request"),
        ("s/runs", json!([]), 400, "bad_request"),
        ("s/runs/nobody/steer", json!({"body": 3}), 404, "not_found"),
        ("empty/runs/active/steer", json!({"body": 3}), 404, "not_found"),
    ];
    for (path, body, status, code) in refusals {
        let (answered, problem) = post(&stage.sidecar, path, body.clone()).await;
        assert_eq!((answered, problem["code"].as_str()), (status, Some(code)), "{path} {body}: {problem}");
        assert_eq!(problem["retryable"], matches!(code, "busy" | "too_many"), "{problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{problem}");
    }
    for path in ["s/runs/nobody/cancel", "empty/runs/active/cancel"] {
        let (status, unknown) = post(&stage.sidecar, path, json!({})).await;
        assert_eq!((status, &unknown["outcome"]), (404, &json!("not_found")), "{path}: {unknown}");
    }
    assert_eq!(stage.agent.count(), 1);

    upstream.event("still here").await;
    upstream.end().await;
    let mut upstream = stage.agent.asked().await;
    assert_eq!(upstream.body, b"2");
    upstream.sse().await;
    upstream.end().await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let all = device.collect_until_terminal(second["run"].as_str().unwrap()).await;
    let terminal = terminal_of(&all, first["run"].as_str().unwrap());
    assert_eq!((&terminal["state"], &terminal["events"]), (&json!("completed"), &json!(1)));
    // A run that has ended is neither cancelled nor steered.
    let ended = format!("s/runs/{}", first["run"].as_str().unwrap());
    let (status, again) = post(&stage.sidecar, &format!("{ended}/cancel"), json!({})).await;
    assert_eq!((status, &again["outcome"]), (200, &json!("already_ended")), "{again}");
    let (status, late) = post(&stage.sidecar, &format!("{ended}/steer"), json!({"body": 3})).await;
    assert_eq!((status, &late["code"]), (409, &json!("conflict")), "{late}");
    assert_eq!(stage.agent.count(), 2);
}
