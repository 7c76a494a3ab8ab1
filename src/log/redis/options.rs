//! What the operator says about the server, and why it may be refused.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, TlsCertificates};

use crate::log::Retention;

/// How to reach the server, and how to use it.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://` or `rediss://` (TLS), `[user:password@]host[:port][/db]`.
    pub url: String,
    /// What every key begins with: `A-Z a-z 0-9 . _ -`.
    pub key_prefix: String,
    /// How long sessions are kept.
    pub retention: Retention,
    /// Appends up to this many bytes are pushed with their entries, larger ones are announced.
    pub push_payload_limit: usize,
    /// PEM file of the authorities that sign the server's certificate, instead of the system's.
    pub ca_file: Option<PathBuf>,
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
    #[error(
        "the store URL is not usable ({reason}): write redis://[user:password@]host[:port][/db], or rediss:// for TLS"
    )]
    Url {
        /// What is wrong with it; does not repeat it, since it may hold a password.
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

/// The options, checked: everything that can be known without the server.
#[derive(Clone)]
pub(super) struct Target {
    /// For commands.
    pub(super) commands: Client,
    /// For pushes: the protocol that carries both answers and pushes.
    pub(super) pushes: Client,
    /// `host:port`, for messages.
    pub(super) address: String,
    /// The user's name, for messages.
    pub(super) user: String,
    /// The database number.
    pub(super) db: i64,
    /// Whether the connection is encrypted.
    pub(super) tls: bool,
    /// What every key begins with.
    pub(super) prefix: String,
}

impl RedisOptions {
    /// Checks the options.
    pub(super) fn target(&self) -> Result<Target, RefusedStore> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !(1..=64).contains(&self.key_prefix.len()) || !self.key_prefix.bytes().all(plain) {
            return Err(RefusedStore::KeyPrefix { prefix: self.key_prefix.clone() });
        }
        let retention = &self.retention;
        if retention.ttl.as_millis() == 0 || retention.max_entries == 0 || retention.max_bytes == 0 {
            return Err(RefusedStore::Retention);
        }
        if !self.url.starts_with("redis://") && !self.url.starts_with("rediss://") {
            return Err(RefusedStore::Url { reason: "its scheme is neither redis:// nor rediss://".into() });
        }
        let refused = |error: redis::RedisError| RefusedStore::Url { reason: plain_reason(&error) };
        let info = self.url.as_str().into_connection_info().map_err(refused)?;
        let (address, tls) = match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                let reason = "#insecure would trust any server; name the CA's file instead".into();
                return Err(RefusedStore::Url { reason });
            }
            ConnectionAddr::TcpTls { host, port, .. } => (format!("{host}:{port}"), true),
            ConnectionAddr::Tcp(host, port) => (format!("{host}:{port}"), false),
            _ => return Err(RefusedStore::Url { reason: "it names no host".into() }),
        };
        let authorities = self.authorities(tls)?;
        let client = |protocol| {
            let info = with_protocol(&info, protocol);
            match &authorities {
                Some(pem) => {
                    let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
                    let path = self.ca_file.clone().unwrap_or_default();
                    Client::build_with_tls(info, certificates)
                        .map_err(|error| RefusedStore::CaFile { path, reason: plain_reason(&error) })
                }
                None => Client::open(info).map_err(refused),
            }
        };
        Ok(Target {
            commands: client(ProtocolVersion::RESP2)?,
            pushes: client(ProtocolVersion::RESP3)?,
            address,
            user: info.redis_settings().username().unwrap_or("default").to_owned(),
            db: info.redis_settings().db(),
            tls,
            prefix: self.key_prefix.clone(),
        })
    }

    fn authorities(&self, tls: bool) -> Result<Option<Vec<u8>>, RefusedStore> {
        let Some(path) = &self.ca_file else { return Ok(None) };
        let refused = |reason: String| RefusedStore::CaFile { path: path.clone(), reason };
        if !tls {
            return Err(refused("the store URL does not use TLS (rediss://)".into()));
        }
        let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
        if !pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
            return Err(refused("it holds no PEM certificate".into()));
        }
        Ok(Some(pem))
    }
}

fn with_protocol(info: &ConnectionInfo, protocol: ProtocolVersion) -> ConnectionInfo {
    let settings =
        info.redis_settings().clone().set_protocol(protocol).set_lib_name("sidestream", env!("CARGO_PKG_VERSION"));
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    info.clone().set_redis_settings(settings).set_tcp_settings(tcp)
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
            assert!(refused.to_string().contains("redis://[user:password@]host"), "{refused}");
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
