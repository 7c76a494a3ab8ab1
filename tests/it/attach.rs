//! Attaching to a session over WebSocket: where reading starts, and what a client is told.

use rstest::rstest;
use serde_json::json;

use crate::support::{Message, Refused, Stage, Store, WebSocket, events_of, until};

/// A session with one completed run of `events` events, and all its entries.
async fn told(stage: &mut Stage, session: &str, events: u32) -> Vec<Message> {
    let mut run = stage.run_in(session).await;
    for n in 1..=events {
        run.upstream.event(n).await;
    }
    run.upstream.end().await;
    let mut device = stage.sidecar.connect().await;
    device.attach(session).await;
    device.collect_until_terminal(&run.id).await
}

fn offsets(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.offset().to_string()).collect()
}

#[rstest]
#[tokio::test]
async fn reading_starts_where_after_says(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let all = told(&mut stage, "s", 10).await;
    let tail = all.last().unwrap().offset();
    let since = all[6].offset().ms;
    let from_then = all.iter().position(|entry| entry.offset().ms >= since).unwrap();
    for (after, first) in [
        (json!("start"), 0),
        (json!("end"), all.len()),
        (json!("0-0"), 0),
        (json!(all[4].offset().to_string()), 5),
        (json!(tail.to_string()), all.len()),
        (json!({"last": 3}), all.len() - 3),
        (json!({"last": 0}), all.len()),
        (json!({"last": 10_000}), 0),
        (json!({"since_ms": since}), from_then),
        (json!({"since_ms": 0}), 0),
        (json!({"since_ms": tail.ms + 3_600_000}), all.len()),
    ] {
        let mut device = stage.sidecar.connect().await;
        let attached = device.attach_after("s", after.clone()).await;
        assert_eq!(attached["tail"], tail.to_string(), "{after}");
        assert_eq!(attached["replaying"], first < all.len(), "{after}");
        let read = device.collect_until_live().await;
        assert_eq!(offsets(&read), offsets(&all[first..]), "{after}");
        assert!(read.iter().all(|entry| entry["replay"] == true), "{after}");
    }
}

#[rstest]
#[tokio::test]
async fn a_device_that_attaches_in_the_middle_of_a_run_is_told_what_is_active_and_what_is_live(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("1").await;
    run.caller.arrives("data: 1\n\n").await;
    let mut device = stage.sidecar.connect().await;
    let attached = device.attach("s").await;
    let started = run.caller.header("sidestream-offset");
    assert_eq!(attached["runs"], json!([{"run": run.id, "started": started, "state": "active"}]));
    let replay = device.collect_until_live().await;
    assert_eq!(replay.len(), 2);
    run.upstream.event("2").await;
    let live = device.next().await;
    assert_eq!((&live["json"], live["replay"].is_null()), (&json!(2), true), "{live}");
    run.upstream.end().await;
    device.collect_until_terminal(&run.id).await;
    let mut late = stage.sidecar.connect().await;
    assert_eq!(late.attach("s").await["runs"], json!([]));
}

#[rstest]
#[tokio::test]
async fn a_device_may_come_before_the_session(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut device = stage.sidecar.connect().await;
    let attached = device.attach_with("not-yet", json!({"create": true})).await;
    assert_eq!((&attached["offset"], &attached["tail"]), (&json!("0-0"), &json!("0-0")));
    device.expect("live").await;
    let mut run = stage.run_in("not-yet").await;
    run.upstream.event("1").await;
    run.upstream.end().await;
    let entries = device.collect_until_terminal(&run.id).await;
    assert_eq!(entries[0].offset().seq, 1);
    assert_eq!(events_of(&entries, &run.id, "").len(), 1);
}

#[rstest]
#[tokio::test]
async fn a_device_that_knows_more_than_the_store_is_told_that_all_of_it_is_gone(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut device = stage.sidecar.connect().await;
    device.attach_with("lost", json!({"create": true, "after": "1795257031891-7"})).await;
    let gap = device.expect("gap").await;
    assert_eq!((&gap["to"], &gap["lost"], &gap["reason"]), (&json!("0-0"), &json!(7), &json!("rolled_back")));
    device.expect("live").await;
    let run = stage.run_in("lost").await;
    run.upstream.end().await;
    assert_eq!(device.collect_until_terminal(&run.id).await[0].offset().seq, 1);
}

#[rstest]
#[tokio::test]
async fn an_unknown_session_is_not_found_and_the_socket_stays_open(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let stage = Stage::on(store).await;
    let mut device = stage.sidecar.connect().await;
    let refused = device.ask(json!({"type": "attach", "session": "unknown"})).await;
    assert_eq!(
        (refused.kind(), &refused["code"], &refused["session"]),
        ("error", &json!("not_found"), &json!("unknown"))
    );
    assert_eq!(device.ask(json!({"type": "ping"})).await.kind(), "pong");
    let answer = stage.sidecar.get("/_sidestream/v1/sessions/unknown/events").send().await;
    assert_eq!(answer.problem().await, (404, "not_found".into()));
    let answer = stage.sidecar.get("/_sidestream/v1/sessions/unknown").send().await;
    assert_eq!(answer.problem().await, (404, "not_found".into()));
    let answer = stage.sidecar.get("/_sidestream/v1/runs/unknown").send().await;
    assert_eq!(answer.problem().await, (404, "not_found".into()));
}

#[tokio::test]
async fn a_session_named_in_the_url_is_attached_at_once() {
    let mut stage = Stage::on(Store::Embedded).await;
    let all = told(&mut stage, "s", 3).await;
    let after = all[1].offset();
    let mut device = stage.sidecar.connect_to(&format!("/any/path?session=s&after={after}")).await;
    let attached = device.expect("attached").await;
    assert_eq!(attached["offset"], after.to_string());
    assert_eq!(offsets(&device.collect_until_live().await), offsets(&all[2..]));
}

