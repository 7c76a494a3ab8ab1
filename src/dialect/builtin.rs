//! The dialects that everybody has.

/// The descriptions, in the order in which they are asked whether they recognise a stream: what is common and
/// particular before what would take much for its own.
pub(super) const BUILTIN: [&str; 22] = [
    include_str!("builtin/openai-chat.toml"),
    include_str!("builtin/openai-responses.toml"),
    include_str!("builtin/openai-completions.toml"),
    include_str!("builtin/anthropic-messages.toml"),
    include_str!("builtin/anthropic-sessions.toml"),
    include_str!("builtin/gemini.toml"),
    include_str!("builtin/gemini-array.toml"),
    include_str!("builtin/gemini-interactions.toml"),
    include_str!("builtin/ai-sdk.toml"),
    include_str!("builtin/ai-sdk-4.toml"),
    include_str!("builtin/ag-ui.toml"),
    include_str!("builtin/langgraph.toml"),
    include_str!("builtin/langgraph-events.toml"),
    // Before MCP: both are JSON-RPC.
    include_str!("builtin/a2a.toml"),
    include_str!("builtin/mcp.toml"),
    include_str!("builtin/cohere.toml"),
    include_str!("builtin/dify.toml"),
    include_str!("builtin/flowise.toml"),
    include_str!("builtin/librechat.toml"),
    include_str!("builtin/ollama.toml"),
    include_str!("builtin/ndjson.toml"),
    include_str!("builtin/generic.toml"),
];

/// The built-in dialects: the name of each, what it is, and its description as a configuration file would have it.
pub fn builtin() -> impl Iterator<Item = (&'static str, String, String)> {
    BUILTIN.into_iter().map(|text| {
        let (comment, rest) = text.split_once("name = \"").unwrap_or_default();
        let about: Vec<_> = comment.lines().map(|line| line.trim_start_matches(['#', ' '])).collect();
        let about = about.join(" ");
        let about = about.split_once(". ").map_or(&*about, |(first, _)| first).trim_end_matches('.').to_owned();
        let table = text.replacen("name = ", "[[dialect]]\nname = ", 1);
        let table =
            table.replace("\n[[delta]]", "\n[[dialect.delta]]").replace("\n[[cumulative]]", "\n[[dialect.cumulative]]");
        (rest.split('"').next().unwrap_or_default(), about, table)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;

    #[test]
    fn every_description_begins_with_what_it_is_and_then_its_name() {
        for ((name, about, table), text) in builtin().zip(BUILTIN) {
            assert_eq!(Dialect::read(text).unwrap().name, name);
            assert_eq!(table.matches("[[dialect]]").count(), 1, "{table}");
            assert!(!about.is_empty() && about.len() < 120, "{name}: {about}");
        }
    }
}
