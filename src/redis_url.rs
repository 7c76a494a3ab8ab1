//! The address of a Redis deployment as an operator writes it: one server, one that sentinels name, or a cluster.
//!
//! ```text
//! redis://          [USER:PASSWORD@]HOST[:PORT][/DB]
//! redis-sentinel:// [USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/DB]?master=NAME
//! redis-cluster://  [USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]
//! ```
//!
//! `rediss…` is the same with TLS. Special characters of user, password and name are percent-encoded (RFC 3986,
//! 2.1); an IPv6 address stands in brackets. Must never: show the password, or repeat in an error what may hold it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use percent_encoding::percent_decode_str;

/// Where Redis listens.
const PORT: u16 = 6379;
/// Where a sentinel listens.
const SENTINEL_PORT: u16 = 26379;

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// How the servers are found.
    pub topology: Topology,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// The user; `None`: the server's `default`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// Name or IP address (without brackets), and port; not empty.
    pub hosts: Vec<(String, u16)>,
    /// The database number.
    pub db: i64,
    text: String,
}

/// How the servers are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// The host is the server.
    Single,
    /// The hosts are sentinels.
    Sentinel {
        /// What they call the primary.
        master: String,
    },
    /// The hosts are some servers of the cluster.
    Cluster,
}

impl RedisUrl {
    /// Whether `scheme` is one of ours.
    pub fn knows(scheme: &str) -> bool {
        form(scheme).is_some()
    }

    /// Reads an address. The error says what is wrong and what to write; of what was written it repeats nothing
    /// but the scheme.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        let Some(form) = form(scheme) else {
            return Err("its scheme is not known; write `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, \
                        `redis-sentinel://…`, `redis-cluster://…`, or `rediss…://…` for TLS"
                .into());
        };
        let after_s = scheme.strip_prefix("rediss");
        let tail = after_s.unwrap_or(&scheme["redis".len()..]);
        read(text, rest, tail, after_s.is_some()).map_err(|reason| {
            format!("{reason}; write `{scheme}://{form}`, and percent-encode special characters in the password")
        })
    }

    /// As it was written, password included.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// What comes after `scheme://`; `None`: not a scheme of ours.
fn form(scheme: &str) -> Option<&'static str> {
    match scheme {
        "redis" | "rediss" => Some("[USER:PASSWORD@]HOST[:PORT][/DB]"),
        "redis-sentinel" | "rediss-sentinel" => Some("[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/DB]?master=NAME"),
        "redis-cluster" | "rediss-cluster" => Some("[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]"),
        _ => None,
    }
}

fn read(text: &str, rest: &str, kind: &str, tls: bool) -> Result<RedisUrl, String> {
    // Other clients read `#insecure` as "accept any certificate".
    if text.contains('#') {
        return Err("a store's address has no `#…`".into());
    }
    let rest = rest.strip_prefix("//").ok_or("it lacks the `//`")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let port = if kind == "-sentinel" { SENTINEL_PORT } else { PORT };
    let hosts = hosts.split(',').map(|host| read_host(host, port)).collect::<Result<Vec<_>, _>>()?;
    let master = read_query(query)?;
    let topology = match (kind, master) {
        ("-sentinel", Some(master)) => Topology::Sentinel { master },
        ("-sentinel", None) => return Err("it lacks the name that the sentinels give the primary".into()),
        (_, Some(_)) => return Err("`master=` is a matter of `redis-sentinel://`".into()),
        ("-cluster", None) => Topology::Cluster,
        _ => Topology::Single,
    };
    if topology == Topology::Single && hosts.len() > 1 {
        return Err("it names several hosts, which are a cluster (`redis-cluster://…`) or sentinels \
                    (`redis-sentinel://…?master=NAME`), never a single server"
            .into());
    }
    let db = match path.trim_end_matches('/') {
        "" => 0,
        digits => digits.parse().ok().filter(|db| *db >= 0).ok_or("what stands after the `/` is no database number")?,
    };
    if topology == Topology::Cluster && db != 0 {
        return Err("a cluster has no databases but 0".into());
    }
    let (user, password) = (decode(user)?, decode(password)?);
    Ok(RedisUrl { topology, tls, user, password, hosts, db, text: text.into() })
}

fn read_host(text: &str, default: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            address.parse::<Ipv6Addr>().map_err(|_| "what stands in brackets is no IPv6 address")?;
            let port = rest.strip_prefix(':');
            if port.is_none() && !rest.is_empty() {
                return Err("after the bracket there is something else than a port".into());
            }
            (address, port)
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(plain) {
        return Err("a host is missing or is not a name".into());
    }
    if host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()) {
        return Err("a wildcard address is nobody's".into());
    }
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or("a port is not a number from 1 to 65535")?,
        None => default,
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// The `master`. `protocol` is accepted because other clients have it, and means nothing: we choose it.
fn read_query(query: &str) -> Result<Option<String>, String> {
    let mut master = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("master", name)) => master = decode(name)?,
            Some(("protocol", _)) => {}
            _ => return Err("after the `?` there is something else than `master=NAME`".into()),
        }
    }
    Ok(master)
}

