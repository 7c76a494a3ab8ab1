//! The options of the store as values: where sessions live, who we are there, and for how long they are kept.

use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;
use super::store_url::StoreUrl;

/// Where sessions live.
#[derive(Clone, Debug)]
pub struct Store {
    /// Which store; `None`: the embedded one at its default place ([`super::load()`] puts that place
    /// here, so that a loaded configuration always has one).
    pub url: Option<StoreUrl>,
    /// Redis: the password of the URL's user, where the URL has none.
    pub password: Option<Secret>,
    /// With TLS: a file of PEM certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// With TLS: the PEM file of our certificate.
    pub cert_file: Option<PathBuf>,
    /// With TLS: the PEM file of its private key.
    pub key_file: Option<PathBuf>,
    /// Our user at the sentinels; `None`: their `default`.
    pub sentinel_username: Option<String>,
    /// Our password at the sentinels.
    pub sentinel_password: Option<Secret>,
    /// Redis: when an entry counts as stored.
    pub ack: Ack,
    /// What every Redis key begins with.
    pub key_prefix: String,
    /// At most so many entries per session.
    pub max_entries: u64,
    /// At most so many bytes per session.
    pub max_bytes: u64,
    /// A session nobody has written to for so long expires.
    pub ttl: Duration,
    /// How long a direct caller waits for the store before it is served without it.
    pub eager_after: Duration,
    /// How long a run waits for a store that is away.
    pub outage_limit: Duration,
    /// Embedded: bytes of all sessions together; the oldest ended sessions go first.
    pub total_bytes: u64,
}

/// When an entry counts as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// When the primary has it.
    #[default]
    Memory,
    /// When a replica has it, too.
    Replicated,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            url: None,
            password: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            sentinel_username: None,
            sentinel_password: None,
            ack: Ack::Memory,
            key_prefix: "ss".into(),
            max_entries: 50_000,
            max_bytes: 64 << 20,
            ttl: Duration::from_secs(24 * 3600),
            eager_after: Duration::from_millis(250),
            outage_limit: Duration::from_secs(60),
            total_bytes: 2 << 30,
        }
    }
}
