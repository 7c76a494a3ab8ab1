//! Presets: one line, and a backend that nobody here wrote has durable sessions.

use rstest::rstest;
use serde_json::json;

use crate::support::{Ask, Asked, End, Stage, Store, events_of, recordings, terminal_of, until};

/// The answer of a recorded backend.
async fn plays(upstream: &mut Asked, file: &str, content_type: &str) -> bytes::Bytes {
    let body = recordings().into_iter().find(|recording| recording.file == file).unwrap().body;
    upstream
        .raw(format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"))
        .await;
    upstream.write(&body).await;
    upstream.raw("0\r\n\r\n").await;
    body
}

const SSE: &str = "text/event-stream";

#[rstest]
#[case::openai("openai", "/v1/chat/completions", r#"{"messages":[{"role":"user","content":"Hi"}]}"#, "openai-chat__openai-text.sse", SSE, None, Some(json!("Hi")))]
#[case::responses("openai", "/v1/responses", r#"{"conversation":"c-1","input":"Hi"}"#, "openai-responses__openai-text.sse", SSE, Some("c-1"), Some(json!("Hi")))]
#[case::responses_of_a_conversation("openai", "/responses", r#"{"conversation":{"id":"c-1"},"input":[{"role":"user","content":"Hi"}]}"#, "openai-responses__openai-text.sse", SSE, Some("c-1"), Some(json!("Hi")))]
#[case::anthropic("anthropic", "/v1/messages", r#"{"messages":[{"role":"user","content":"Hi"}]}"#, "anthropic-messages__text.sse", SSE, None, Some(json!("Hi")))]
#[case::ai_sdk("ai-sdk", "/api/chat", r#"{"id":"c-1","messages":[{"role":"user","parts":[]}]}"#, "vercel-ui-message-stream__text.sse", SSE, Some("c-1"), Some(json!({"role": "user", "parts": []})))]
#[case::ag_ui("ag-ui", "/agent", r#"{"threadId":"t-1","runId":"r","messages":[{"id":"m","role":"user","content":"Hi"}]}"#, "ag-ui__dotnet-backend-tools.sse", SSE, Some("t-1"), Some(json!({"id": "m", "role": "user", "content": "Hi"})))]
#[case::langgraph("langgraph", "/threads/t-1/runs/stream", r#"{"input":{"messages":[{"role":"user","content":"Hi"}]}}"#, "langgraph-runs-stream__resumable-ids.sse", SSE, Some("t-1"), Some(json!({"role": "user", "content": "Hi"})))]
#[case::gemini("gemini", "/v1beta/models/gemini-3:streamGenerateContent?alt=sse", r#"{"contents":[{"parts":[{"text":"Hi"}]}]}"#, "gemini-sse__text.sse", SSE, None, Some(json!([{"text": "Hi"}])))]
#[case::mcp("mcp", "/mcp", "{}", "mcp-streamable-http__priming-tool-progress.sse", SSE, Some("m-1"), None)]
#[case::a2a("a2a", "/", r#"{"jsonrpc":"2.0","params":{"message":{"contextId":"c1","parts":[{"text":"Hi"}]}}}"#, "a2a__v1-jsonrpc-completed.sse", SSE, Some("c1"), Some(json!([{"text": "Hi"}])))]
#[case::a2a_new("a2a", "/", r#"{"jsonrpc":"2.0","params":{"message":{"parts":[{"text":"Hi"}]}}}"#, "a2a__v1-jsonrpc-completed.sse", SSE, Some("c1"), Some(json!([{"text": "Hi"}])))]
#[case::dify("dify", "/v1/chat-messages", r#"{"query":"Hi","conversation_id":""}"#, "dify__chat-ok.sse", SSE, Some("45701982-8118-4bc5-8e9b-64562b4555f2"), Some(json!("Hi")))]
#[case::flowise("flowise", "/api/v1/prediction/flow-1", r#"{"question":"Hi","chatId":"c1"}"#, "flowise__ok.sse", SSE, Some("c1"), Some(json!("Hi")))]
#[case::ollama("ollama", "/api/chat", r#"{"messages":[{"role":"user","content":"Hi"}]}"#, "ollama-ndjson__chat.ndjson", "application/x-ndjson", None, Some(json!("Hi")))]
#[case::generic("generic", "/anything", "{}", "generic__fastapi-sse.sse", SSE, None, None)]
#[case::ai_sdk_4("ai-sdk", "/api/chat", r#"{"id":"c-1","messages":[{"role":"user","content":"Hi"}]}"#, "vercel-data-stream-v4__text.txt", "text/plain; charset=utf-8\r\nx-vercel-ai-data-stream: v1", Some("c-1"), Some(json!({"role": "user", "content": "Hi"})))]
#[case::gemini_array("gemini", "/v1beta/models/gemini-3:streamGenerateContent", r#"{"contents":[{"parts":[{"text":"Hi"}]}]}"#, "gemini-json-array__text.json", "application/json", None, Some(json!([{"text": "Hi"}])))]
#[tokio::test]
async fn an_answer_of_every_family_is_recorded_in_its_session_and_its_caller_gets_every_byte(
    #[case] preset: &str,
    #[case] path: &str,
    #[case] body: &'static str,
    #[case] file: &str,
    #[case] content_type: &str,
    #[case] session: Option<&str>,
    #[case] input: Option<serde_json::Value>,
) {
    let mut stage = Stage::with(Store::Embedded, &format!("preset = [\"{preset}\"]")).await;
    let ask = stage.sidecar.post(path).header("mcp-session-id", "m-1").body(body);
    let (caller, sent) =
        tokio::join!(ask.send(), async { plays(&mut stage.agent.asked().await, file, content_type).await });
    let run = caller.header("sidestream-run").to_owned();
    assert_eq!(caller.whole().await, (sent, End::Clean));
    let found = until("the run's end", async || {
        let found = stage.sidecar.get(format!("/_sidestream/v1/runs/{run}")).send().await;
        let found = if found.status == 200 { found.json().await } else { json!({"state": "active"}) };
        (found["state"] != "active").then_some(found)
    })
    .await;
    let name = found["session"].as_str().unwrap();
    match session {
        Some(expected) => assert_eq!(name, expected),
        None => assert_eq!(name.len(), 32, "a session of its own"),
    }
    let entries = stage.sidecar.entries(name).await;
    assert!(!events_of(&entries, &run, "").is_empty());
    let said = entries.iter().find(|entry| entry["type"] == "input").map(|entry| entry["json"].clone());
    assert_eq!(said, input);
    assert_eq!(terminal_of(&entries, &run)["state"], "completed");
}

async fn mcp(ask: Ask, stage: &mut Stage) -> (String, Asked) {
    let (caller, mut upstream) = tokio::join!(ask.send(), async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse().await;
        upstream
    });
    let run = caller.header("sidestream-run").to_owned();
    upstream.write(": begun\n").await;
    (run, upstream)
}

