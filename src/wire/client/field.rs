//! Fields that several messages have.

use serde::Deserialize;

use crate::session::SessionId;
use crate::wire::Code;

/// A field that was read, or what is wrong with it.
pub(super) type Field<T> = Result<T, (Code, String)>;

/// The fields of a message, unknown ones ignored.
pub(super) fn fields<'a, T: Deserialize<'a>>(text: &'a str) -> Field<T> {
    // Arrays would do as well for serde.
    if !text.trim_start().starts_with('{') {
        return Err(wrong("this is not a JSON object"));
    }
    serde_json::from_str(text).map_err(|error| wrong(error.to_string()))
}

/// A session named by a client. A `~` id is one that we derived: clients may use it to read, so it
/// is accepted here; it can never be *made* by naming it in a request.
pub(super) fn session(id: Option<String>) -> Field<SessionId> {
    let id = id.ok_or_else(|| wrong("`session` is missing"))?;
    SessionId::from_store(&id).map_err(|error| wrong(format!("`session`: {error}")))
}

/// A message that makes no sense.
pub(super) fn wrong(message: impl Into<String>) -> (Code, String) {
    (Code::BadMessage, message.into())
}
