//! Comment lines that keep a silent connection alive.

use std::time::Duration;

use crate::support::{End, Stage, Store, events_in};

const EVERY: &str = "preset = [\"ai-sdk\"]\n[[route]]\nmatch = \"POST /chat\"\nsession = [\"json:/id\"]\nkeepalive = \"50ms\"\nresume = [\"GET /chat/{session}/stream\"]";

const LINE: &str = ": keep-alive\n";

#[tokio::test]
async fn a_silent_caller_gets_comment_lines_between_events_and_nothing_else_of_ours() {
    let mut stage = Stage::with(Store::Embedded, EVERY).await;
    let mut run = stage.answered(stage.sidecar.post("/chat").body(r#"{"id":"c"}"#)).await;
    run.caller.arrives(&LINE.repeat(2)).await;
    run.upstream.write("event: a\r\ndata: 1\r\n\r\ndata: 2\n").await;
    run.caller.arrives(&format!("\r\n\r\n{LINE}")).await;
    run.upstream.write("data: 3\n\n").await;
    run.caller.arrives(&format!("data: 2\ndata: 3\n\n{LINE}")).await;
    run.upstream.write("data: tail").await;
    run.upstream.end().await;
    let (body, end) = run.caller.whole().await;
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(
        (body.replace(LINE, "").as_str(), end),
        ("event: a\r\ndata: 1\r\n\r\ndata: 2\ndata: 3\n\ndata: tail", End::Clean)
    );
    assert!(!body.contains(": keep-alive\n\n"), "a blank line would be an empty message to some: {body}");
    let data: Vec<String> = events_in(body.as_bytes()).into_iter().map(|event| event.data).collect();
    assert_eq!(data, ["1", "2\n3"]);
}

#[tokio::test]
async fn a_length_goes_where_lines_are_added() {
    let mut stage = Stage::with(Store::Embedded, EVERY).await;
    let (answer, ()) = tokio::join!(stage.sidecar.post("/chat").send(), async {
        let mut upstream = stage.agent.asked().await;
        upstream
            .raw("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 18\r\n\r\ndata: 1\n\n")
            .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        upstream.raw("data: 2\n\n").await;
    });
    assert!(answer.headers.get("content-length").is_none());
    let (body, end) = answer.whole().await;
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!((body.replace(LINE, "").as_str(), end), ("data: 1\n\ndata: 2\n\n", End::Clean));
    assert!(body.contains(LINE), "{body}");
}

#[tokio::test]
async fn who_comes_back_gets_them_as_well() {
    let mut stage = Stage::with(Store::Embedded, EVERY).await;
    let mut run = stage.answered(stage.sidecar.post("/chat").body(r#"{"id":"c"}"#)).await;
    run.upstream.event(1).await;
    let own = format!("/_sidestream/v1/sessions/c/runs/{}/stream", run.id);
    for path in ["/chat/c/stream", own.as_str()] {
        let mut resumed = stage.sidecar.get(path).send().await;
        resumed.arrives(&format!("data: 1\n\n{LINE}{LINE}")).await;
    }
}
