//! The options, checked, and what becomes of them for each connection: addresses, credentials, TLS.

use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, TlsCertificates};

use super::deployment::{Address, Deployment};
use super::options::{RedisOptions, RefusedStore, plain_reason};
use super::server::NoServer;

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
    info: ConnectionInfo,
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
            ConnectionAddr::TcpTls { host, port, .. } => (Address { host: host.clone(), port: *port }, true),
            ConnectionAddr::Tcp(host, port) => (Address { host: host.clone(), port: *port }, false),
            _ => return Err(RefusedStore::Url { reason: "it names no host".into() }),
        };
        if self.ca_file.is_some() && !tls {
            let reason = "the store URL does not use TLS (rediss://)".into();
            return Err(RefusedStore::CaFile { path: self.ca_file.clone().unwrap_or_default(), reason });
        }
        let target = Target {
            deployment: Deployment::Single(address.clone()),
            user: info.redis_settings().username().unwrap_or("default").to_owned(),
            db: info.redis_settings().db(),
            tls,
            prefix: self.key_prefix.clone(),
            options: self.clone(),
            info,
        };
        target.client(&address, ProtocolVersion::RESP2)?;
        Ok(target)
    }
}

impl Target {
    /// What connects to the server at `address`, with credentials and certificates as their files
    /// have them now.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn client(&self, address: &Address, protocol: ProtocolVersion) -> Result<Client, RefusedStore> {
        let Address { host, port } = address.clone();
        let addr = match self.tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        let settings = self.info.redis_settings().clone().set_protocol(protocol);
        let settings = settings.set_lib_name("sidestream", env!("CARGO_PKG_VERSION"));
        let tcp = self.info.tcp_settings().clone().set_nodelay(true);
        let info = self.info.clone().set_addr(addr).set_redis_settings(settings).set_tcp_settings(tcp);
        match self.authorities()? {
            Some(pem) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
                let path = self.options.ca_file.clone().unwrap_or_default();
                Client::build_with_tls(info, certificates)
                    .map_err(|error| RefusedStore::CaFile { path, reason: plain_reason(&error) })
            }
            None => Client::open(info).map_err(|error| RefusedStore::Url { reason: plain_reason(&error) }),
        }
    }

    /// What connects to the sentinel at `address`.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn sentinel(&self, address: &Address) -> Result<Client, RefusedStore> {
        self.client(address, ProtocolVersion::RESP2)
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
