//! What real wires do beside sending events: large ones, comments, heads, redirects, old HTTP.

use http::Method;
use rstest::rstest;
use serde_json::json;

use super::fidelity::kept;
use crate::support::{Answer, Ask, Asked, End, Sidecar, Stage, Store, events_in};

/// The largest event that is kept, by default.
const CAP: usize = 16 << 20;

#[rstest]
#[case::of_exactly_the_cap(0)]
#[case::of_one_byte_more(1)]
#[tokio::test]
async fn a_large_event_reaches_the_caller_byte_for_byte_and_the_log_up_to_the_cap(#[case] above: usize) {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.run().await;
    // What counts ends with the first byte of the last line end.
    let mut sent = format!("data: {}\n\n", "0123456789abcdef".repeat(CAP / 16)).into_bytes();
    sent.drain(6..14 - above);
    assert_eq!(sent.len(), CAP + above);
    sent.extend_from_slice(b"data: behind\n\n");
    let body = sent.clone();
    let upstream = async move {
        for piece in body.chunks(100_000) {
            run.upstream.write(piece).await;
        }
        run.upstream.end().await;
    };
    let ((received, end), ()) = tokio::join!(run.caller.whole(), upstream);
    assert_eq!(end, End::Clean);
    assert!(received == sent, "the caller got other bytes");
    let (events, terminal) = kept(&stage.sidecar, &run.session, &run.id).await;
    assert_eq!(terminal["state"], "completed");
    let expected = events_in(&sent);
    let dropped = stage.sidecar.entries(&run.session).await.iter().filter(|e| e.kind() == "event_dropped").count();
    match above {
        0 => assert!(events == expected && dropped == 0),
        _ => assert!(events == expected[1..] && dropped == 1),
    }
}

#[tokio::test]
async fn a_comment_is_forwarded_at_its_line_end() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.run().await;
    // Nothing follows before it has arrived; between blocks it needs no blank line.
    for comment in [": ping\n", ": keepalive\r\n", ": x\n\n"] {
        run.upstream.write(comment).await;
        run.caller.arrives(comment).await;
        run.upstream.event("1").await;
        run.caller.arrives("data: 1\n\n").await;
    }
    // Inside a block it belongs to it.
    run.upstream.write("data: 2\n: inside\n").await;
    run.upstream.write("\n").await;
    run.caller.arrives("data: 2\n: inside\n\n").await;
}

/// An answer whose head is these lines, and nothing yet of its body.
async fn headed(stage: &mut Stage, ask: Ask, head: &str) -> (Answer, Asked) {
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.raw(format!("{head}\r\n\r\n")).await;
        upstream
    };
    tokio::join!(ask.send(), upstream)
}

#[tokio::test]
async fn the_head_of_a_stream_is_there_before_its_body_and_as_the_upstream_said_it() {
    let mut stage = Stage::on(Store::Embedded).await;
    let kept = [
        ("content-type", "Text/Event-Stream;charset=UTF-8"),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("x-request-id", "req_1"),
        ("anthropic-ratelimit-requests-remaining", "7"),
        ("mcp-session-id", "m-1"),
        ("x-vercel-ai-ui-message-stream", "v1"),
        ("vary", "Origin"),
        ("access-control-allow-origin", "https://app.example"),
        ("set-cookie", "a=1; Path=/"),
        ("set-cookie", "b=2"),
    ];
    let lines: String = kept.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("HTTP/1.1 200 Fine\r\n{lines}transfer-encoding: chunked");
    let ask = stage.sidecar.post("/chat").header("origin", "https://app.example");
    let (caller, _upstream) = headed(&mut stage, ask, &head).await;
    for (name, value) in kept {
        let values: Vec<_> = caller.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        assert!(values.contains(&value), "{name}: {values:?}");
    }
    let ours = ["date", "transfer-encoding", "access-control-expose-headers"];
    for name in caller.headers.keys().map(http::HeaderName::as_str) {
        let known = kept.iter().any(|(kept, _)| *kept == name) || ours.contains(&name);
        assert!(known || name.starts_with("sidestream-"), "{name} was added");
    }
}

#[rstest]
#[case::no_content(Method::POST, "HTTP/1.1 204 No Content\r\nx-a: 1\r\nx-a: 2")]
#[case::cross_origin(
    Method::OPTIONS,
    "HTTP/1.1 204 No Content\r\naccess-control-allow-origin: https://app.example\r\naccess-control-allow-methods: POST\r\naccess-control-max-age: 60\r\nvary: Origin, Access-Control-Request-Method"
)]
#[case::not_modified(Method::GET, "HTTP/1.1 304 Not Modified\r\netag: \"x\"")]
#[case::json(Method::POST, "HTTP/1.1 200 OK\r\ncontent-type: application/json;charset=utf-8\r\ncontent-length: 0")]
#[tokio::test]
async fn an_answer_that_is_no_stream_is_the_upstreams_to_the_letter(#[case] method: Method, #[case] head: &str) {
    let mut stage = Stage::on(Store::Embedded).await;
    let straight = Ask::new(method.clone(), &stage.agent.url(), "/a").header("origin", "https://app.example");
    let (straight, _) = headed(&mut stage, straight, head).await;
    let through = Ask::new(method, &stage.sidecar.url(), "/a").header("origin", "https://app.example");
    let (mut through, _) = headed(&mut stage, through, head).await;
    // A server with a clock says when (RFC 9110 §6.6.1).
    through.headers.remove("date");
    assert_eq!((through.status, &through.headers), (straight.status, &straight.headers));
}

