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

/// A password, or where it is found.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// This.
    Text(String),
    /// What the file holds when a connection is made, without the line's end.
    File(PathBuf),
}

/// What proves to the server who we are, in the TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file of the certificate, and of those between it and the authority's.
    pub cert_file: PathBuf,
    /// PEM file of its private key.
    pub key_file: PathBuf,
}

/// How to reach the server, and how to use it. Files are read again for every connection.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://`, `redis-sentinel://` or `redis-cluster://`: see [`crate::redis_url`].
    pub url: String,
    /// The password of the URL's user, where the URL has none.
    pub password: Option<Password>,
    /// The user at the sentinels; `None`: their `default`.
    pub sentinel_username: Option<String>,
    /// The password at the sentinels; `None`: they ask for none.
    pub sentinel_password: Option<Password>,
    /// What every key begins with: `A-Z a-z 0-9 . _ -`.
    pub key_prefix: String,
    /// How long sessions are kept.
    pub retention: Retention,
    /// Appends up to this many bytes are pushed with their entries, larger ones are announced.
    pub push_payload_limit: usize,
    /// PEM file of the authorities that sign the server's certificate, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// For servers that ask for a certificate.
    pub client_certificate: Option<ClientCertificate>,
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
            password: None,
            sentinel_username: None,
            sentinel_password: None,
            key_prefix: "ss".into(),
            retention: Retention::default(),
            push_payload_limit: 64 << 10,
            ca_file: None,
            client_certificate: None,
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
            .field("client_certificate", &self.client_certificate)
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
    /// A file that an option names cannot be used.
    #[error("{option}: the file {path:?} is not usable: {reason}")]
    File {
        /// The option.
        option: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The TLS handshake failed for a reason that does not pass by itself.
    #[error("TLS with the Redis server at {address} failed: {reason}; {advice}")]
    Tls {
        /// The server.
        address: String,
        /// What TLS said.
        reason: String,
        /// What to change.
        advice: &'static str,
    },
    /// We speak TLS and the server does not, or the other way round.
    #[error("the Redis server at {address} speaks {speaks}: write {scheme}:// in the store URL")]
    Scheme {
        /// The server.
        address: String,
        /// What it speaks.
        speaks: &'static str,
        /// The scheme for that.
        scheme: String,
    },
    /// User or password are wrong or missing.
    #[error(
        "the Redis server at {address} refused the credentials of {user}: {reason}; mend user and password in the \
         store URL, redis://user:password@host (percent-encode special characters), or what store.password names"
    )]
    Credentials {
        /// The server.
        address: String,
        /// Who was refused.
        user: String,
        /// What the server said.
        reason: String,
    },
    /// User or password of the sentinels are wrong or missing.
    #[error(
        "the sentinel at {address} refused the credentials of {user}: {reason}; mend store.sentinel_username and \
         store.sentinel_password (the store URL has those of the servers)"
    )]
    SentinelCredentials {
        /// The sentinel.
        address: String,
        /// Who was refused.
        user: String,
        /// What it said.
        reason: String,
    },
    /// The user of the sentinels may not ask them.
    #[error(
        "the user {user} of the sentinel at {address} lacks a permission: {reason}; grant it with ACL SETUSER {user} \
         +sentinel|master"
    )]
    SentinelPermission {
        /// The sentinel.
        address: String,
        /// The user.
        user: String,
        /// What it said.
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
    #[error("the Redis server at {address} is version {found}: version {needed} or newer is needed")]
    Version {
        /// The server.
        address: String,
        /// Its version.
        found: String,
        /// The oldest that will do, and for what.
        needed: &'static str,
    },
    /// The server is a part of a cluster.
    #[error(
        "the Redis server at {address} runs in cluster mode: write redis-cluster:// (rediss-cluster://) in the store URL"
    )]
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
    #[error("the Redis server at {address} is not in cluster mode: write redis:// (rediss://) in the store URL")]
    NoCluster {
        /// The server.
        address: String,
    },
    /// The server is a sentinel.
    #[error(
        "the server at {address} is a sentinel, which keeps no data: write redis-sentinel://…?master=NAME in the store \
         URL"
    )]
    Sentinel {
        /// The sentinel.
        address: String,
    },
    /// Something else listens there.
    #[error("what listens at {address} does not speak Redis: mend host and port in the store URL")]
    NoRedis {
        /// Where.
        address: String,
    },
    /// The server is no sentinel.
    #[error(
        "the server at {address} is not a sentinel: write where the sentinels listen (26379 by default), or redis:// \
         for a server by itself"
    )]
    NoSentinel {
        /// The server.
        address: String,
    },
    /// Entries are to be kept by a replica, and there is none.
    #[error(
        "store.ack is \"replicated\", and no replica follows the Redis server at {address}: attach one, or set \
         store.ack = \"memory\""
    )]
    NoReplica {
        /// The server.
        address: String,
    },
    /// The user may not do what is needed.
    #[error(
        "the Redis user {user} at {address} lacks a permission: {reason}; grant it with ACL SETUSER {user} ~{prefix}:* \
         resetchannels &{prefix}:* +@all -@dangerous +info"
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