/// `None`: empty.
fn decode(text: &str) -> Result<Option<String>, String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "what is percent-encoded is not UTF-8")?;
    Ok(Some(decoded.into_owned()).filter(|text| !text.is_empty()))
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.text.split_once("://").unwrap_or_default();
        let end = after.find(['/', '?']).unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(at) => write!(f, "{before}://***{}", &after[at..]),
            None => f.write_str(&self.text),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RedisUrl {
        RedisUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn hosts(url: &RedisUrl) -> Vec<(&str, u16)> {
        url.hosts.iter().map(|(host, port)| (host.as_str(), *port)).collect()
    }

    #[test]
    fn a_single_server_has_a_host_and_perhaps_credentials_a_port_and_a_database() {
        let url = parse("redis://localhost");
        assert_eq!((hosts(&url), url.tls, url.db), (vec![("localhost", 6379)], false, 0));
        assert_eq!((url.topology, url.user, url.password), (Topology::Single, None, None));
        let url = parse("rediss://u%3A:p%40%2F@[::1]:6380/3");
        assert_eq!((hosts(&url), url.tls, url.db), (vec![("::1", 6380)], true, 3));
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("u:"), Some("p@/")));
        let url = parse("redis://:s3c@ret@Host/?protocol=resp3");
        assert_eq!(
            (hosts(&url), url.user.as_deref(), url.password.as_deref()),
            (vec![("host", 6379)], None, Some("s3c@ret"))
        );
    }

    #[test]
    fn sentinels_are_several_and_name_a_primary() {
        let url = parse("redis-sentinel://u:p@a,b:1,[fe80::2]/2?master=my%20master");
        assert_eq!(hosts(&url), [("a", 26379), ("b", 1), ("fe80::2", 26379)]);
        assert_eq!((url.topology, url.db, url.tls), (Topology::Sentinel { master: "my master".into() }, 2, false));
        assert!(parse("rediss-sentinel://a?master=m").tls);
    }

    #[test]
    fn a_cluster_is_some_of_its_servers_and_has_no_databases() {
        let url = parse("rediss-cluster://a,b:1,c/0");
        assert_eq!(hosts(&url), [("a", 6379), ("b", 1), ("c", 6379)]);
        assert_eq!((url.topology, url.tls), (Topology::Cluster, true));
        assert!(RedisUrl::parse("redis-cluster://a/1").expect_err("a database").contains("no databases"));
    }

    #[test]
    fn what_is_not_an_address_is_told_its_form_without_repeating_the_password() {
        for (text, says) in [
            ("redis:secret", "redis://["),
            ("http://u:secret@h", "scheme"),
            ("redis+unix:///secret", "scheme"),
            ("redis://", "host"),
            ("redis://:secret", "host"),
            ("redis://u:secret@", "host"),
            ("redis://h:port-secret", "port"),
            ("redis://h:0", "port"),
            ("redis://u:sec/ret@h", "percent-encode"),
            ("redis://u:sec?ret@h", "percent-encode"),
            ("redis://u:secret@h/notadb", "database"),
            ("redis://u:secret@h/-1", "database"),
            ("redis://u:%ffsecret@h", "UTF-8"),
            ("rediss://u:secret@h#insecure", "#"),
            ("redis://u:secret@a,b", "redis-cluster://"),
            ("redis://u:secret@h?master=m", "redis-sentinel://"),
            ("redis-sentinel://u:secret@h", "?master=NAME"),
            ("redis-sentinel://u:secret@h?master=", "?master=NAME"),
            ("redis-sentinel://h/master?master=m", "database"),
            ("redis-cluster://u:secret@h,", "host"),
            ("redis-cluster://u:secret@h?x=secret", "after the `?`"),
            ("redis://[::1", "host"),
            ("redis://[::1]x", "port"),
            ("redis://[nothing]", "IPv6"),
            ("redis://0.0.0.0", "wildcard"),
            ("redis://[::]", "wildcard"),
        ] {
            let error = RedisUrl::parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("secret") && !error.contains("sec/") && !error.contains("ret@"), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("redis://user:s3cret@h:1/2", "redis://***@h:1/2"),
            ("redis://:s3c@ret@h", "redis://***@h"),
            ("redis-sentinel://:s3cret@a,b/1?master=m@n", "redis-sentinel://***@a,b/1?master=m@n"),
            ("redis-cluster://h:6379", "redis-cluster://h:6379"),
        ] {
            let url = parse(url);
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.into(), format!("RedisUrl({shown})")));
        }
    }
}
