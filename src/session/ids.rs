//! Ids of sessions, runs and instances, and names of clients.

use std::fmt;

use bytestring::ByteString;

/// The longest id accepted from outside, in bytes.
const MAX_ID: usize = 128;

/// The text is not usable as an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is 1 to 128 characters of A-Z a-z 0-9 . _ - (and does not begin with ~)")]
pub struct IdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ByteString);

        impl $name {
            /// An id that comes from outside: `[A-Za-z0-9._-]{1,128}`.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                if is_plain(text) { Ok($name(text.into())) } else { Err(IdError) }
            }

            /// A new id from 128 random bits: unguessable, globally unique.
            pub fn from_random(bits: u128) -> Self {
                $name(format!("{bits:032x}").into())
            }

            /// An id read back from our own store; also accepts the `~` form that `parse` refuses.
            pub fn from_store(text: &str) -> Result<Self, IdError> {
                let plain = text.strip_prefix('~').unwrap_or(text);
                if is_plain(plain) { Ok($name(text.into())) } else { Err(IdError) }
            }

            /// The id as text. Safe in keys, paths and headers as it is.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// The id by which any device attaches to a session.
    SessionId
}
id! {
    /// The id of one answer of an agent, unique over all sessions.
    RunId
}
id! {
    /// The id of one life of one sidecar process. Never used again after its end.
    InstanceId
}

id! {
    /// The id of one connection of a client. Never used again after its end.
    ConnectionId
}
id! {
    /// The name of a client: what it calls itself, or the id of its connection.
    ClientName
}

impl SessionId {
    /// The id of a session whose name is not usable as it is: `~` and base64url of the digest of
    /// (rule, value). Clients cannot name such an id; a rule always derives the same one.
    pub fn from_digest_text(base64url: &str) -> Self {
        debug_assert!(is_plain(base64url));
        SessionId(format!("~{base64url}").into())
    }
}

fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_accepted_from_outside() {
        assert!(SessionId::parse("chat-42_a.B").is_ok());
        assert!(SessionId::parse(&"x".repeat(128)).is_ok());
        for bad in ["", "a b", "a/b", "~digest", "ü", "a\n", "{a}", &"x".repeat(129)] {
            assert_eq!(SessionId::parse(bad), Err(IdError), "{bad:?}");
        }
    }

    #[test]
    fn a_random_id_is_a_plain_id() {
        let id = RunId::from_random(7);
        assert_eq!(RunId::parse(id.as_str()), Ok(id));
    }
}
