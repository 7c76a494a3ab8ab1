//! Sessions that the backend names: in the first events of its answer, or in a JSON answer whose stream another
//! request gets.

use rstest::rstest;
use serde_json::json;

use crate::support::{Ask, End, Sidecar, Stage, Store, events_of, terminal_of, until};

const DIFY: &str = "preset = [\"dify\"]";

fn asks(sidecar: &Sidecar, conversation: &str) -> Ask {
    let body = json!({"query": "Hi", "conversation_id": conversation, "response_mode": "streaming", "user": "u"});
    sidecar.post("/v1/chat-messages").body(body.to_string())
}

fn message(text: &str) -> String {
    json!({"event": "message", "conversation_id": "conv-1", "task_id": "t", "answer": text}).to_string()
}

/// The session of a run, once it has one.
async fn session_of(sidecar: &Sidecar, run: &str) -> String {
    until("the run", async || {
        let answer = sidecar.get(format!("/_sidestream/v1/runs/{run}")).send().await;
        match answer.status.as_u16() {
            200 => Some(answer.json().await["session"].as_str().unwrap().to_owned()),
            _ => None,
        }
    })
    .await
}

async fn ended(sidecar: &Sidecar, run: &str) -> String {
    until("the run's end", async || {
        let answer = sidecar.get(format!("/_sidestream/v1/runs/{run}")).send().await.json().await;
        answer["state"].as_str().filter(|state| *state != "active").map(str::to_owned)
    })
    .await
}

#[rstest]
#[tokio::test]
async fn a_conversation_that_the_backend_makes_up_is_the_session_of_its_first_answer_and_of_the_next(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::with(store, DIFY).await;
    let (mut caller, mut upstream) = tokio::join!(asks(&stage.sidecar, "").send(), async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse().await;
        upstream
    });
    let run = caller.header("sidestream-run").to_owned();
    assert!(caller.headers.get("sidestream-session").is_none(), "it is not known yet");
    upstream.write("event: ping\n\n").await;
    caller.arrives("event: ping\n\n").await;
    let found = stage.sidecar.get(format!("/_sidestream/v1/runs/{run}")).send().await;
    assert_eq!(found.status, 404, "the run begins when its session is known");
    let first = format!("data: {}\n\n", message("He"));
    upstream.write(&first[..20]).await;
    upstream.write(&first[20..]).await;
    caller.arrives(&first).await;
    assert_eq!(session_of(&stage.sidecar, &run).await, "conv-1");
    upstream.event(message("llo")).await;
    upstream.write(": bye\n").await;
    upstream.end().await;
    let sent = format!("event: ping\n\n{first}data: {}\n\n: bye\n", message("llo"));
    assert_eq!(caller.whole().await, (sent.into(), End::Clean));
    ended(&stage.sidecar, &run).await;
    let entries = stage.sidecar.entries("conv-1").await;
    assert_eq!((&entries[0]["type"], &entries[0]["json"]), (&json!("input"), &json!("Hi")));
    assert_eq!(events_of(&entries, &run, "").len(), 2, "none is missing, none came twice");
    let next = stage.answered(asks(&stage.sidecar, "conv-1")).await;
    assert_eq!(next.session, "conv-1");
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_session_is_known_leaves_a_run() {
    let mut stage = Stage::with(Store::Embedded, DIFY).await;
    let (caller, mut upstream) = tokio::join!(asks(&stage.sidecar, "").send(), async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse().await;
        upstream
    });
    let run = caller.header("sidestream-run").to_owned();
    drop(caller);
    upstream.event(message("Hello")).await;
    upstream.event(r#"{"event":"message_end","conversation_id":"conv-1"}"#).await;
    upstream.end().await;
    assert_eq!(session_of(&stage.sidecar, &run).await, "conv-1");
    assert_eq!(ended(&stage.sidecar, &run).await, "completed");
}

#[tokio::test]
async fn a_stream_that_names_no_session_gets_one_of_its_own_and_its_caller_every_byte() {
    let mut stage = Stage::with(Store::Embedded, DIFY).await;
    for sizes in [vec![1; 40], vec![40_000, 40_000, 1], vec![200_000, 7]] {
        let (caller, mut upstream) = tokio::join!(asks(&stage.sidecar, "").send(), async {
            let mut upstream = stage.agent.asked().await;
            upstream.sse().await;
            upstream
        });
        let run = caller.header("sidestream-run").to_owned();
        let mut sent = String::new();
        let reading = tokio::spawn(caller.whole());
        for size in &sizes {
            let event = format!("data: {}\n\n", "x".repeat(*size));
            upstream.write(&event).await;
            sent.push_str(&event);
        }
        upstream.end().await;
        assert_eq!(reading.await.unwrap(), (sent.into(), End::Clean));
        let session = session_of(&stage.sidecar, &run).await;
        assert_eq!(session.len(), 32, "{session}");
        ended(&stage.sidecar, &run).await;
        assert_eq!(events_of(&stage.sidecar.entries(&session).await, &run, "").len(), sizes.len());
    }
    let said = stage.sidecar.log().matches("no event of an answer names its session").count();
    assert_eq!(said, 1, "once for the route, not for every answer");
}

