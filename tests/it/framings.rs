//! Streams that are not Server-Sent Events: recorded event by event, and given again in their own framing.

use rstest::rstest;
use serde_json::json;

use super::fidelity::kept;
use crate::support::{Answer, Ask, Asked, End, ROUTES, Stage, Store, until};

/// An answer of this content type, with more head lines.
async fn asked(stage: &mut Stage, path: &str, head: &str) -> (Answer, Asked) {
    asked_by(stage.sidecar.post(path), stage, head).await
}

async fn asked_by(ask: Ask, stage: &mut Stage, head: &str) -> (Answer, Asked) {
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.raw(format!("HTTP/1.1 200 OK\r\n{head}\r\ntransfer-encoding: chunked\r\n\r\n")).await;
        upstream
    };
    tokio::join!(ask.send(), upstream)
}

/// The run again, event by event, in its own framing: content type, body, and its end.
async fn again(stage: &Stage, session: &str, run: &str) -> (String, String, End) {
    // After its first entry: without a cursor what may be merged is.
    let after = stage.sidecar.entries(session).await.iter().find(|entry| entry["state"] == "started").unwrap().offset();
    let path = format!("/_sidestream/v1/sessions/{session}/runs/{run}/stream?after={after}");
    let answer = stage.sidecar.get(path).send().await;
    let content_type = answer.header("content-type").to_owned();
    let (body, end) = answer.whole().await;
    (content_type, String::from_utf8(body.to_vec()).unwrap(), end)
}

struct Shape {
    path: &'static str,
    head: &'static str,
    /// What the upstream writes, piece by piece, and how many events are complete after each.
    pieces: &'static [(&'static str, usize)],
    events: &'static [(&'static str, &'static str)],
    again: &'static str,
}

const LINES: Shape = Shape {
    path: "/lines/chat",
    head: "content-type: application/x-ndjson",
    pieces: &[("{\"message\":{\"content\":\"a\"},\"done\":false}\r\n", 1), ("\n", 1), ("{\"done\":", 1), ("true}", 2)],
    events: &[("message", "{\"message\":{\"content\":\"a\"},\"done\":false}"), ("message", "{\"done\":true}")],
    again: "{\"message\":{\"content\":\"a\"},\"done\":false}\n{\"done\":true}\n",
};

/// Known by its header, on a route that says nothing.
const PREFIXED: Shape = Shape {
    path: "/api/chat",
    head: "content-type: text/plain; charset=utf-8\r\nx-vercel-ai-data-stream: v1",
    pieces: &[("0:\"Hel\"\n0:", 1), ("\"lo\"\n", 2), ("d:{\"finishReason\":\"stop\"}\n", 3)],
    events: &[("0", "\"Hel\""), ("0", "\"lo\""), ("d", "{\"finishReason\":\"stop\"}")],
    again: "0:\"Hel\"\n0:\"lo\"\nd:{\"finishReason\":\"stop\"}\n",
};

const ARRAY: Shape = Shape {
    path: "/array/chat",
    head: "content-type: application/json; charset=UTF-8",
    pieces: &[
        ("[{\"candidates\": [\n{}]}", 1),
        ("\n,\r\n", 1),
        ("{\"candidates\": [{\"finishReason\": \"STOP\"}]}", 2),
        ("\n]\n", 2),
    ],
    events: &[("message", "{\"candidates\": [\n{}]}"), ("message", "{\"candidates\": [{\"finishReason\": \"STOP\"}]}")],
    again: "[{\"candidates\": [\n{}]},\n{\"candidates\": [{\"finishReason\": \"STOP\"}]}]",
};

