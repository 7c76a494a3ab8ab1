//! What the server is: version, role, identity, and how it treats what we store there.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};

use super::deployment::{Address, Deployment};
use super::options::{Ack, RefusedStore, plain_reason};
use super::target::Target;

/// A server that can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// Its `run_id`, which is another one after every start and on every other server, and the line of its data
    /// ([`line_of`]), which is another one after every promotion: a server that was replaced and has its place again
    /// lacks what it acknowledged in between. The first half of each. Empty: not known.
    pub(super) identity: String,
    /// Since when it runs; zero where it does not say.
    pub(super) uptime: Duration,
    /// How many replicas follow it, where it says so.
    pub(super) replicas: Option<u32>,
    /// What its operator should know.
    pub(super) warnings: Vec<String>,
}

impl Server {
    /// What keeps us from starting with it, although we would go on with it.
    pub(super) fn unfit(&self, target: &Target, address: &Address) -> Option<RefusedStore> {
        let alone = target.ack() == Ack::Replicated && self.replicas == Some(0);
        alone.then(|| RefusedStore::NoReplica { address: address.to_string() })
    }
}

/// Why there is no usable connection.
#[derive(Debug)]
pub(super) enum NoServer {
    /// Somebody must change something.
    Refused(RefusedStore),
    /// It may come back by itself.
    Away(String),
}

/// The newest of several answers to one question, by their `age`; of equal ones the first. Without any, why: a refusal
/// before the reasons of those that are away.
pub(super) fn newest<T, A: PartialOrd>(
    answers: impl IntoIterator<Item = Result<T, NoServer>>,
    age: impl Fn(&T) -> A,
) -> Result<T, NoServer> {
    let (mut newest, mut refused, mut reasons) = (None::<T>, None, Vec::new());
    for answer in answers {
        match answer {
            Ok(answer) if newest.as_ref().is_none_or(|newest| age(newest) < age(&answer)) => newest = Some(answer),
            Ok(_) => {}
            Err(NoServer::Refused(reason)) => refused = Some(reason),
            Err(NoServer::Away(reason)) => reasons.push(reason),
        }
    }
    newest.ok_or_else(|| refused.map_or_else(|| NoServer::Away(reasons.join("; ")), NoServer::Refused))
}

/// Asks the server at the other end what it is.
pub(super) async fn examine(
    connection: &mut MultiplexedConnection,
    target: &Target,
    address: &Address,
) -> Result<Server, NoServer> {
    let info: String =
        Cmd::new().arg("INFO").query_async(connection).await.map_err(|error| judge(&error, target, address))?;
    let server = read_info(&info, target, address)?;
    permit(connection, target).await.map_err(|error| judge(&error, target, address))?;
    Ok(server)
}

/// Does without consequences what needs a permission that is often forgotten. A user without channels is the
/// frequent mistake: without pushes nobody sees an entry arrive.
async fn permit(connection: &mut MultiplexedConnection, target: &Target) -> Result<(), RedisError> {
    let publish = match target.deployment {
        Deployment::Cluster { .. } => "SPUBLISH",
        Deployment::Single(_) | Deployment::Sentinel { .. } => "PUBLISH",
    };
    let probe = format!("{}:probe:start", target.prefix);
    match Cmd::new().arg(publish).arg(probe).arg("").exec_async(connection).await {
        // A sharded channel is the business of one server, which need not be this one; it was permitted, though.
        Err(error)
            if matches!(error.kind(), ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::ClusterDown)) => {}
        published => published?,
    }
    if target.ack() == Ack::Replicated {
        // For no replica, that is, at once.
        Cmd::new().arg("WAIT").arg(0).arg(1).exec_async(connection).await?;
    }
    Ok(())
}