#[tokio::test]
async fn an_unknown_session_in_the_url_closes_with_4404_unless_it_may_be_created() {
    let stage = Stage::on(Store::Embedded).await;
    let mut device = stage.sidecar.connect_to("/_sidestream/v1/ws?session=unknown").await;
    assert_eq!(device.expect("error").await["code"], "not_found");
    assert_eq!(device.closed().await, Some(4404));
    let mut device = stage.sidecar.connect_to("/_sidestream/v1/ws?session=unknown&create=1").await;
    assert_eq!(device.expect("attached").await["tail"], "0-0");
}

#[rstest]
#[tokio::test]
async fn one_socket_follows_several_sessions_until_it_detaches(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut device = stage.sidecar.connect().await;
    let mut runs = Vec::new();
    for session in ["a", "b", "c"] {
        device.attach(session).await;
        runs.push(stage.run_in(session).await);
    }
    for n in 0..10 {
        for run in &mut runs {
            run.upstream.event(n).await;
        }
    }
    let mut seen = [0; 3];
    while seen != [11; 3] {
        let entry = device.entry().await;
        seen[["a", "b", "c"].iter().position(|name| entry.session() == Some(name)).unwrap()] += 1;
    }
    assert_eq!(device.ask(json!({"type": "detach", "session": "b"})).await.kind(), "ack");
    let again = device.ask(json!({"type": "detach", "session": "b"})).await;
    assert_eq!((again.kind(), &again["code"]), ("error", &json!("not_found")));
    for run in &mut runs {
        run.upstream.event("\"later\"").await;
        run.caller.arrives("data: \"later\"\n\n").await;
    }
    for _ in 0..2 {
        assert_ne!(device.entry().await.session(), Some("b"));
    }
    let attached = device.attach_after("b", json!({"last": 1})).await;
    assert_eq!(attached["runs"][0]["run"], runs[1].id);
    assert_eq!(device.entry().await["json"], "later");
}

#[tokio::test]
async fn a_session_is_attached_once_on_a_socket() {
    let mut stage = Stage::on(Store::Embedded).await;
    told(&mut stage, "s", 1).await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let refused = device.ask(json!({"type": "attach", "session": "s"})).await;
    assert_eq!((refused.kind(), &refused["code"]), ("error", &json!("conflict")));
}

#[tokio::test]
async fn sockets_and_sessions_beyond_the_limits_are_refused_with_what_to_do() {
    let stage = Stage::with(Store::Embedded, "[limits]\nsockets = 2\nsessions_per_socket = 2").await;
    let (mut one, two) = (stage.sidecar.connect().await, stage.sidecar.connect().await);
    let refused = WebSocket::open(&stage.sidecar.url(), "/chat", &[]).await.err().unwrap();
    assert_eq!((refused.status.as_u16(), refused.code.as_str()), (429, "too_many"));
    one.attach("a").await;
    one.attach("b").await;
    let refused = one.ask(json!({"type": "attach", "session": "c", "create": true})).await;
    assert_eq!((refused.kind(), &refused["code"], &refused["retryable"]), ("error", &json!("too_many"), &json!(true)));
    drop(two);
    until("the place of a socket that left", async || WebSocket::open(&stage.sidecar.url(), "/chat", &[]).await.ok())
        .await;
}

#[tokio::test]
async fn a_page_of_another_origin_may_not_connect() {
    let config = "[server]\ncors_origins = [\"https://app.example.com\"]";
    let stage = Stage::with(Store::Embedded, config).await;
    let (url, own) = (stage.sidecar.url(), stage.sidecar.url());
    for path in ["/_sidestream/v1/ws", "/chat"] {
        let open = async |origin: &str| WebSocket::open(&url, path, &[("origin", origin)]).await;
        for origin in ["https://evil.example", "null", "http://127.0.0.1:1", "https://app.example.com.evil.example"] {
            let Refused { status, code } = open(origin).await.err().unwrap_or_else(|| panic!("{origin} was let in"));
            assert_eq!((status.as_u16(), code.as_str()), (403, "forbidden"), "{origin}");
        }
        assert!(open(&own).await.is_ok(), "the same origin");
        assert!(open("https://app.example.com").await.is_ok(), "an origin that is configured");
    }
    assert_eq!(stage.agent.count(), 0);
}

#[tokio::test]
async fn the_reserved_path_answers_a_plain_request_with_what_is_missing() {
    let stage = Stage::on(Store::Embedded).await;
    let answer = stage.sidecar.get("/_sidestream/v1/ws").send().await;
    assert_eq!(answer.problem().await, (400, "bad_request".into()));
    let answer = stage.sidecar.get("/_sidestream/v1/nothing").send().await;
    assert_eq!(answer.problem().await, (404, "not_found".into()));
    assert_eq!(stage.agent.count(), 0, "below the prefix nothing is forwarded");
}

#[tokio::test]
async fn an_idle_socket_is_pinged_as_its_welcome_says() {
    let stage = Stage::on(Store::Embedded).await;
    let mut device = WebSocket::open(&stage.sidecar.url(), "/_sidestream/v1/ws", &[]).await.unwrap();
    let welcome = device.expect("welcome").await;
    assert_eq!(welcome["heartbeat_ms"], 25_000);
    assert!(welcome["max_message_bytes"].as_u64().unwrap() >= 1 << 16);
    assert!(welcome["reconnect"]["min_ms"].as_u64() < welcome["reconnect"]["max_ms"].as_u64());
    device.expect("ping").await;
}