#[rstest]
#[case::stream("200 OK", "text/event-stream")]
#[case::created("201 Created", "application/json")]
#[case::accepted("202 Accepted", "application/json")]
#[case::redirect("307 Temporary Redirect", "text/html")]
#[tokio::test]
async fn a_location_at_the_upstream_leads_through_us_and_any_other_where_it_led(
    #[case] status: &str,
    #[case] content_type: &str,
) {
    let mut stage = Stage::on(Store::Embedded).await;
    let below = Sidecar::of(format!("{}/base/v1", stage.agent.url())).start().await;
    let agent = stage.agent.url();
    for (prefix, location, expected) in [
        ("", format!("{agent}/threads/1/runs/2?a=b#c"), "/threads/1/runs/2?a=b#c"),
        ("", "/threads/1".to_owned(), "/threads/1"),
        ("", "https://other.example/x".to_owned(), "https://other.example/x"),
        ("/base/v1", format!("{agent}/base/v1/threads/1"), "/threads/1"),
        ("/base/v1", "/base/v1/threads/1".to_owned(), "/threads/1"),
        ("/base/v1", "/base/v1x".to_owned(), "/base/v1x"),
        ("/base/v1", "../runs/2".to_owned(), "../runs/2"),
    ] {
        let sidecar = if prefix.is_empty() { &stage.sidecar } else { &below };
        let ask = sidecar.post("/threads?x=1").header("x-forwarded-prefix", "/outer");
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\nlocation: {location}\r\ncontent-location: {location}\r\ncontent-length: 0"
        );
        let (answer, upstream) = headed(&mut stage, ask, &head).await;
        assert_eq!((answer.header("location"), answer.header("content-location")), (expected, expected), "{prefix}");
        assert_eq!(upstream.path, format!("{prefix}/threads?x=1"));
        // A proxy on this machine is trusted.
        assert_eq!(upstream.header("x-forwarded-prefix"), Some("/outer"));
    }
}

#[rstest]
#[case::http_1_0("HTTP/1.0 200 OK")]
#[case::without_a_length("HTTP/1.1 200 OK\r\nconnection: close")]
#[tokio::test]
async fn a_stream_that_ends_with_its_connection_is_a_run_like_any_other(#[case] status: &str) {
    let mut stage = Stage::on(Store::Embedded).await;
    let head = format!("{status}\r\ncontent-type: text/event-stream");
    let ask = stage.sidecar.post("/chat");
    let (mut caller, mut upstream) = headed(&mut stage, ask, &head).await;
    let (session, run) = (caller.header("sidestream-session").to_owned(), caller.header("sidestream-run").to_owned());
    for event in ["data: 1\n\n", "data: 2\r\n\r\n"] {
        upstream.raw(event).await;
        caller.arrives(event).await;
    }
    upstream.close();
    assert_eq!(caller.whole().await, ("data: 1\n\ndata: 2\r\n\r\n".into(), End::Clean));
    let (events, terminal) = kept(&stage.sidecar, &session, &run).await;
    assert_eq!((events.len(), &terminal["state"]), (2, &json!("completed")));
}

#[tokio::test]
async fn a_stream_that_ends_with_its_connection_and_is_reset_breaks_off() {
    let mut stage = Stage::on(Store::Embedded).await;
    let ask = stage.sidecar.post("/chat");
    let (mut caller, mut upstream) =
        headed(&mut stage, ask, "HTTP/1.0 200 OK\r\ncontent-type: text/event-stream").await;
    let (session, run) = (caller.header("sidestream-session").to_owned(), caller.header("sidestream-run").to_owned());
    upstream.raw("data: 1\n\n").await;
    caller.arrives("data: 1\n\n").await;
    upstream.reset();
    assert_eq!(caller.whole().await, ("data: 1\n\n".into(), End::Aborted));
    let (_, terminal) = kept(&stage.sidecar, &session, &run).await;
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("failed"), &json!("upstream_reset")));
}

#[tokio::test]
async fn a_stream_that_is_shorter_than_its_length_breaks_off() {
    let mut stage = Stage::on(Store::Embedded).await;
    let ask = stage.sidecar.post("/chat");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 18";
    let (mut caller, mut upstream) = headed(&mut stage, ask, head).await;
    let (session, run) = (caller.header("sidestream-session").to_owned(), caller.header("sidestream-run").to_owned());
    upstream.raw("data: 1\n\n").await;
    caller.arrives("data: 1\n\n").await;
    upstream.close();
    assert_eq!(caller.whole().await, ("data: 1\n\n".into(), End::Aborted));
    let (_, terminal) = kept(&stage.sidecar, &session, &run).await;
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("failed"), &json!("upstream_reset")));
}
