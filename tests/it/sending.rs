//! `send`: a client begins a run, over WebSocket or HTTP; every device sees what it said, and the
//! same key never begins a second run.

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Asked, Sidecar, Stage, Store, WebSocket, events_of, terminal_of};

/// A socket that was opened at the upstream's own path.
async fn at_chat(sidecar: &Sidecar) -> WebSocket {
    sidecar.connect_to("/chat?client=phone").await
}

fn send(session: &str, fields: Value) -> Value {
    let mut message = json!({"type": "send", "session": session, "body": {"message": "hi"}});
    message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    message
}

/// Answers with one event, and ends.
async fn answer(mut upstream: Asked, data: &str) {
    upstream.sse().await;
    upstream.event(data).await;
    upstream.end().await;
}

#[rstest]
#[tokio::test]
async fn a_send_begins_a_run_and_every_device_sees_the_question_and_the_answer(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let (mut phone, mut laptop) = (at_chat(&stage.sidecar).await, stage.sidecar.connect().await);
    laptop.attach("s").await;
    let ack = phone.ask(send("s", json!({}))).await;
    assert_eq!((ack.kind(), &ack["outcome"], &ack["session"]), ("ack", &json!("started"), &json!("s")));
    let upstream = stage.agent.asked().await;
    assert_eq!((upstream.path.as_str(), &upstream.body[..]), ("/chat", &br#"{"message":"hi"}"#[..]));
    assert_eq!(upstream.header("content-type"), Some("application/json"));
    answer(upstream, "1").await;
    let run = ack["run"].as_str().unwrap();
    let all = laptop.collect_until_terminal(run).await;
    let kinds: Vec<_> = all.iter().filter(|m| m.is_entry()).map(|m| m.kind().to_owned()).collect();
    assert_eq!(kinds, ["input", "run", "status", "event", "run"]);
    let input = all.iter().find(|message| message.kind() == "input").unwrap();
    assert_eq!((&input["json"], &input["client"]), (&json!({"message": "hi"}), &json!("phone")));
    let terminal = terminal_of(&all, run);
    assert_eq!((&terminal["state"], &terminal["upstream_status"]), (&json!("completed"), &json!(200)));
}

#[tokio::test]
async fn a_send_over_http_is_the_same_send() {
    let mut stage = Stage::on(Store::Embedded).await;
    let ask = stage.sidecar.post("/_sidestream/v1/sessions/s/runs").header("sidestream-client", "cli");
    let answered = ask.body(r#"{"path": "/chat?x=1", "body": [1, 2], "source": "planner"}"#).send().await;
    assert_eq!(answered.status, 202);
    let sent = answered.json().await;
    assert_eq!((&sent["outcome"], &sent["session"]), (&json!("started"), &json!("s")));
    let upstream = stage.agent.asked().await;
    assert_eq!((upstream.path.as_str(), &upstream.body[..]), ("/chat?x=1", &b"[1, 2]"[..]));
    answer(upstream, "1").await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let all = device.collect_until_terminal(sent["run"].as_str().unwrap()).await;
    let event = all.iter().find(|message| message.kind() == "event").unwrap();
    assert_eq!(event["source"], "planner");
}

#[tokio::test]
async fn a_send_without_a_session_gets_a_new_one() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut phone = at_chat(&stage.sidecar).await;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let ack = phone.ask(json!({"type": "send", "body": 1})).await;
        sessions.push(ack["session"].as_str().unwrap().to_owned());
        answer(stage.agent.asked().await, "1").await;
    }
    assert_ne!(sessions[0], sessions[1]);
}

#[rstest]
#[case::that_is_good(200, "completed", "result")]
#[case::that_is_an_error(503, "failed", "upstream_status")]
#[tokio::test]
async fn an_answer_that_is_no_stream_ends_the_run_with_its_status_and_body(
    #[case] status: u16,
    #[case] state: &str,
    #[case] reason: &str,
) {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut phone = at_chat(&stage.sidecar).await;
    phone.attach("s").await;
    let ack = phone.ask(send("s", json!({}))).await;
    let mut upstream = stage.agent.asked().await;
    let body = r#"{"detail": "x"}"#;
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
    upstream.raw(format!("{head}\r\n\r\n{body}")).await;
    let run = ack["run"].as_str().unwrap();
    let all = phone.collect_until_terminal(run).await;
    let result = all.iter().find(|message| message.kind() == "result").unwrap();
    assert_eq!((&result["status"], &result["json"]), (&json!(status), &json!({"detail": "x"})));
    let terminal = terminal_of(&all, run);
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!(state), &json!(reason)));
    assert_eq!(terminal["upstream_status"], json!(status));
    // The run in its own dialect is the same answer.
    let again = stage.sidecar.get(format!("/_sidestream/v1/sessions/s/runs/{run}/stream")).send().await;
    assert_eq!((again.status.as_u16(), again.header("content-type")), (status, "application/json"));
    assert_eq!(again.whole().await.0, body);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_fails_the_run_and_says_why() {
    let sidecar = Sidecar::of("http://127.0.0.1:9").start().await;
    let mut phone = at_chat(&sidecar).await;
    phone.attach("s").await;
    let ack = phone.ask(send("s", json!({}))).await;
    let run = ack["run"].as_str().unwrap();
    let all = phone.collect_until_terminal(run).await;
    let terminal = terminal_of(&all, run);
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("failed"), &json!("upstream_unreachable")));
}

