//! What the operator says about the server, and why it may be refused.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::log::Retention;

/// When an entry counts as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// When the primary has it in memory.
    #[default]
    Memory,
    /// When a replica has it, too. Reads wait likewise, so that nobody sees what a failover could take back.
    Replicated,
}

/// How to reach the server, and how to use it.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://`, `redis-sentinel://` or `redis-cluster://`: see [`crate::redis_url`].
    pub url: String,
    /// What every key begins with: `A-Z a-z 0-9 . _ -`.
    pub key_prefix: String,
    /// How long sessions are kept.
    pub retention: Retention,
    /// Appends up to this many bytes are pushed with their entries, larger ones are announced.
    pub push_payload_limit: usize,
    /// PEM file of the authorities that sign the server's certificate, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// When an entry counts as stored.
    pub ack: Ack,
    /// The longest that any operation takes; then it is `Unavailable`.
    pub deadline: Duration,
}

impl RedisOptions {
    /// The defaults, for the server at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        RedisOptions {
            url: url.into(),
            key_prefix: "ss".into(),
            retention: Retention::default(),
            push_payload_limit: 64 << 10,
            ca_file: None,
            ack: Ack::Memory,
            deadline: Duration::from_secs(2),
        }
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("key_prefix", &self.key_prefix)
            .field("retention", &self.retention)
            .field("push_payload_limit", &self.push_payload_limit)
            .field("ca_file", &self.ca_file)
            .field("ack", &self.ack)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// The server cannot be used as it is configured: somebody must change something.
///
/// A server that is merely unreachable is not refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedStore {
    /// The URL is not one.
    #[error("the store URL is not usable: {reason}")]
    Url {
        /// What is wrong with it, and what to write; does not repeat it, since it may hold a password.
        reason: String,
    },
    /// The key prefix would make keys ambiguous.
    #[error("store.key_prefix {prefix:?} is not usable: use 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    KeyPrefix {
        /// The prefix.
        prefix: String,
    },
    /// The retention keeps nothing.
    #[error("store.ttl, store.max_entries and store.max_bytes must be greater than zero")]
    Retention,
    /// The CA file cannot be used.
    #[error("the CA file {path:?} of the store is not usable: {reason}")]
    CaFile {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The TLS handshake failed for a reason that does not pass by itself.
    #[error("TLS with the Redis server at {address} failed: {reason}; name the CA that signed its certificate")]
    Tls {
        /// The server.
        address: String,
        /// What TLS said.
        reason: String,
    },
    /// User or password are wrong or missing.
    #[error(
        "the Redis server at {address} refused the credentials of {user}: {reason}; write user and password into the \
         store URL, redis://user:password@host (percent-encode special characters)"
    )]
    Credentials {
        /// The server.
        address: String,
        /// Who was refused.
        user: String,
        /// What the server said.
        reason: String,
    },
    /// The database number does not exist.
    #[error("the Redis server at {address} has no database {db}: change the number at the end of the store URL")]
    Database {
        /// The server.
        address: String,
        /// The number.
        db: i64,
    },
    /// The server is too old.
    #[error("the Redis server at {address} is version {found}: version 6.2 or newer is needed")]
    Version {
        /// The server.
        address: String,
        /// Its version.
        found: String,
    },
    /// The server is a part of a cluster.
    #[error("the Redis server at {address} runs in cluster mode, which is not supported yet: use a single server")]
    Cluster {
        /// The server.
        address: String,
    },
    /// The sentinels watch over no primary of this name.
    #[error("the sentinel at {address} knows no primary {master:?}: write its name into the store URL, ?master=NAME")]
    Master {
        /// The sentinel.
        address: String,
        /// The name.
        master: String,
    },
    /// The server is not a part of a cluster.
    #[error("the Redis server at {address} is not in cluster mode: write redis:// instead of redis-cluster://")]
    NoCluster {
        /// The server.
        address: String,
    },
    /// The user may not do what is needed.
    #[error(
        "the Redis user {user} at {address} lacks a permission: {reason}; grant it with ACL SETUSER {user} ~{prefix}:* \
         &{prefix}:* +@all -@dangerous +info"
    )]
    Permission {
        /// The server.
        address: String,
        /// The user.
        user: String,
        /// The key prefix.
        prefix: String,
        /// What the server said.
        reason: String,
    },
}

/// What an error says, on one line.
pub(super) fn plain_reason(error: &redis::RedisError) -> String {
    match error.detail() {
        Some(detail) => format!("{} {detail}", error.code().unwrap_or_default()).trim().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut RedisOptions)) -> RefusedStore {
        let mut options = RedisOptions::new("redis://127.0.0.1:6379");
        change(&mut options);
        options.target().err().expect("refused")
    }

    #[test]
    fn a_url_of_another_scheme_is_refused_with_the_form_that_is_right() {
        for url in ["http://localhost", "localhost:6379", "redis://", "redis://host/x", "redis+unix:///tmp/sock"] {
            let refused = refusal(|o| o.url = url.into());
            assert!(matches!(refused, RefusedStore::Url { .. }), "{url}: {refused}");
            assert!(refused.to_string().contains("redis://[USER:PASSWORD@]HOST"), "{refused}");
        }
    }

    #[test]
    fn a_prefix_with_glob_or_brace_characters_is_refused() {
        for prefix in ["", "a:b", "a*", "{x}"] {
            assert!(matches!(refusal(|o| o.key_prefix = prefix.into()), RefusedStore::KeyPrefix { .. }));
        }
    }

    #[test]
    fn a_ca_file_that_does_not_exist_is_named() {
        let refused = refusal(|o| {
            o.url = "rediss://localhost".into();
            o.ca_file = Some("/nowhere/ca.pem".into());
        });
        assert!(refused.to_string().contains("/nowhere/ca.pem"), "{refused}");
    }

    #[test]
    fn tls_is_never_without_verification() {
        assert!(matches!(refusal(|o| o.url = "rediss://localhost/#insecure".into()), RefusedStore::Url { .. }));
    }

    #[test]
    fn neither_url_nor_password_are_printed() {
        let printed = format!("{:?}", RedisOptions::new("redis://user:secret@host"));
        assert!(!printed.contains("secret"), "{printed}");
    }
}
