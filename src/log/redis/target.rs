//! The options, checked, and what becomes of them for each connection: addresses, credentials, TLS.

use std::path::Path;

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, TlsCertificates,
};

use super::deployment::{Address, Deployment};
use super::options::{Ack, ClientCertificate, Password, RedisOptions, RefusedStore, plain_reason};
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
        let cert_file = self.client_certificate.as_ref().map(|client| &client.cert_file);
        for (option, path) in [("store.ca_file", self.ca_file.as_ref()), ("store.cert_file", cert_file)] {
            if let Some(path) = path.filter(|_| !tls) {
                let reason = "the store URL does not use TLS (rediss://)".into();
                return Err(RefusedStore::File { option, path: path.clone(), reason });
            }
        }
        if url.user.is_some() && url.password.is_none() && self.password.is_none() {
            let reason = "it names a user without a password; write `USER:PASSWORD@` (`:PASSWORD@` for the default \
                          user), or say with store.password where it is"
                .into();
            return Err(RefusedStore::Url { reason });
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
        target.sentinel(&any)?;
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
        let settings = RedisConnectionInfo::default().set_protocol(protocol).set_db(self.db);
        let password = match &self.options.password {
            Some(password) => Some(password.read("store.password")?),
            None => self.url.password.clone(),
        };
        self.open(address, login(settings, self.url.user.as_deref(), password))
    }

    /// What connects to the sentinel at `address`: with the same TLS, and with credentials of its own.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn sentinel(&self, address: &Address) -> Result<Client, RefusedStore> {
        let settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2);
        let password = &self.options.sentinel_password;
        let password = password.as_ref().map(|password| password.read("store.sentinel_password")).transpose()?;
        self.open(address, login(settings, self.options.sentinel_username.as_deref(), password))
    }

    /// Who we are at the sentinels, for messages.
    pub(super) fn sentinel_user(&self) -> &str {
        self.options.sentinel_username.as_deref().unwrap_or("default")
    }

    /// The scheme of the same deployment with TLS, or without.
    pub(super) fn scheme(&self, tls: bool) -> String {
        let kind = match self.deployment {
            Deployment::Single(_) => "",
            Deployment::Sentinel { .. } => "-sentinel",
            Deployment::Cluster { .. } => "-cluster",
        };
        format!("redis{}{kind}", if tls { "s" } else { "" })
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
        let RedisOptions { ca_file, client_certificate, .. } = &self.options;
        if ca_file.is_none() && client_certificate.is_none() {
            return Client::open(info).map_err(unusable);
        }
        let root_cert = ca_file.as_ref().map(|path| pem("store.ca_file", path, "CERTIFICATE")).transpose()?;
        let client_tls = client_certificate.as_ref().map(ClientCertificate::read).transpose()?;
        Client::build_with_tls(info, TlsCertificates { client_tls, root_cert }).map_err(|error| {
            let reason = plain_reason(&error);
            let (option, path) = match client_certificate {
                Some(client) if reason.contains("private key") => ("store.key_file", Some(&client.key_file)),
                Some(client) if reason.contains("client certificate") => ("store.cert_file", Some(&client.cert_file)),
                _ => ("store.ca_file", ca_file.as_ref()),
            };
            RefusedStore::File { option, path: path.cloned().unwrap_or_default(), reason }
        })
    }
}

fn login(settings: RedisConnectionInfo, user: Option<&str>, password: Option<String>) -> RedisConnectionInfo {
    let settings = password.into_iter().fold(settings, RedisConnectionInfo::set_password);
    user.into_iter().fold(settings, RedisConnectionInfo::set_username)
}

impl Password {
    fn read(&self, option: &'static str) -> Result<String, RefusedStore> {
        let path = match self {
            Password::Text(text) => return Ok(text.clone()),
            Password::File(path) => path,
        };
        let refused = |reason: String| RefusedStore::File { option, path: path.clone(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(refused("it is empty".into())),
            password => Ok(password.to_owned()),
        }
    }
}

impl ClientCertificate {
    fn read(&self) -> Result<ClientTlsConfig, RefusedStore> {
        Ok(ClientTlsConfig {
            client_cert: pem("store.cert_file", &self.cert_file, "CERTIFICATE")?,
            client_key: pem("store.key_file", &self.key_file, "PRIVATE KEY")?,
        })
    }
}

/// The file, which must hold a section of that name (RFC 7468).
fn pem(option: &'static str, path: &Path, section: &str) -> Result<Vec<u8>, RefusedStore> {
    let refused = |reason: String| RefusedStore::File { option, path: path.into(), reason };
    let text = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let begins = |line: &[u8]| line.starts_with(b"-----BEGIN ") && line.ends_with(format!("{section}-----").as_bytes());
    match text.split(|byte| *byte == b'\n').any(|line| begins(line.trim_ascii_end())) {
        true => Ok(text),
        false => Err(refused(format!("it holds no PEM {section}"))),
    }
}

impl From<RefusedStore> for NoServer {
    fn from(refused: RefusedStore) -> Self {
        NoServer::Refused(refused)
    }
}