/// Known failure 7: a phone that resumes sends again, and there are two runs, two bills.
#[rstest]
#[tokio::test]
async fn a_phone_that_sends_again_after_a_reconnect_joins_its_run(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut phone = at_chat(&stage.sidecar).await;
    let first = phone.ask(send("s", json!({"key": "k1"}))).await;
    let upstream = stage.agent.asked().await;
    assert_eq!(upstream.header("idempotency-key"), Some("k1"));
    drop(phone);
    let mut phone = at_chat(&stage.sidecar).await;
    let again = phone.ask(send("s", json!({"key": "k1"}))).await;
    assert_eq!((&again["outcome"], &again["run"]), (&json!("joined"), &first["run"]));
    assert_eq!(again["offset"], first["offset"]);
    answer(upstream, "1").await;
    phone.attach("s").await;
    phone.collect_until_terminal(first["run"].as_str().unwrap()).await;
    let late = phone.ask(send("s", json!({"key": "k1"}))).await;
    assert_eq!((&late["outcome"], &late["run"]), (&json!("joined"), &first["run"]));
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn the_same_key_through_two_instances_at_once_begins_one_run() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let (mut a, mut b) = (at_chat(&stage.sidecar).await, at_chat(&other).await);
    for n in 0..20 {
        let key = json!({"key": format!("k{n}"), "on_busy": "parallel"});
        let (one, two) = tokio::join!(a.ask(send("s", key.clone())), b.ask(send("s", key)));
        assert_eq!(one["run"], two["run"], "{one} {two}");
        answer(stage.agent.asked().await, "1").await;
    }
    assert_eq!(stage.agent.count(), 20);
}