#[tokio::test]
async fn an_upstream_that_breaks_off_before_it_has_named_the_session_breaks_the_caller_off() {
    let mut stage = Stage::with(Store::Embedded, DIFY).await;
    let (caller, mut upstream) = tokio::join!(asks(&stage.sidecar, "").send(), async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse().await;
        upstream
    });
    let run = caller.header("sidestream-run").to_owned();
    upstream.write("event: ping\n\ndata: {\"half").await;
    upstream.reset();
    assert_eq!(caller.whole().await, ("event: ping\n\n".into(), End::Aborted));
    let session = session_of(&stage.sidecar, &run).await;
    ended(&stage.sidecar, &run).await;
    assert_eq!(terminal_of(&stage.sidecar.entries(&session).await, &run)["state"], "failed");
}

#[tokio::test]
async fn a_caller_with_our_ids_gets_every_event_with_one() {
    let config = "[[route]]\npreset = \"dify\"\nids = \"on\"";
    let mut stage = Stage::with(Store::Embedded, config).await;
    let (mut caller, mut upstream) = tokio::join!(asks(&stage.sidecar, "").send(), async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse().await;
        upstream
    });
    upstream.event("{}").await;
    upstream.event(message("x")).await;
    while caller.arrived().windows(2).filter(|end| end == b"\n\n").count() < 2 {
        caller.more().await.unwrap();
    }
    let text = String::from_utf8(caller.arrived().to_vec()).unwrap();
    assert_eq!(text.matches("\nid: ss1.conv-1.").count(), 2, "{text}");
}

const TWO_STEPS: &str = r#"
[[route]]
match = "POST /api/agents/chat"
session = ["answer-json:/streamId"]
input = "json:/text"
[[route]]
match = "GET /api/agents/chat/stream/{stream}"
session = ["path:/api/agents/chat/stream/{session}"]
intercept = true
join = true
"#;

#[rstest]
#[tokio::test]
async fn a_post_that_is_answered_with_json_and_a_get_that_streams_share_a_session(
    #[values(Store::Embedded, Store::Redis)] store: Store,
    #[values(false, true)] chunked: bool,
) {
    let mut stage = Stage::with(store, TWO_STEPS).await;
    let answer = r#"{"streamId":"s-1","status":"started"}"#;
    let post = stage.sidecar.post("/api/agents/chat").body(r#"{"text":"Hi"}"#);
    let (started, ()) = tokio::join!(post.send(), async {
        let mut upstream = stage.agent.asked().await;
        match chunked {
            false => upstream.json(answer).await,
            true => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
                upstream.raw(head).await;
                upstream.write(&answer[..9]).await;
                upstream.write(&answer[9..]).await;
                upstream.end().await;
            }
        }
    });
    let named = started.headers.get("sidestream-session").map(|name| name.to_str().unwrap().to_owned());
    assert_eq!(named.as_deref(), (!chunked).then_some("s-1"), "where that needs no waiting");
    assert_eq!(started.whole().await, (answer.into(), End::Clean), "as it is");
    until("what was said", async || {
        let found = stage.sidecar.get("/_sidestream/v1/sessions/s-1").send().await.status == 200;
        found.then_some(())
    })
    .await;
    assert_eq!(stage.sidecar.entries("s-1").await[0]["json"], "Hi");
    let mut run = stage.answered(stage.sidecar.get("/api/agents/chat/stream/s-1")).await;
    assert_eq!(run.session, "s-1");
    run.upstream.event(1).await;
    let second = stage.sidecar.get("/api/agents/chat/stream/s-1").send().await;
    assert_eq!(second.header("sidestream-run"), run.id, "it joins");
    run.upstream.end().await;
    assert_eq!(second.whole().await, ("data: 1\n\n".into(), End::Clean));
    assert_eq!(stage.agent.count(), 2);
}

#[tokio::test]
async fn of_two_gets_at_the_same_moment_one_calls_the_upstream() {
    let mut stage = Stage::with(Store::Embedded, TWO_STEPS).await;
    let get = || tokio::spawn(stage.sidecar.get("/api/agents/chat/stream/s-1").send());
    let (one, two) = (get(), get());
    let mut upstream = stage.agent.asked().await;
    upstream.sse().await;
    upstream.event(1).await;
    upstream.end().await;
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    if two.status == 200 && one.status == 200 {
        assert_eq!(one.header("sidestream-run"), two.header("sidestream-run"));
    }
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn a_get_that_left_before_the_answer_began_has_called_the_upstream_for_the_next_one() {
    let mut stage = Stage::with(Store::Embedded, TWO_STEPS).await;
    let get = || tokio::spawn(stage.sidecar.get("/api/agents/chat/stream/s-1").send());
    let first = get();
    let mut upstream = stage.agent.asked().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let again = get();
    // It waits with the first for the upstream's head.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(stage.agent.count(), 1);
    upstream.sse().await;
    upstream.event(1).await;
    let again = again.await.unwrap();
    upstream.end().await;
    assert_eq!(again.whole().await, ("data: 1\n\n".into(), End::Clean));
    assert_eq!(stage.agent.count(), 1);
}
