//! The dialects of the recordings.

use std::sync::Arc;

use sidestream::dialect::Dialect;

/// The dialect of this name; one that merges nothing where there is none.
pub(crate) fn dialect(name: &str) -> Arc<Dialect> {
    let text = match name {
        "openai-chat" => OPENAI_CHAT,
        "openai-responses" => OPENAI_RESPONSES,
        "anthropic-messages" => ANTHROPIC,
        "gemini-sse" => GEMINI,
        "vercel-ui-message-stream" => AI_SDK,
        "ag-ui" => AG_UI,
        "langgraph-runs-stream" => LANGGRAPH,
        _ => "name = \"opaque\"",
    };
    Arc::new(Dialect::read(text).unwrap())
}

const OPENAI_CHAT: &str = r#"
name = "openai-chat"
counters = ["/usage", "/obfuscation", "/created"]
alone = ["/choices/*/delta/tool_calls/*/id", "/choices/*/delta/tool_calls/*/function/name", "/choices/*/logprobs/content/*", "/choices/*/delta/annotations/*"]
[[delta]]
text = "/choices/*/delta/content"
[[delta]]
text = "/choices/*/delta/reasoning_content"
[[delta]]
text = "/choices/*/delta/reasoning"
[[delta]]
text = "/choices/*/delta/refusal"
[[delta]]
text = "/choices/*/delta/tool_calls/*/function/arguments"
"#;

const OPENAI_RESPONSES: &str = r#"
name = "openai-responses"
counters = ["/sequence_number", "/obfuscation"]
alone = ["/logprobs/*"]
[[delta]]
text = "/delta"
"#;

const ANTHROPIC: &str = r#"
name = "anthropic-messages"
[[delta]]
when = { at = "/type", is = "content_block_delta" }
text = "/delta/text"
[[delta]]
text = "/delta/thinking"
[[delta]]
text = "/delta/partial_json"
"#;

const GEMINI: &str = r#"
name = "gemini-sse"
counters = ["/usageMetadata"]
alone = ["/candidates/*/content/parts/*/thoughtSignature"]
[[delta]]
text = "/candidates/*/content/parts/*/text"
"#;

const AI_SDK: &str = r#"
name = "vercel-ui-message-stream"
[[delta]]
text = "/delta"
[[delta]]
text = "/inputTextDelta"
"#;

const AG_UI: &str = r#"
name = "ag-ui"
counters = ["/timestamp", "/rawEvent"]
[[delta]]
text = "/delta"
"#;

const LANGGRAPH: &str = r#"
name = "langgraph-runs-stream"
[[cumulative]]
when = { event = "messages/partial", at = "/0/id" }
same = ["/*/id"]
"#;