/// The symptom: the second was told that it had joined a run that nobody began.
#[rstest]
#[tokio::test]
async fn the_same_key_twice_at_once_through_one_instance_is_told_the_truth_twice(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let (mut a, mut b) = (at_chat(&stage.sidecar).await, at_chat(&stage.sidecar).await);
    a.ask(send("s", json!({}))).await;
    let _upstream = stage.agent.asked().await;
    for n in 0..8 {
        let key = json!({"key": format!("k{n}"), "on_busy": "queue"});
        let (one, two) = tokio::join!(a.ask(send("s", key.clone())), b.ask(send("s", key)));
        assert_eq!((&one["outcome"], &one["run"]), (&two["outcome"], &two["run"]), "{one} {two}");
        assert_eq!(one["outcome"], "queued");
        let reject = json!({"key": format!("r{n}"), "on_busy": "reject"});
        let (one, two) = tokio::join!(a.ask(send("s", reject.clone())), b.ask(send("s", reject)));
        assert_eq!((&one["code"], &two["code"]), (&json!("busy"), &json!("busy")), "{one} {two}");
    }
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn a_key_that_is_used_for_another_body_is_refused() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut phone = at_chat(&stage.sidecar).await;
    phone.ask(send("s", json!({"key": "k1"}))).await;
    answer(stage.agent.asked().await, "1").await;
    let refused = phone.ask(send("s", json!({"key": "k1", "body": {"message": "another"}}))).await;
    assert_eq!((refused.kind(), &refused["code"], &refused["retryable"]), ("error", &json!("conflict"), &json!(false)));
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn the_clients_credentials_go_with_its_request_and_are_not_kept() {
    let mut stage = Stage::on(Store::Redis).await;
    let headers = [("authorization", "Bearer secret"), ("cookie", "sid=secret")];
    let mut phone = WebSocket::open(&stage.sidecar.url(), "/chat", &headers).await.unwrap();
    phone.expect("welcome").await;
    let ack = phone.ask(send("s", json!({"headers": {"accept-language": "de"}}))).await;
    assert_eq!(ack["outcome"], "started");
    let upstream = stage.agent.asked().await;
    assert_eq!(upstream.header("authorization"), Some("Bearer secret"));
    assert_eq!(upstream.header("cookie"), Some("sid=secret"));
    assert_eq!(upstream.header("accept-language"), Some("de"));
    answer(upstream, "1").await;
    let entries = format!("{:?}", stage.sidecar.entries("s").await);
    assert!(!entries.contains("secret") && !stage.sidecar.log().contains("secret"));
}

#[rstest]
#[case::outside_the_allow_list(json!({"path": "/admin/delete"}), "forbidden")]
#[case::to_our_own_routes(json!({"path": "/_sidestream/v1/sessions/s/runs"}), "forbidden")]
#[case::by_a_method_that_is_not_recorded(json!({"method": "GET"}), "forbidden")]
#[case::by_a_method_that_echoes_credentials(json!({"method": "TRACE", "path": "/t/1"}), "bad_request")]
#[case::by_a_method_that_opens_a_tunnel(json!({"method": "CONNECT", "path": "/t/1"}), "bad_request")]
#[case::out_of_the_route_by_dots(json!({"path": "/t/../admin"}), "bad_request")]
#[case::out_of_the_route_by_encoded_dots(json!({"path": "/t/%2E%2e/admin"}), "bad_request")]
#[case::out_of_the_route_by_encoded_slashes(json!({"path": "/t/x%2f..%2f..%2fadmin"}), "bad_request")]
#[case::out_of_the_route_by_backslashes(json!({"path": "/t/..\\admin"}), "bad_request")]
#[case::with_a_header_that_is_not_allowed(json!({"headers": {"x-admin": "1"}}), "forbidden")]
#[case::to_another_host(json!({"path": "http://evil.example/"}), "bad_request")]
#[case::to_a_session_that_only_the_server_names(json!({"session": "~abc"}), "not_found")]
#[case::with_an_unknown_policy(json!({"on_busy": "wait"}), "bad_message")]
#[tokio::test]
async fn a_send_that_is_not_allowed_is_told_so_and_nothing_is_begun(#[case] fields: Value, #[case] code: &str) {
    let stage =
        Stage::with(Store::Embedded, "intercept = [\"POST /chat\"]\n[[route]]\nmatch = \"* /t/*\"\nsend = true").await;
    let mut phone = at_chat(&stage.sidecar).await;
    let refused = phone.ask(send("s", fields)).await;
    assert_eq!((refused.kind(), refused["code"].as_str()), ("error", Some(code)), "{refused}");
    assert_eq!(stage.agent.count(), 0);
    assert_eq!(phone.ask(json!({"type": "attach", "session": "s"})).await["code"], "not_found");
}

#[tokio::test]
async fn a_send_on_a_socket_without_a_path_must_name_one() {
    let stage = Stage::on(Store::Embedded).await;
    let mut phone = stage.sidecar.connect().await;
    let refused = phone.ask(send("s", json!({}))).await;
    assert_eq!((refused.kind(), refused["code"].as_str()), ("error", Some("bad_request")), "{refused}");
}

#[tokio::test]
async fn a_sent_run_is_read_to_its_end_when_nobody_is_there() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut phone = at_chat(&stage.sidecar).await;
    let ack = phone.ask(send("s", json!({}))).await;
    drop(phone);
    let mut upstream = stage.agent.asked().await;
    upstream.sse().await;
    for n in 0..10 {
        upstream.event(n).await;
    }
    upstream.end().await;
    let mut laptop = stage.sidecar.connect().await;
    laptop.attach("s").await;
    let run = ack["run"].as_str().unwrap();
    let all = laptop.collect_until_terminal(run).await;
    assert_eq!(events_of(&all, run, "").len(), 10);
}

/// A backend resolves `..`: an allowed prefix would be a way to every route, with the credential that
/// the operator has lent to queued runs of this one.
#[tokio::test]
async fn a_send_does_not_climb_out_of_the_routes_that_are_allowed() {
    let routes = "[[route]]\nmatch = \"* /agents/*\"\n[[route]]\nmatch = \"* /*\"\nsend = false\n";
    let stage = Stage::with(Store::Embedded, routes).await;
    let mut phone = stage.sidecar.connect().await;
    for path in ["/agents/../admin", "/agents/%2E%2e/admin", "/agents/x%2f..%2F..%2fadmin", "/agents/./x"] {
        let refused = phone.ask(send("s", json!({"path": path}))).await;
        assert_eq!((refused.kind(), &refused["code"]), ("error", &json!("bad_request")), "{path}: {refused}");
    }
    let refused = phone.ask(send("s", json!({"path": "/admin"}))).await;
    assert_eq!(refused["code"], "forbidden", "{refused}");
    assert_eq!(stage.agent.count(), 0);
}

#[tokio::test]
async fn a_body_that_is_no_object_is_told_so_in_the_words_of_the_protocol() {
    let stage = Stage::on(Store::Embedded).await;
    for body in ["[]", "7", r#"["s", 1]"#, ""] {
        let ask = stage.sidecar.post("/_sidestream/v1/sessions/s/runs").header("content-type", "application/json");
        let refused = ask.body(body).send().await;
        assert_eq!(refused.status, 400, "{body}");
        let problem = refused.json().await;
        assert_eq!(problem["detail"], "this is not a JSON object", "{body}");
    }
    let mut phone = stage.sidecar.connect().await;
    phone.send("[]").await;
    let refused = phone.expect("error").await;
    assert_eq!(refused["message"], "a message is one JSON object with a `type`: this is not a JSON object");
}
