//! The dialects that everybody has.

/// The descriptions, in the order in which they are asked whether they recognise a stream.
pub(super) const BUILTIN: [&str; 1] = [include_str!("builtin/openai-chat.toml")];