#[rstest]
#[tokio::test]
async fn each_event_is_out_when_it_is_complete_and_the_run_is_given_again_in_its_framing(
    #[values(LINES, PREFIXED, ARRAY)] shape: Shape,
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    // Ids are for event streams: a route that has them on changes nothing here.
    let config = ROUTES.replace("dialect =", "ids = \"on\"\ndialect =");
    let mut stage = Stage::with(store, &config).await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    device.expect("live").await;
    let ask = stage.sidecar.post(shape.path).header("sidestream-session", "s");
    let (mut caller, mut upstream) = asked_by(ask, &mut stage, shape.head).await;
    let run = caller.header("sidestream-run").to_owned();
    assert_eq!(device.entry().await["state"], "started");
    let (mut seen, mut sent) = (0, String::new());
    for (piece, complete) in shape.pieces {
        upstream.write(piece).await;
        sent.push_str(piece);
        // The last line of a stream of lines is complete when the stream is.
        let complete = if sent.ends_with("true}") { complete - 1 } else { *complete };
        while seen < complete {
            assert_eq!(device.entry().await.data(), shape.events[seen].1);
            seen += 1;
        }
        if complete == shape.events.len() {
            caller.arrives(piece).await;
        }
    }
    upstream.end().await;
    assert_eq!(caller.whole().await, (sent.into(), End::Clean));
    let (events, terminal) = kept(&stage.sidecar, "s", &run).await;
    let events: Vec<_> = events.iter().map(|event| (&*event.name, &*event.data)).collect();
    assert_eq!(events, shape.events);
    assert_eq!(terminal["state"], "completed", "{terminal}");
    let content_type = shape.head.lines().next().unwrap().split_once(": ").unwrap().1;
    assert_eq!(again(&stage, "s", &run).await, (content_type.into(), shape.again.into(), End::Clean));
}

#[rstest]
#[tokio::test]
async fn a_run_that_broke_off_breaks_off_again(#[values(LINES, PREFIXED, ARRAY)] shape: Shape) {
    let mut stage = Stage::with(Store::Embedded, ROUTES).await;
    let (mut caller, mut upstream) = asked(&mut stage, shape.path, shape.head).await;
    let (session, run) = (caller.header("sidestream-session").to_owned(), caller.header("sidestream-run").to_owned());
    let first = shape.pieces[0].0;
    upstream.write(first).await;
    // What is whole of it; the last bytes of the second piece are not.
    let whole = first.strip_suffix("0:").unwrap_or(first);
    caller.arrives(whole).await;
    upstream.write("{\"half\": ").await;
    upstream.close();
    let (body, end) = caller.whole().await;
    assert_eq!(end, End::Aborted);
    assert!(!String::from_utf8_lossy(&body).contains("half"), "{body:?}");
    let (events, terminal) = kept(&stage.sidecar, &session, &run).await;
    assert_eq!((events.len(), &terminal["state"]), (1, &json!("failed")));
    let (_, body, end) = again(&stage, &session, &run).await;
    assert_eq!(end, End::Aborted);
    assert!(!body.ends_with(']'), "{body}");
}

#[tokio::test]
async fn an_answer_that_is_no_array_is_one_event() {
    let mut stage = Stage::with(Store::Embedded, ROUTES).await;
    let (caller, mut upstream) = asked(&mut stage, ARRAY.path, ARRAY.head).await;
    let (session, run) = (caller.header("sidestream-session").to_owned(), caller.header("sidestream-run").to_owned());
    upstream.write("{\"error\": {\"code\": 503,\n\"message\": \"overloaded\"}}\n").await;
    upstream.end().await;
    assert_eq!(caller.whole().await.1, End::Clean);
    let (events, _) = kept(&stage.sidecar, &session, &run).await;
    assert_eq!(events.len(), 1);
    assert!(events[0].data.contains("overloaded"));
}

#[tokio::test]
async fn an_error_answer_on_such_a_route_is_not_a_run() {
    let mut stage = Stage::with(Store::Embedded, ROUTES).await;
    let (answer, ()) = tokio::join!(stage.sidecar.post("/array/chat").send(), async {
        let mut upstream = stage.agent.asked().await;
        upstream.raw("HTTP/1.1 429 Slow\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}").await;
    });
    assert_eq!((answer.status.as_u16(), answer.headers.get("sidestream-run")), (429, None));
    assert_eq!(answer.whole().await, ("{}".into(), End::Clean));
}

/// AI SDK's other protocol, `toTextStreamResponse`.
#[tokio::test]
async fn plain_text_below_a_preset_is_no_stream_that_has_failed() {
    let mut stage = Stage::with(Store::Embedded, "preset = [\"ai-sdk\"]\n").await;
    let (mut caller, mut upstream) = asked(&mut stage, "/api/chat", "content-type: text/plain; charset=utf-8").await;
    assert_eq!(caller.header("sidestream-durable"), "no");
    upstream.write("Hello world, one line only").await;
    caller.arrives("Hello world, one line only").await;
    upstream.end().await;
    let (_, end) = caller.whole().await;
    assert_eq!(end, End::Clean);
    until("the log says so", async || stage.sidecar.log().contains("no dialect of its route").then_some(())).await;
}

