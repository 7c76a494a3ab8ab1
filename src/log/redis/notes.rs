//! Notes as they travel over a session's channel. Documented in `docs/store-layout.md`.
//!
//! ```text
//! here <connection> <client> <state>
//! left <connection>
//! read <user> <client> <offset>
//! said <client> <event> <data>
//! ```
//!
//! `<state>` and `<data>` go to the end; `<event>` is percent-encoded, `~` none. The first three are
//! written by scripts.

use bytes::Bytes;
use bytestring::ByteString;

use super::fields::{NONE, unword, word};
use crate::log::{Ephemeral, Note, Present, ReadCursor, User};
use crate::session::{ClientName, ConnectionId};

/// What is said, as a message.
pub(super) fn encode(said: &Ephemeral) -> String {
    let Ephemeral { client, event, data } = said;
    format!("said {client} {} {data}", event.as_deref().map_or_else(|| NONE.to_owned(), word))
}

/// The note in `message`; `None`: it is something else, or of a newer version.
pub(super) fn decode(message: &Bytes) -> Option<Note> {
    let text = ByteString::try_from(message.clone()).ok()?;
    if text == "queue" {
        return Some(Note::Queue);
    }
    let (kind, rest) = text.split_once(' ')?;
    match kind {
        "here" => {
            let (connection, rest) = rest.split_once(' ')?;
            let (client, state) = rest.split_once(' ')?;
            let connection = ConnectionId::from_store(connection).ok()?;
            Some(Note::Here(Present {
                connection,
                client: ClientName::parse(client).ok()?,
                state: text.slice_ref(state),
            }))
        }
        "left" => Some(Note::Left(ConnectionId::from_store(rest).ok()?)),
        "read" => {
            let (user, rest) = rest.split_once(' ')?;
            cursor(user, rest.split_once(' ').map(|(client, offset)| (offset, client))?).map(Note::Read)
        }
        "said" => {
            let (client, rest) = rest.split_once(' ')?;
            let (event, data) = rest.split_once(' ')?;
            let event = if event == NONE { None } else { Some(unword(event)?) };
            Some(Note::Said(Ephemeral { client: ClientName::parse(client).ok()?, event, data: text.slice_ref(data) }))
        }
        _ => None,
    }
}

/// A read cursor of its parts.
pub(super) fn cursor(user: &str, (offset, client): (&str, &str)) -> Option<ReadCursor> {
    let client = ClientName::parse(client).ok()?;
    Some(ReadCursor { user: User::from_word(user)?, client, offset: offset.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Offset, Subject};

    fn decoded(message: &str) -> Option<Note> {
        decode(&Bytes::copy_from_slice(message.as_bytes()))
    }

    #[test]
    fn notes_are_read_as_they_are_documented() {
        let (connection, client) = (ConnectionId::parse("c1").unwrap(), ClientName::parse("phone").unwrap());
        let here = Present { connection: connection.clone(), client: client.clone(), state: r#"{"a": "b c"}"#.into() };
        assert_eq!(decoded(r#"here c1 phone {"a": "b c"}"#), Some(Note::Here(here)));
        assert_eq!(decoded("left c1"), Some(Note::Left(connection)));
        for user in [User::Client(client.clone()), User::Subject(Subject::from_digest([7; 32]))] {
            let message = format!("read {} phone 5-2", user.to_word());
            let read = ReadCursor { user, client: client.clone(), offset: Offset::new(5, 2) };
            assert_eq!(decoded(&message), Some(Note::Read(read)));
        }
    }

    #[test]
    fn what_is_said_comes_back_as_it_was() {
        for (event, data) in [(None, ""), (Some("typing now"), "{}"), (Some(""), "a b\nc"), (Some("~"), " ")] {
            let client = ClientName::parse("phone").unwrap();
            let said = Ephemeral { client, event: event.map(Into::into), data: data.into() };
            assert_eq!(decoded(&encode(&said)), Some(Note::Said(said)));
        }
    }

    #[test]
    fn what_another_version_says_is_not_guessed() {
        for message in ["", "check", "here c1", "here c1 a", "left a b", "read x phone 5-2", "read c:a b 5", "said a"] {
            assert_eq!(decoded(message), None, "{message:?}");
        }
    }
}
