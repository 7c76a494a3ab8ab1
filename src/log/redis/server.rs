//! What the server is: version, role, identity, and how it treats what we store there.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};

use super::deployment::{Address, Deployment};
use super::options::{RefusedStore, plain_reason};
use super::target::Target;

/// A server that can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// Its `run_id`: another one after every start and on every other server. Empty: not known.
    pub(super) identity: String,
    /// Since when it runs; zero where it does not say.
    pub(super) uptime: Duration,
    /// What its operator should know.
    pub(super) warnings: Vec<String>,
}

/// Why there is no usable connection.
#[derive(Debug)]
pub(super) enum NoServer {
    /// Somebody must change something.
    Refused(RefusedStore),
    /// It may come back by itself.
    Away(String),
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
    // Without pushes nobody sees an entry arrive; a user without channels is a frequent mistake.
    let probe = format!("{}:probe:start", target.prefix);
    let published: Result<i64, RedisError> = Cmd::new().arg("PUBLISH").arg(probe).arg("").query_async(connection).await;
    published.map_err(|error| judge(&error, target, address))?;
    Ok(server)
}

fn read_info(info: &str, target: &Target, at: &Address) -> Result<Server, NoServer> {
    let fields: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    let address = || at.to_string();
    let version = field("redis_version");
    if is_older_than_6_2(version) {
        return Err(NoServer::Refused(RefusedStore::Version { address: address(), found: version.into() }));
    }
    if field("redis_mode") == "cluster" && !matches!(target.deployment, Deployment::Cluster { .. }) {
        return Err(NoServer::Refused(RefusedStore::Cluster { address: address() }));
    }
    if field("role") == "slave" {
        return Err(NoServer::Away(format!("{} is a replica, which cannot be written to", at)));
    }
    if field("loading") == "1" {
        return Err(NoServer::Away(format!("{} is still loading its data", at)));
    }
    let mut warnings = Vec::new();
    let policy = field("maxmemory_policy");
    if !matches!(policy, "" | "noeviction" | "volatile-ttl") {
        warnings.push(format!(
            "maxmemory-policy of the Redis server at {} is {policy}: it may drop live sessions; set it to noeviction \
             or volatile-ttl",
            at
        ));
    }
    if field("aof_enabled") == "0" {
        warnings.push(format!(
            "the Redis server at {} has no append-only file: what it acknowledged since its last snapshot is lost when \
             it restarts; set appendonly yes",
            at
        ));
    }
    let uptime = Duration::from_secs(field("uptime_in_seconds").parse().unwrap_or(0));
    Ok(Server { identity: field("run_id").to_owned(), uptime, warnings })
}

fn is_older_than_6_2(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) < (6, 2),
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
    // rustls reports through an I/O error; what the peer's certificate lacks does not pass by itself.
    if text.contains("invalid peer certificate") || text.contains("received corrupt message") {
        return NoServer::Refused(RefusedStore::Tls { address, reason: text });
    }
    NoServer::Away(format!("{address}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::redis::RedisOptions;

    fn read(info: &str) -> Result<Server, NoServer> {
        read_info(
            info,
            &RedisOptions::new("redis://127.0.0.1").target().expect("a target"),
            &Address { host: "127.0.0.1".into(), port: 6379 },
        )
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
