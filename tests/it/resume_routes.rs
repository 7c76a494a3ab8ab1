//! Resume routes: a page that is loaded again asks at the backend's own URL for the answer that is being given.

use rstest::rstest;

use crate::support::{Ask, End, Run, Sidecar, Stage, Store, events_in, until};

/// What `useChat` posts.
fn asks(sidecar: &Sidecar, path: &str, chat: &str) -> Ask {
    let message = r#"{"id":"m1","role":"user","parts":[{"type":"text","text":"Hi"}]}"#;
    let body = format!(r#"{{"id":"{chat}","messages":[{message}],"trigger":"submit-message"}}"#);
    sidecar.post(path).body(body)
}

async fn ended(stage: &Stage, run: &str) {
    until("the run's end", async || {
        let run = stage.sidecar.get(format!("/_sidestream/v1/runs/{run}")).send().await.json().await;
        (run["state"] == "completed").then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn a_page_that_is_loaded_again_gets_the_whole_message_from_its_start(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::with(store, "preset = [\"ai-sdk\"]").await;
    let Run { session, id, mut caller, mut upstream } =
        stage.answered(asks(&stage.sidecar, "/api/chat", "chat-1")).await;
    assert_eq!(session, "chat-1");
    let events = [r#"{"type":"start","messageId":"a"}"#, r#"{"type":"text-delta","id":"0","delta":"He"}"#];
    for event in events {
        upstream.event(event).await;
    }
    caller.arrives("\n\n").await;
    drop(caller);
    let resumed = stage.sidecar.get("/api/chat/chat-1/stream").send().await;
    assert_eq!((resumed.status.as_u16(), resumed.header("sidestream-run")), (200, &*id));
    assert_eq!(resumed.header("content-type"), "text/event-stream");
    upstream.event(r#"{"type":"finish"}"#).await;
    upstream.event("[DONE]").await;
    upstream.end().await;
    let (body, end) = resumed.whole().await;
    let data: Vec<String> = events_in(&body).into_iter().map(|event| event.data).collect();
    assert_eq!(
        (data, end),
        ([events[0], events[1], r#"{"type":"finish"}"#, "[DONE]"].map(str::to_owned).into(), End::Clean)
    );
    ended(&stage, &id).await;
    assert_eq!(stage.sidecar.get("/api/chat/chat-1/stream").send().await.status, 204, "nothing to resume any more");
    assert_eq!(stage.agent.count(), 1, "the upstream is asked nothing");
    let input = &stage.sidecar.entries("chat-1").await[0];
    assert_eq!((&input["type"], &input["json"]["role"]), (&"input".into(), &"user".into()));
}

#[tokio::test]
async fn nothing_to_resume_is_204_also_for_a_chat_that_nobody_knows() {
    let stage = Stage::with(Store::Embedded, "preset = [\"ai-sdk\"]").await;
    assert_eq!(stage.sidecar.get("/api/chat/never/stream").send().await.status, 204);
    assert_eq!(stage.agent.count(), 0);
}

#[tokio::test]
async fn a_chat_whose_id_is_no_session_id_is_found_all_the_same() {
    let mut stage = Stage::with(Store::Embedded, "preset = [\"ai-sdk\"]").await;
    let mut run = stage.answered(asks(&stage.sidecar, "/api/chat", "chat 42/ä")).await;
    assert!(run.session.starts_with('~'));
    run.upstream.event(1).await;
    let resumed = stage.sidecar.get("/api/chat/chat%2042%2F%C3%A4/stream").send().await;
    assert_eq!(resumed.header("sidestream-run"), run.id);
}

#[tokio::test]
async fn a_resume_route_gives_runs_of_its_own_family_alone() {
    let config = "[[route]]\nmatch = \"POST /title\"\nsession = [\"json:/id\"]\n[[route]]\npreset = \"ai-sdk\"\nbase = \"/api/my-chat\"";
    let mut stage = Stage::with(Store::Embedded, config).await;
    let other = stage.answered(asks(&stage.sidecar, "/title", "c")).await;
    assert_eq!(stage.sidecar.get("/api/my-chat/c/stream").send().await.status, 204);
    let run = stage.answered(asks(&stage.sidecar, "/api/my-chat", "c")).await;
    assert_eq!((&run.session, &other.session), (&"c".to_owned(), &"c".to_owned()));
    let resumed = stage.sidecar.get("/api/my-chat/c/stream").send().await;
    assert_eq!(resumed.header("sidestream-run"), run.id);
    // What the preset does not name stays the upstream's.
    let (answer, ()) = tokio::join!(stage.sidecar.get("/api/chat/c/stream").send(), async {
        stage.agent.asked().await.json("{}").await;
    });
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_cursor_gives_the_rest() {
    let mut stage = Stage::with(Store::Embedded, "preset = [\"ai-sdk\"]").await;
    let mut run = stage.answered(asks(&stage.sidecar, "/api/chat", "c")).await;
    run.upstream.event(1).await;
    run.caller.arrives("data: 1\n\n").await;
    let entries = stage.sidecar.entries("c").await;
    let first = entries.iter().find(|entry| entry["type"] == "event").unwrap()["offset"].as_str().unwrap().to_owned();
    run.upstream.event(2).await;
    let rest = stage.sidecar.get(format!("/api/chat/c/stream?after={first}")).send().await;
    run.upstream.event(r#"{"type":"finish"}"#).await;
    run.upstream.event("[DONE]").await;
    run.upstream.end().await;
    let expected = "data: 2\n\ndata: {\"type\":\"finish\"}\n\ndata: [DONE]\n\n";
    assert_eq!(rest.whole().await, (expected.into(), End::Clean));
    let wrong = stage.sidecar.get("/api/chat/c/stream?after=x").send().await;
    assert_eq!(wrong.problem().await, (400, "bad_offset".into()));
}

#[tokio::test]
async fn a_page_of_another_origin_may_read_what_the_upstream_let_it_read() {
    let mut stage = Stage::with(Store::Embedded, "preset = [\"ai-sdk\"]").await;
    let origin = "https://app.example";
    let ask = asks(&stage.sidecar, "/api/chat", "c").header("origin", origin);
    let (caller, mut upstream) = tokio::join!(ask.send(), async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse_with("access-control-allow-origin: https://app.example\r\n").await;
        upstream
    });
    let run = caller.header("sidestream-run").to_owned();
    let get = || stage.sidecar.get("/api/chat/c/stream").header("origin", origin).send();
    let resumed = get().await;
    assert_eq!(resumed.header("access-control-allow-origin"), origin);
    assert!(resumed.header("access-control-expose-headers").contains("Sidestream-Run"));
    upstream.event(r#"{"type":"finish"}"#).await;
    upstream.event("[DONE]").await;
    upstream.end().await;
    ended(&stage, &run).await;
    let nothing = get().await;
    assert_eq!((nothing.status.as_u16(), nothing.header("access-control-allow-origin")), (204, origin));
}
