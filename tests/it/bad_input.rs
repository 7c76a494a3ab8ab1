//! What clients should not send: each is answered with what is wrong, and the socket stays open
//! where it can.

use rstest::rstest;
use serde_json::json;
use tokio_tungstenite::tungstenite;

use crate::support::{Stage, Store, WebSocket};

/// Sends a text and expects an error with this code; then the socket still answers.
async fn refused(device: &mut WebSocket, text: &str, code: &str) {
    device.send(text.to_owned()).await;
    let error = device.expect("error").await;
    assert_eq!(error["code"], code, "{text}: {error}");
    assert_eq!(error["retryable"], false, "{error}");
    assert!(!error["message"].as_str().unwrap().is_empty());
    assert_eq!(device.ask(json!({"type": "ping"})).await.kind(), "pong", "after {text}");
}

#[tokio::test]
async fn a_message_that_makes_no_sense_is_answered_and_the_socket_stays_open() {
    let stage = Stage::on(Store::Embedded).await;
    let mut device = stage.sidecar.connect().await;
    for (text, code) in [
        ("", "bad_message"),
        ("not json", "bad_message"),
        ("[]", "bad_message"),
        ("42", "bad_message"),
        ("{\"type\":\"ping\"", "bad_message"),
        ("{}", "bad_message"),
        (r#"{"type":7}"#, "bad_message"),
        (r#"{"type":"dance"}"#, "unknown_type"),
        (r#"{"type":"attach"}"#, "bad_message"),
        (r#"{"type":"attach","session":"a b"}"#, "bad_message"),
        (r#"{"type":"attach","session":"../x"}"#, "bad_message"),
        (r#"{"type":"attach","session":7}"#, "bad_message"),
        (r#"{"type":"attach","session":"s","runs":"r"}"#, "bad_message"),
        (r#"{"type":"attach","session":"s","replay":"maybe"}"#, "bad_message"),
        (r#"{"type":"detach","session":"s"}"#, "not_found"),
        (r#"{"type":"ping","ref":{}}"#, "bad_message"),
    ] {
        refused(&mut device, text, code).await;
    }
    assert_eq!(stage.agent.count(), 0);
}

#[tokio::test]
async fn the_answer_to_a_bad_message_carries_its_ref() {
    let stage = Stage::on(Store::Embedded).await;
    let mut device = stage.sidecar.connect().await;
    assert_eq!(device.ask(json!({"type": "dance"})).await["code"], "unknown_type");
    assert_eq!(device.ask(json!({"type": "attach", "session": "s", "after": "now"})).await["code"], "bad_offset");
    device.send(r#"{"type":"ping","ref":17.50}"#).await;
    let pong = device.expect("pong").await;
    assert!(pong.to_string().contains("17.50"), "verbatim: {pong}");
}

#[tokio::test]
async fn a_binary_message_is_refused_and_the_socket_stays_open() {
    let stage = Stage::on(Store::Embedded).await;
    let mut device = stage.sidecar.connect().await;
    device.send_frame(tungstenite::Message::binary(&b"{\"type\":\"ping\"}"[..])).await;
    assert_eq!(device.expect("error").await["code"], "bad_message");
    assert_eq!(device.ask(json!({"type": "ping"})).await.kind(), "pong");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_said_to_be_and_closes_with_1009() {
    let stage = Stage::with(Store::Embedded, "[limits]\nmessage_bytes = \"4KiB\"").await;
    let mut device = stage.sidecar.connect().await;
    let padded = |length: usize| format!(r#"{{"type":"ping","pad":"{}"}}"#, "x".repeat(length));
    device.send(padded(4_000)).await;
    device.expect("pong").await;
    device.send(padded(5_000)).await;
    assert_eq!(device.expect("error").await["code"], "too_large");
    assert_eq!(device.closed().await, Some(1009));
}

/// Known failure 12: a cursor that is not ours silently restarts from the beginning.
#[rstest]
#[tokio::test]
async fn a_cursor_that_is_not_ours_is_a_clear_error(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("1").await;
    run.caller.arrives("data: 1\n\n").await;
    let mut device = stage.sidecar.connect().await;
    let future = format!("{}-1", u64::MAX / 2);
    let bad = ["17", "-1", "1-", "01-1", "1-1-1", "ss1.s.r.1-1", "evt_123", "\u{663}-1", " 1-1", &future];
    for after in bad {
        let error = device.ask(json!({"type": "attach", "session": "s", "after": after})).await;
        assert_eq!((error.kind(), &error["code"]), ("error", &json!("bad_offset")), "{after}: {error}");
    }
    for after in [json!(17), json!({"last": -1}), json!({"first": 1}), json!([]), json!({"since_ms": "x"})] {
        let error = device.ask(json!({"type": "attach", "session": "s", "after": after})).await;
        assert_eq!((error.kind(), &error["code"]), ("error", &json!("bad_offset")), "{after}: {error}");
    }
    let paths =
        ["/_sidestream/v1/sessions/s/events".to_owned(), format!("/_sidestream/v1/sessions/s/runs/{}/stream", run.id)];
    for path in paths {
        for after in ["17", "evt_123", "01-1", &future] {
            let answer = stage.sidecar.get(format!("{path}?after={after}")).send().await;
            assert_eq!(answer.problem().await, (400, "bad_offset".into()), "{path} {after}");
        }
    }
    let answer = stage.sidecar.get("/_sidestream/v1/sessions/s/events").header("last-event-id", "evt_123").send().await;
    assert_eq!(answer.problem().await, (400, "bad_offset".into()));
    let url = stage.sidecar.url();
    let refused = WebSocket::open(&url, "/_sidestream/v1/ws?session=s&after=17", &[]).await.err().unwrap();
    assert_eq!((refused.status.as_u16(), refused.code.as_str()), (400, "bad_offset"));
}

/// Known failure 12 once more: an offset in our form, but of another session.
#[rstest]
#[tokio::test]
async fn a_cursor_of_another_session_is_a_gap_that_is_said(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut other = stage.run_in("other").await;
    for n in 0..5 {
        other.upstream.event(n).await;
        other.caller.arrives(&format!("data: {n}\n\n")).await;
    }
    let foreign = stage.sidecar.entries("other").await.last().unwrap().offset();
    let mut run = stage.run_in("s").await;
    for n in 0..2 {
        run.upstream.event(n).await;
        run.caller.arrives(&format!("data: {n}\n\n")).await;
    }
    let mut device = stage.sidecar.connect().await;
    device.attach_after("s", foreign.to_string()).await;
    // The client checks that what follows the gap is contiguous from `to` on.
    let gap = device.expect("gap").await;
    assert_eq!(gap["reason"], "rolled_back");
    assert_eq!(device.entry().await.offset().seq, 1);
    let answer = stage.sidecar.get(format!("/_sidestream/v1/sessions/s/events?after={foreign}"));
    let answer = answer.header("accept", "application/json").send().await;
    assert_eq!(answer.problem().await, (410, "gone".into()));
}

#[tokio::test]
async fn an_id_that_is_no_id_is_refused_over_http() {
    let stage = Stage::on(Store::Embedded).await;
    for path in ["sessions/a%20b", "sessions/a%2Fb/events", "runs/a%20b", "sessions/s/runs/a%20b/stream"] {
        let answer = stage.sidecar.get(format!("/_sidestream/v1/{path}")).send().await;
        assert_eq!(answer.problem().await, (400, "bad_request".into()), "{path}");
    }
    let answer = stage.sidecar.post("/_sidestream/v1/runs/r").send().await;
    assert_eq!(answer.problem().await, (405, "method_not_allowed".into()));
}
