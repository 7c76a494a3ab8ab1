//! The dialects that everybody has.

/// The descriptions, in the order in which they are asked whether they recognise a stream.
pub(super) const BUILTIN: [&str; 5] = [
    include_str!("builtin/openai-chat.toml"),
    include_str!("builtin/ollama.toml"),
    include_str!("builtin/ndjson.toml"),
    include_str!("builtin/ai-sdk-4.toml"),
    include_str!("builtin/gemini-array.toml"),
];
