//! What a run is called follows from its dialect; what its direct caller gets does not: that ends as the upstream's
//! answer did.

use rstest::rstest;
use serde_json::json;

use crate::support::{End, Message, Run, Sidecar, Stage, Store, terminal_of, until};
use crate::writers::post;

const CHUNK: &str =
    r#"{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}"#;
const LAST: &str = r#"{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str =
    r#"{"object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":34}}"#;

/// The terminal of a run whose upstream is done.
async fn terminal_in(sidecar: &Sidecar, session: &str, run: &str) -> Message {
    let mut device = sidecar.connect().await;
    device.attach(session).await;
    terminal_of(&device.collect_until_terminal(run).await, run).clone()
}

/// A run whose upstream says these events and ends as HTTP says: its terminal, and what its caller got.
async fn run_of(stage: &mut Stage, events: &[&str]) -> (Message, String, End) {
    let Run { session, id, caller, mut upstream } = stage.run().await;
    for event in events {
        upstream.event(event).await;
    }
    upstream.end().await;
    let (body, end) = caller.whole().await;
    (terminal_in(&stage.sidecar, &session, &id).await, String::from_utf8(body.to_vec()).unwrap(), end)
}

fn framed(events: &[&str]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

#[rstest]
#[tokio::test]
async fn a_stream_without_its_dialects_end_is_truncated_and_its_caller_got_a_clean_end(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let (terminal, body, end) = run_of(&mut stage, &[CHUNK, CHUNK]).await;
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("failed"), &json!("truncated")));
    assert_eq!((&terminal["dialect"], &terminal["framing"]), (&json!("openai-chat"), &json!("delimited")));
    assert!(terminal["end"].is_null(), "{terminal:?}");
    assert_eq!((body, end), (framed(&[CHUNK, CHUNK]), End::Clean));
    // Who asks again later must not take it for whole.
    let (session, run) = (terminal.session().unwrap(), terminal["run"].as_str().unwrap());
    let again = stage.sidecar.get(format!("/_sidestream/v1/sessions/{session}/runs/{run}/stream")).send().await;
    assert_eq!(again.whole().await.1, End::Aborted);
    let metrics = stage.sidecar.health("/metrics").await.whole().await.0;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(metrics.contains("sidestream_runs_truncated_total 1\n"), "{metrics}");
}

#[tokio::test]
async fn token_counts_are_on_the_terminal_and_in_the_metrics_of_the_route() {
    let mut stage = Stage::with(Store::Embedded, "[[route]]\nmatch = \"POST /chat\"").await;
    for _ in 0..2 {
        let (terminal, ..) = run_of(&mut stage, &[CHUNK, LAST, USAGE, "[DONE]"]).await;
        assert_eq!((&terminal["state"], &terminal["end"]), (&json!("completed"), &json!("marker")));
        assert_eq!(terminal["usage"], json!({"input": 12, "output": 34}));
    }
    until("the counts", async || {
        let metrics = stage.sidecar.health("/metrics").await.whole().await.0;
        let metrics = String::from_utf8(metrics.to_vec()).unwrap();
        let has = |direction: &str, count: u64| {
            let labels = format!("{{route=\"POST /chat\",direction=\"{direction}\"}} {count}\n");
            metrics.contains(&format!("sidestream_tokens_total{labels}"))
        };
        (has("input", 24) && has("output", 68)).then_some(())
    })
    .await;
}

/// The log of the session has the upstream's words; ours must not.
#[tokio::test]
async fn an_error_of_the_upstream_fails_the_run_and_is_no_line_of_our_log() {
    let mut stage = Stage::on(Store::Embedded).await;
    let error = r#"{"error":{"message":"secret words"}}"#;
    let (terminal, body, end) = run_of(&mut stage, &[CHUNK, error, "[DONE]"]).await;
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("failed"), &json!("error_event")));
    assert_eq!(terminal["error"], json!({"message": "secret words"}));
    assert_eq!((body, end), (framed(&[CHUNK, error, "[DONE]"]), End::Clean));
    let (session, run) = (terminal.session().unwrap(), terminal["run"].as_str().unwrap());
    let again = stage.sidecar.get(format!("/_sidestream/v1/sessions/{session}/runs/{run}/stream")).send().await;
    assert_eq!(again.whole().await.1, End::Clean);
    assert!(!stage.sidecar.log().contains("secret words"));
}

#[tokio::test]
async fn an_error_outside_of_the_events_fails_the_run() {
    let mut stage = Stage::on(Store::Embedded).await;
    let Run { session, id, caller, mut upstream } = stage.run().await;
    let text = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"x\"}]}}]}\r\n\r\n\
                {\n  \"error\": {\n    \"message\": \"overloaded\"\n  }\n}\n";
    upstream.write(text).await;
    upstream.end().await;
    assert_eq!(caller.whole().await, (text.into(), End::Clean));
    let terminal = terminal_in(&stage.sidecar, &session, &id).await;
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("failed"), &json!("error_event")));
    assert_eq!(terminal["error"]["message"], "overloaded");
}