fn read_info(info: &str, target: &Target, at: &Address) -> Result<Server, NoServer> {
    let fields: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    let address = || at.to_string();
    let version = field("redis_version");
    let in_cluster = matches!(target.deployment, Deployment::Cluster { .. });
    match field("redis_mode") {
        "sentinel" => return Err(NoServer::Refused(RefusedStore::Sentinel { address: address() })),
        "cluster" if !in_cluster => return Err(NoServer::Refused(RefusedStore::Cluster { address: address() })),
        "standalone" if in_cluster => return Err(NoServer::Refused(RefusedStore::NoCluster { address: address() })),
        _ => {}
    }
    // Sharded channels came with 7.0. Valkey says 7.2.4 for the sake of those who ask.
    let (oldest, needed) = if in_cluster { ((7, 0), "7.0 (for a cluster)") } else { ((6, 2), "6.2") };
    if is_older(version, oldest) {
        return Err(NoServer::Refused(RefusedStore::Version { address: address(), found: version.into(), needed }));
    }
    if field("role") == "slave" {
        return Err(NoServer::Away(format!(
            "{at} is a replica, which cannot be written to; name its primary, or sentinels (redis-sentinel://), in the \
             store URL"
        )));
    }
    if field("loading") == "1" {
        return Err(NoServer::Away(format!("{at} is still loading its data")));
    }
    let mut warnings = Vec::new();
    let policy = field("maxmemory_policy");
    if !matches!(policy, "" | "noeviction" | "volatile-ttl") {
        warnings.push(format!(
            "maxmemory-policy of the Redis server at {at} is {policy}: it may drop live sessions; set it to noeviction \
             or volatile-ttl"
        ));
    }
    if field("aof_enabled") == "0" {
        warnings.push(format!(
            "the Redis server at {at} has no append-only file: what it acknowledged since its last snapshot is lost when \
             it restarts; set appendonly yes"
        ));
    }
    let replaceable = !matches!(target.deployment, Deployment::Single(_));
    if replaceable && field("connected_slaves") == "0" {
        // First a replica, then the setting: without one it would refuse every write.
        warnings.push(format!(
            "no replica follows the Redis server at {at}: nobody takes over when it fails; attach one, and set \
             min-replicas-to-write 1 then"
        ));
    } else if replaceable && target.ack() == Ack::Memory && !fields.contains_key("min_slaves_good_slaves") {
        warnings.push(format!(
            "the Redis server at {at} goes on when no replica follows it, and a failover takes back what it acknowledged \
             meanwhile; set min-replicas-to-write 1, or store.ack = \"replicated\""
        ));
    }
    let uptime = Duration::from_secs(field("uptime_in_seconds").parse().unwrap_or(0));
    Ok(Server {
        identity: half(field("run_id")).to_owned() + line_of(info).unwrap_or_default(),
        uptime,
        replicas: field("connected_slaves").parse().ok(),
        warnings,
    })
}

/// The line that a primary's data is of, by its `INFO replication`, as [`Server::identity`] ends; `None`: it is no
/// primary.
pub(super) fn line_of(info: &str) -> Option<&str> {
    let field = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
    (field("role") != Some("slave")).then(|| half(field("master_replid").unwrap_or_default()))
}

/// Enough of 40 random digits to know them again.
fn half(digits: &str) -> &str {
    digits.get(..20).unwrap_or(digits)
}

fn is_older(version: &str, oldest: (u32, u32)) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) < oldest,
        // Something compatible that does not say; the first script will tell.
        _ => false,
    }
}

/// Whether `error` passes by itself, or somebody must change something.
pub(super) fn judge(error: &RedisError, target: &Target, address: &Address) -> NoServer {
    let reason = plain_reason(error);
    let address = address.to_string();
    let user = target.user.clone();
    let text = error.to_string();
    if error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "DENIED"))
    {
        return NoServer::Refused(RefusedStore::Credentials { address, user, reason });
    }
    if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) {
        return NoServer::Refused(RefusedStore::Permission { address, user, prefix: target.prefix.clone(), reason });
    }
    if text.contains("refused to switch database") || text.contains("DB index is out of range") {
        return NoServer::Refused(RefusedStore::Database { address, db: target.db });
    }
    if error.kind() == ErrorKind::Parse {
        return NoServer::Refused(RefusedStore::NoRedis { address });
    }
    // rustls reports through an I/O error; what the peer's certificate lacks does not pass by itself.
    if let Some(advice) = tls_advice(&text) {
        return NoServer::Refused(RefusedStore::Tls { address, reason, advice });
    }
    NoServer::Away(format!("{address}: {reason}"))
}

