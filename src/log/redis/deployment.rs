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
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deployment::Single(address) => address.fmt(f),
        }
    }
}
