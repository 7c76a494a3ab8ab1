//! Where the servers are: one server, one that sentinels name, or a cluster.

use std::fmt;

/// Where one server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    /// Name or IP address, without brackets.
    pub(super) host: String,
    /// TCP port.
    pub(super) port: u16,
}

impl Address {
    /// Reads `host:port` as a server of a cluster writes it (without brackets); an empty host is `asked`, the one
    /// that was asked.
    pub(super) fn read(text: &str, asked: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() { asked } else { host };
        Some(Address { host: host.to_owned(), port: port.parse().ok()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// How the servers are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deployment {
    /// One server, at a fixed address.
    Single(Address),
    /// The primary that sentinels name.
    Sentinel {
        /// Where sentinels listen; not empty.
        sentinels: Vec<Address>,
        /// What they call the primary.
        master: String,
    },
    /// A cluster.
    Cluster {
        /// Where some of its servers listen; not empty. The cluster names the others.
        seeds: Vec<Address>,
    },
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deployment::Single(address) => address.fmt(f),
            Deployment::Sentinel { sentinels, master } => write!(f, "{master} of the sentinels {}", list(sentinels)),
            Deployment::Cluster { seeds } => write!(f, "the cluster of {}", list(seeds)),
        }
    }
}

fn list(addresses: &[Address]) -> String {
    addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(", ")
}