#[tokio::test]
async fn a_stream_of_which_no_end_is_known_is_completed_and_says_that_nobody_has_seen_it() {
    let mut stage = Stage::on(Store::Embedded).await;
    let (terminal, ..) = run_of(&mut stage, &["1", "2"]).await;
    assert_eq!((&terminal["state"], &terminal["end"]), (&json!("completed"), &json!("unverified")));
    assert!(terminal["dialect"].is_null(), "{terminal:?}");
    let events = [r#"{"run_id":"r"}"#, r#"{"messages":[]}"#];
    let Run { session, id, mut upstream, .. } = stage.run().await;
    upstream.write(format!("event: metadata\ndata: {}\n\nevent: values\ndata: {}\n\n", events[0], events[1])).await;
    upstream.end().await;
    let terminal = terminal_in(&stage.sidecar, &session, &id).await;
    assert_eq!((&terminal["dialect"], &terminal["end"]), (&json!("langgraph"), &json!("unverified")));
}

/// A connection that broke looks like one that was done: only the dialect's end tells them apart.
#[rstest]
#[case::whole(&[CHUNK, LAST], json!("completed"), Some("marker"))]
#[case::cut(&[CHUNK], json!("failed"), None)]
#[case::unknown(&["1"], json!("completed"), Some("unverified"))]
#[tokio::test]
async fn an_answer_that_ends_with_its_connection_says_so(
    #[case] events: &[&str],
    #[case] state: serde_json::Value,
    #[case] end: Option<&str>,
) {
    let mut stage = Stage::on(Store::Embedded).await;
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        upstream.raw("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
        upstream
    };
    let (caller, mut upstream) = tokio::join!(stage.sidecar.post("/chat").send(), upstream);
    upstream.raw(framed(events)).await;
    let run = Run::new(caller, upstream);
    run.upstream.close();
    assert_eq!(run.caller.whole().await, (framed(events).into(), End::Clean));
    let terminal = terminal_in(&stage.sidecar, &run.session, &run.id).await;
    assert_eq!((&terminal["state"], &terminal["framing"]), (&state, &json!("close")));
    assert_eq!(terminal["end"].as_str(), end);
}

#[tokio::test]
async fn an_answer_that_is_whole_and_then_breaks_off_says_both() {
    let mut stage = Stage::on(Store::Embedded).await;
    let Run { session, id, caller, mut upstream } = stage.run().await;
    upstream.write(framed(&[CHUNK, LAST, "[DONE]"])).await;
    upstream.reset();
    assert_eq!(caller.whole().await.1, End::Aborted);
    let terminal = terminal_in(&stage.sidecar, &session, &id).await;
    assert_eq!((&terminal["reason"], &terminal["end"]), (&json!("upstream_reset"), &json!("marker")));
}

const OWN: &str = r#"
[[dialect]]
name = "own"
recognise = [{ at = "/kind", is = "hello" }]
end = [{ at = "/kind", is = "bye" }]
failed = [{ at = "/kind", is = "oops" }]
error = ["/why"]
usage.output = ["/cost"]
[[dialect.delta]]
when = { at = "/kind", is = "word" }
text = "/word"
"#;

#[tokio::test]
async fn a_dialect_of_the_file_is_recognised_and_judged_by() {
    let mut stage = Stage::with(Store::Embedded, OWN).await;
    let (hello, word) = (r#"{"kind":"hello"}"#, r#"{"kind":"word","word":"x"}"#);
    let (whole, ..) = run_of(&mut stage, &[hello, word, r#"{"kind":"bye","cost":7}"#]).await;
    assert_eq!(
        (&whole["dialect"], &whole["state"], &whole["end"]),
        (&json!("own"), &json!("completed"), &json!("marker"))
    );
    assert_eq!(whole["usage"], json!({"output": 7}));
    assert_eq!(run_of(&mut stage, &[hello, word]).await.0["reason"], "truncated");
    let failed = run_of(&mut stage, &[hello, r#"{"kind":"oops","why":"no"}"#]).await.0;
    assert_eq!((&failed["reason"], &failed["error"]["message"]), (&json!("error_event"), &json!("no")));
    assert!(!stage.sidecar.log().contains("has text where"), "a run that failed may never have come to its text");
}

#[tokio::test]
async fn a_route_whose_answers_are_of_another_dialect_is_told_once_and_its_runs_are_what_they_show() {
    let config = "[[route]]\nmatch = \"POST /chat\"\ndialect = \"anthropic-messages\"";
    let mut stage = Stage::with(Store::Embedded, config).await;
    for _ in 0..2 {
        let (shown, ..) = run_of(&mut stage, &[CHUNK, LAST, "[DONE]"]).await;
        assert_eq!((&shown["state"], &shown["dialect"]), (&json!("completed"), &json!("openai-chat")));
        let (opaque, ..) = run_of(&mut stage, &["1", "2"]).await;
        assert_eq!((&opaque["state"], &opaque["end"]), (&json!("completed"), &json!("unverified")));
    }
    let metric = "sidestream_dialect_mismatches_total{kind=\"contradicted\"} 4\n";
    until("the count", async || {
        let metrics = stage.sidecar.health("/metrics").await.whole().await.0;
        String::from_utf8(metrics.to_vec()).unwrap().contains(metric).then_some(())
    })
    .await;
    let log = stage.sidecar.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("not of the dialect that it names")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("POST /chat") && told[0].contains("correct the route"), "{told:?}");
    assert!(told[0].contains("a `[[route]]` of your own before the preset decides"), "{told:?}");
}

#[tokio::test]
async fn a_delta_path_that_matches_nothing_is_told_once() {
    let config = format!("{}\n[[route]]\nmatch = \"POST /chat\"\ndialect = \"own\"", OWN.replace("/word", "/wrod"));
    let mut stage = Stage::with(Store::Embedded, &config).await;
    for _ in 0..2 {
        let words = [r#"{"kind":"word","word":"x"}"#; 8];
        let events = [&[r#"{"kind":"hello"}"#], &words[..], &[r#"{"kind":"bye"}"#]].concat();
        assert_eq!(run_of(&mut stage, &events).await.0["state"], "completed");
    }
    let metric = "sidestream_dialect_mismatches_total{kind=\"without_text\"} 2\n";
    until("the count", async || {
        let metrics = stage.sidecar.health("/metrics").await.whole().await.0;
        String::from_utf8(metrics.to_vec()).unwrap().contains(metric).then_some(())
    })
    .await;
    let told = stage.sidecar.log().lines().filter(|line| line.contains("has text where")).count();
    assert_eq!(told, 1);
}

#[tokio::test]
async fn who_cancels_a_run_lets_its_caller_hear_it_in_the_words_of_its_dialect() {
    let mut stage = Stage::on(Store::Embedded).await;
    let Run { session, id, mut caller, mut upstream } = stage.run().await;
    let events = [r#"{"type":"start","messageId":"m"}"#, r#"{"type":"start-step"}"#];
    upstream.write(framed(&events)).await;
    caller.arrives(&framed(&events)).await;
    let mut device = stage.sidecar.connect().await;
    device.attach(&session).await;
    device.ask(json!({"type": "cancel", "session": session, "run": id})).await;
    let abort = framed(&[r#"{"type":"abort"}"#, "[DONE]"]);
    let (body, end) = caller.whole().await;
    assert_eq!((String::from_utf8(body.to_vec()).unwrap(), end), (framed(&events) + &abort, End::Clean));
    let again = stage.sidecar.get(format!("/_sidestream/v1/sessions/{session}/runs/{id}/stream")).send().await;
    let (body, end) = again.whole().await;
    assert_eq!((String::from_utf8(body.to_vec()).unwrap(), end), (framed(&events) + &abort, End::Clean));
    let terminal = terminal_in(&stage.sidecar, &session, &id).await;
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("cancelled"), &json!("cancel")));
}

#[tokio::test]
async fn a_run_that_the_upstream_calls_aborted_is_cancelled() {
    let mut stage = Stage::on(Store::Embedded).await;
    let events = [r#"{"type":"start","messageId":"m"}"#, r#"{"type":"abort"}"#, "[DONE]"];
    let (terminal, body, end) = run_of(&mut stage, &events).await;
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("cancelled"), &json!("upstream")));
    assert_eq!((body, end), (framed(&events), End::Clean));
    let (session, run) = (terminal.session().unwrap(), terminal["run"].as_str().unwrap());
    let again = stage.sidecar.get(format!("/_sidestream/v1/sessions/{session}/runs/{run}/stream")).send().await;
    assert_eq!(again.whole().await, (framed(&events).into(), End::Clean));
}

/// It says by HTTP that it is done, and need not say it twice.
#[tokio::test]
async fn an_agent_that_writes_its_events_itself_owes_no_end() {
    let stage = Stage::on(Store::Embedded).await;
    let write = post(&stage.sidecar, "text/event-stream").body(framed(&[CHUNK, CHUNK]));
    let written = write.send().await.json().await;
    assert_eq!(written["state"], "completed");
    let terminal = terminal_in(&stage.sidecar, "s", written["run"].as_str().unwrap()).await;
    assert_eq!((&terminal["dialect"], &terminal["end"]), (&json!("openai-chat"), &json!("unverified")));
}

#[tokio::test]
async fn an_end_that_was_too_large_to_keep_is_not_missed() {
    let mut stage = Stage::with(Store::Embedded, "[limits]\nevent_bytes = \"1KiB\"").await;
    let created = r#"{"type":"response.created","response":{"id":"r"}}"#;
    let large = format!(r#"{{"type":"response.completed","response":{{"output":"{}"}}}}"#, "x".repeat(2_000));
    let (terminal, ..) = run_of(&mut stage, &[created, &large]).await;
    assert_eq!((&terminal["state"], &terminal["end"]), (&json!("completed"), &json!("unverified")));
}