/// The same for an error of what should be a sentinel.
pub(super) fn judge_sentinel(error: &RedisError, target: &Target, sentinel: &Address) -> NoServer {
    match judge(error, target, sentinel) {
        NoServer::Refused(RefusedStore::Credentials { address, reason, .. }) => {
            let user = target.sentinel_user().to_owned();
            NoServer::Refused(RefusedStore::SentinelCredentials { address, user, reason })
        }
        NoServer::Refused(RefusedStore::Permission { address, reason, .. }) => {
            NoServer::Refused(RefusedStore::SentinelPermission {
                address,
                user: target.sentinel_user().to_owned(),
                reason,
            })
        }
        _ if error.to_string().to_ascii_lowercase().contains("unknown command") => {
            NoServer::Refused(RefusedStore::NoSentinel { address: sentinel.to_string() })
        }
        other => other,
    }
}

/// What to change after a TLS error; `None`: it is none, or one that passes.
fn tls_advice(text: &str) -> Option<&'static str> {
    // The server has spoken (RFC 8446, 6.2), and what it says is mostly about us.
    if let Some((_, alert)) = text.split_once("received fatal alert: ") {
        return match alert {
            "CertificateRequired" => Some("it asks for a certificate: set store.cert_file and store.key_file"),
            "HandshakeFailure" => Some(
                "does it ask for a certificate (store.cert_file and store.key_file), or for a TLS version or cipher that is too old?",
            ),
            "ProtocolVersion" => Some("it needs TLS 1.2 or newer"),
            "DecryptError" | "AccessDenied" | "UnknownCA" => {
                Some("it does not accept the certificate of store.cert_file")
            }
            alert if alert.contains("Certificate") => Some("it does not accept the certificate of store.cert_file"),
            _ => None,
        };
    }
    let advice = [
        ("not valid for name", "write a host that the server's certificate names into the store URL"),
        ("NotValidForName", "write a host that the server's certificate names into the store URL"),
        ("certificate expired", "renew the server's certificate"),
        ("invalid peer certificate", "name the CA that signed the server's certificate with store.ca_file"),
        ("received corrupt message", "is TLS spoken there? Without it, write redis:// in the store URL"),
        ("failed to parse private key", "store.key_file holds no private key that can be used"),
        ("KeyMismatch", "store.key_file is not the key of the certificate of store.cert_file"),
    ];
    advice.into_iter().find(|(part, _)| text.contains(part)).map(|(_, advice)| advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::redis::RedisOptions;

    fn read_at(url: &str, info: &str) -> Result<Server, NoServer> {
        let target = RedisOptions::new(url).target().expect("a target");
        read_info(info, &target, &Address { host: "127.0.0.1".into(), port: 6379 })
    }

    fn read(info: &str) -> Result<Server, NoServer> {
        read_at("redis://127.0.0.1", info)
    }

    #[test]
    fn a_server_older_than_6_2_is_refused() {
        for version in ["6.0.16", "5.0.7", "2.8"] {
            let refused = read(&format!("redis_version:{version}\r\n"));
            assert!(matches!(refused, Err(NoServer::Refused(RefusedStore::Version { .. }))), "{version}");
        }
        for version in ["6.2.0", "7.0.15", "7.2.4", "10.0.1", "255.255.255"] {
            assert!(read(&format!("redis_version:{version}\r\n")).is_ok(), "{version}");
        }
    }

    #[test]
    fn a_cluster_needs_sharded_channels() {
        let of_version = |version| format!("redis_mode:cluster\r\nredis_version:{version}\r\n");
        let Err(NoServer::Refused(refused)) = read_at("redis-cluster://h", &of_version("6.2.14")) else { panic!() };
        assert!(refused.to_string().contains("version 7.0 (for a cluster) or newer"), "{refused}");
        for version in ["7.0.0", "7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.5"] {
            assert!(read_at("redis-cluster://h", &of_version(version)).is_ok(), "{version}");
        }
    }

    #[test]
    fn a_primary_that_goes_on_alone_is_warned_about_where_another_may_take_over() {
        let warnings = |url, info| read_at(url, info).expect("usable").warnings.join(" ");
        let sentinel = "redis-sentinel://h?master=m";
        assert!(warnings(sentinel, "").contains("min-replicas-to-write"));
        assert_eq!(warnings(sentinel, "min_slaves_good_slaves:1\r\n"), "");
        let alone = warnings("redis-cluster://h", "redis_version:7.0.0\r\nconnected_slaves:0\r\n");
        assert!(alone.contains("attach one") && !alone.contains("goes on"), "{alone}");
        assert_eq!(warnings("redis://h", ""), "");
    }

    #[test]
    fn every_kind_of_server_is_refused_where_another_is_expected() {
        for (url, mode, says) in [
            ("redis://h", "sentinel", "redis-sentinel://"),
            ("redis-cluster://h", "sentinel", "redis-sentinel://"),
            ("redis-sentinel://h?master=m", "cluster", "redis-cluster://"),
            ("redis-cluster://h", "standalone", "write redis://"),
        ] {
            let read = read_at(url, &format!("redis_mode:{mode}\r\n"));
            let Err(NoServer::Refused(refused)) = read else { panic!("{url} at a {mode}: {read:?}") };
            assert!(refused.to_string().contains(says), "{refused}");
        }
    }

    #[test]
    fn tls_errors_say_what_to_change_and_others_say_nothing() {
        for (error, says) in [
            ("invalid peer certificate: UnknownIssuer", Some("store.ca_file")),
            ("invalid peer certificate: certificate expired: …", Some("renew")),
            ("invalid peer certificate: certificate not valid for name \"h\"; …", Some("write a host")),
            ("received fatal alert: CertificateRequired", Some("set store.cert_file")),
            ("received fatal alert: CertificateExpired", Some("does not accept the certificate")),
            ("keys may not be consistent: KeyMismatch", Some("store.key_file")),
            ("unexpected error: failed to parse private key as RSA, ECDSA, or EdDSA", Some("store.key_file")),
            ("received fatal alert: InternalError", None),
            ("Connection refused (os error 111)", None),
        ] {
            assert_eq!(tls_advice(error).is_some(), says.is_some(), "{error}");
            assert!(says.is_none_or(|says| tls_advice(error).is_some_and(|advice| advice.contains(says))), "{error}");
        }
    }

    #[test]
    fn a_server_that_evicts_or_forgets_is_warned_about() {
        let info = "redis_version:7.0.0\r\nuptime_in_seconds:7\r\nrun_id:abc\r\n";
        let server = read(&format!("{info}maxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n")).expect("usable");
        assert_eq!((&*server.identity, server.uptime), ("abc", Duration::from_secs(7)));
        assert!(server.warnings[0].contains("allkeys-lru") && server.warnings[0].contains("noeviction"));
        assert!(server.warnings[1].contains("appendonly yes"));
    }

    #[test]
    fn a_replica_and_a_loading_server_are_waited_for() {
        for info in ["role:slave\r\n", "loading:1\r\n"] {
            assert!(matches!(read(info), Err(NoServer::Away(_))));
        }
    }

    #[test]
    fn a_cluster_node_is_refused_in_words() {
        let Err(NoServer::Refused(refused)) = read("redis_mode:cluster\r\n") else { panic!("not refused") };
        assert!(refused.to_string().contains("cluster mode"), "{refused}");
    }
}