async fn state(stage: &Stage, run: &str) -> String {
    until("the run's end", async || {
        let found = stage.sidecar.get(format!("/_sidestream/v1/runs/{run}")).send().await.json().await;
        found["state"].as_str().filter(|state| *state != "active").map(str::to_owned)
    })
    .await
}

#[rstest]
#[case::by_its_version("mcp-protocol-version", "2026-07-28")]
#[case::by_its_method("mcp-method", "tools/call")]
#[tokio::test]
async fn closing_a_stream_of_the_newer_mcp_is_its_cancel(#[case] header: &str, #[case] value: &str) {
    let mut stage = Stage::with(Store::Embedded, "preset = [\"mcp\"]").await;
    let ask = stage.sidecar.post("/mcp").header(header, value);
    let (run, mut upstream) = mcp(ask, &mut stage).await;
    upstream.closed_by_the_sidecar().await;
    assert_eq!(state(&stage, &run).await, "cancelled");
}

#[tokio::test]
async fn closing_a_stream_of_the_older_mcp_is_a_disconnect() {
    let mut stage = Stage::with(Store::Embedded, "preset = [\"mcp\"]").await;
    let ask = stage.sidecar.post("/mcp").header("mcp-protocol-version", "2025-11-25");
    let (run, mut upstream) = mcp(ask, &mut stage).await;
    upstream.event(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await;
    upstream.end().await;
    assert_eq!(state(&stage, &run).await, "completed");
}

#[tokio::test]
async fn an_event_source_gets_ids_by_the_generic_preset_and_no_second_answer_after_the_end() {
    let mut stage = Stage::with(Store::Embedded, "preset = [\"generic\"]").await;
    let get = |stage: &Stage| stage.sidecar.get("/feed").header("accept", "text/event-stream");
    let mut run = stage.answered(get(&stage)).await;
    run.upstream.event(1).await;
    run.upstream.end().await;
    let (body, _) = run.caller.whole().await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    assert_eq!(state(&stage, &run.id).await, "completed");
    let again = get(&stage).header("last-event-id", id).send().await;
    assert_eq!((again.status.as_u16(), stage.agent.count()), (204, 1));
}

#[tokio::test]
async fn a_cancel_of_a_langgraph_run_is_told_to_its_server_in_its_own_words() {
    let mut stage = Stage::with(Store::Embedded, "preset = [\"langgraph\"]").await;
    let mut run = stage.answered(stage.sidecar.post("/threads/t-1/runs/stream")).await;
    run.upstream.write("event: metadata\r\ndata: {\"run_id\":\"r-1\",\"attempt\":1}\r\n\r\n").await;
    run.caller.arrives("\r\n\r\n").await;
    let cancel = format!("/_sidestream/v1/sessions/t-1/runs/{}/cancel", run.id);
    let (answer, told) = tokio::join!(stage.sidecar.post(cancel).send(), async { stage.agent.asked().await });
    assert_eq!(answer.status, 200);
    assert_eq!(told.path, "/threads/t-1/runs/r-1/cancel?action=interrupt");
}
