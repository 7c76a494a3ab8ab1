//! The options, checked, and what becomes of them for each connection: addresses, credentials, TLS.

use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, TlsCertificates};

use super::deployment::{Address, Deployment};
use super::options::{Ack, RedisOptions, RefusedStore, plain_reason};
use super::server::NoServer;
use crate::redis_url::{RedisUrl, Topology};

/// The options, checked: everything that can be known without the servers.
#[derive(Clone)]
pub(super) struct Target {
    /// Where the servers are.
    pub(super) deployment: Deployment,
    /// The user's name, for messages.
    pub(super) user: String,
    /// The database number.
    pub(super) db: i64,
    /// Whether connections are encrypted.
    pub(super) tls: bool,
    /// What every key begins with.
    pub(super) prefix: String,
    options: RedisOptions,
    url: RedisUrl,
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
        let url = RedisUrl::parse(&self.url).map_err(|reason| RefusedStore::Url { reason })?;
        let tls = url.tls;
        let mut hosts: Vec<_> = url.hosts.iter().cloned().map(|(host, port)| Address { host, port }).collect();
        let any = hosts[0].clone();
        if self.ca_file.is_some() && !tls {
            let reason = "the store URL does not use TLS (rediss://)".into();
            return Err(RefusedStore::CaFile { path: self.ca_file.clone().unwrap_or_default(), reason });
        }
        let target = Target {
            deployment: match &url.topology {
                Topology::Single => Deployment::Single(hosts.swap_remove(0)),
                Topology::Sentinel { master } => Deployment::Sentinel { sentinels: hosts, master: master.clone() },
                Topology::Cluster => Deployment::Cluster { seeds: hosts },
            },
            user: url.user.clone().unwrap_or_else(|| "default".into()),
            db: url.db,
            tls,
            prefix: self.key_prefix.clone(),
            options: self.clone(),
            url,
        };
        target.client(&any, ProtocolVersion::RESP2)?;
        Ok(target)
    }
}

impl Target {
    /// When an answer counts.
    pub(super) fn ack(&self) -> Ack {
        self.options.ack
    }

    /// What connects to the server at `address`, with credentials and certificates as their files
    /// have them now.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn client(&self, address: &Address, protocol: ProtocolVersion) -> Result<Client, RefusedStore> {
        let mut settings = RedisConnectionInfo::default().set_protocol(protocol).set_db(self.db);
        if let Some(password) = &self.url.password {
            settings = settings.set_password(password);
        }
        if let Some(user) = &self.url.user {
            settings = settings.set_username(user);
        }
        self.open(address, settings)
    }

    /// What connects to the sentinel at `address`: with the same TLS, and with credentials of its own.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn sentinel(&self, address: &Address) -> Result<Client, RefusedStore> {
        self.open(address, RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2))
    }

    fn open(&self, address: &Address, settings: RedisConnectionInfo) -> Result<Client, RefusedStore> {
        let unusable = |error: redis::RedisError| RefusedStore::Url { reason: plain_reason(&error) };
        let Address { host, port } = address.clone();
        let addr = match self.tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        let settings = settings.set_lib_name("sidestream", env!("CARGO_PKG_VERSION"));
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = addr.into_connection_info().map_err(unusable)?.set_redis_settings(settings).set_tcp_settings(tcp);
        match self.authorities()? {
            Some(pem) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
                let path = self.options.ca_file.clone().unwrap_or_default();
                Client::build_with_tls(info, certificates)
                    .map_err(|error| RefusedStore::CaFile { path, reason: plain_reason(&error) })
            }
            None => Client::open(info).map_err(unusable),
        }
    }

    fn authorities(&self) -> Result<Option<Vec<u8>>, RefusedStore> {
        let Some(path) = &self.options.ca_file else { return Ok(None) };
        let refused = |reason: String| RefusedStore::CaFile { path: path.clone(), reason };
        let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
        if !pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
            return Err(refused("it holds no PEM certificate".into()));
        }
        Ok(Some(pem))
    }
}

impl From<RefusedStore> for NoServer {
    fn from(refused: RefusedStore) -> Self {
        NoServer::Refused(refused)
    }
}