/// On a route that names the dialect nobody but the first lines can say that they are none of it.
#[tokio::test]
async fn plain_text_on_a_route_of_prefixed_lines_is_kept_as_it_is() {
    let config = "[[route]]\nmatch = \"POST /text\"\ndialect = \"ai-sdk-4\"\n";
    let mut stage = Stage::with(Store::Embedded, config).await;
    let (caller, mut upstream) = asked(&mut stage, "/text", "content-type: text/plain").await;
    let (session, run) = (caller.header("sidestream-session").to_owned(), caller.header("sidestream-run").to_owned());
    upstream.write("Once: upon\na time\n").await;
    upstream.end().await;
    assert_eq!(caller.whole().await.1, End::Clean);
    let (events, terminal) = kept(&stage.sidecar, &session, &run).await;
    assert_eq!((events.len(), &terminal["state"], &terminal["end"]), (2, &"completed".into(), &"unverified".into()));
}

#[tokio::test]
async fn a_stream_of_lines_that_no_route_names_passes_through_and_says_how_to_keep_it() {
    let mut stage = Stage::on(Store::Embedded).await;
    for _ in 0..2 {
        let (mut caller, mut upstream) = asked(&mut stage, "/v1/lines", LINES.head).await;
        assert_eq!(caller.header("sidestream-durable"), "no");
        assert!(caller.headers.get("sidestream-session").is_none());
        upstream.write("{\"half\":").await;
        caller.arrives("{\"half\":").await;
        upstream.end().await;
        assert_eq!(caller.whole().await, ("{\"half\":".into(), End::Clean));
    }
    let said = until("the line that says how to keep it", async || {
        let log = stage.sidecar.log();
        let said: Vec<_> = log.lines().filter(|line| line.contains("POST /v1/lines")).map(str::to_owned).collect();
        (!said.is_empty()).then_some(said)
    })
    .await;
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("dialect = ") && said[0].contains("ndjson"), "{said:?}");
}

#[tokio::test]
async fn a_sent_run_is_kept_in_its_framing_too() {
    let mut stage = Stage::with(Store::Embedded, ROUTES).await;
    let mut phone = stage.sidecar.connect().await;
    phone.attach("s").await;
    let sent = phone.ask(json!({"type": "send", "session": "s", "path": "/lines/chat", "body": {"model": "m"}})).await;
    let run = sent["run"].as_str().unwrap_or_else(|| panic!("{sent}")).to_owned();
    let mut upstream = stage.agent.asked().await;
    upstream.raw(format!("HTTP/1.1 200 OK\r\n{}\r\ntransfer-encoding: chunked\r\n\r\n", LINES.head)).await;
    upstream.write("{\"done\":false}\n{\"done\":true}\n").await;
    upstream.end().await;
    let (events, _) = kept(&stage.sidecar, "s", &run).await;
    assert_eq!(events.len(), 2);
    let (content_type, body, end) = again(&stage, "s", &run).await;
    assert_eq!((&*content_type, end), ("application/x-ndjson", End::Clean));
    assert_eq!(body, "{\"done\":false}\n{\"done\":true}\n");
}

#[tokio::test]
async fn a_line_over_the_cap_is_dropped_from_the_log_but_not_from_the_caller() {
    let mut stage = Stage::with(Store::Embedded, &format!("[limits]\nevent_bytes = \"64KiB\"\n{ROUTES}")).await;
    let (caller, mut upstream) = asked(&mut stage, LINES.path, LINES.head).await;
    let (session, run) = (caller.header("sidestream-session").to_owned(), caller.header("sidestream-run").to_owned());
    let large = format!("\"{}\"\n", "x".repeat(200_000));
    upstream.write(&large).await;
    upstream.write("{\"done\":true}\n").await;
    upstream.end().await;
    assert_eq!(caller.whole().await, (format!("{large}{{\"done\":true}}\n").into(), End::Clean));
    let (events, _) = kept(&stage.sidecar, &session, &run).await;
    assert_eq!(events.len(), 1);
    let entries = stage.sidecar.entries(&session).await;
    let dropped = entries.iter().find(|entry| entry.kind() == "event_dropped").unwrap();
    assert_eq!(dropped["bytes"], large.len());
}
