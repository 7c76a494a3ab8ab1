//! A store's address, and the embedded store's default place. The password in an address is never
//! shown: `Debug` and `Display` leave it out, and no error repeats what was written.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::redis_url::RedisUrl;

/// A store's address.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A server, one that sentinels name, or a cluster.
    Redis(RedisUrl),
    /// `file:DIR`.
    File(PathBuf),
    /// `memory:`; gone with the process.
    Memory,
}

impl StoreUrl {
    /// Reads `redis://…` and its relatives (see [`crate::redis_url`]), `file:DIR` or `memory:`. The error says what to write
    /// instead and repeats nothing but the scheme.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str = "write `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `redis-sentinel://…`, \
                             `redis-cluster://…`, `rediss…://…` for TLS, `file:DIR` or `memory:`";
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(format!("not the address of a store; {FORMS}"));
        };
        match scheme {
            _ if RedisUrl::knows(scheme) => match RedisUrl::parse(text) {
                Ok(url) => Ok(StoreUrl::Redis(url)),
                Err(error) => Err(format!("not the address of a Redis: {error}")),
            },
            "file" => file_place(rest),
            "memory" if rest.is_empty() => Ok(StoreUrl::Memory),
            "memory" => Err("a store in memory has no place; write `memory:`".into()),
            _ => Err(format!("no store has the scheme `{scheme}:`; {FORMS}")),
        }
    }

    /// Where the embedded store lives when no store is named: `SIDESTREAM_DATA_DIR`, else
    /// `sidestream/<upstream host:port>` below `XDG_STATE_HOME` or `~/.local/state`. `None` where
    /// `environment` has none of them.
    pub fn embedded_default(upstream: &http::Uri, environment: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let named = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(dir) = named("SIDESTREAM_DATA_DIR") {
            return Some(StoreUrl::File(dir));
        }
        // XDG Base Directory: a relative path is to be ignored.
        let state = named("XDG_STATE_HOME")
            .filter(|dir| dir.is_absolute())
            .or_else(|| named("HOME").map(|home| home.join(".local/state")))?;
        Some(StoreUrl::File(state.join("sidestream").join(folder_name(upstream))))
    }

    /// The embedded store's folder.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            StoreUrl::File(dir) => Some(dir),
            _ => None,
        }
    }
}

fn file_place(rest: &str) -> Result<StoreUrl, String> {
    // `file:///dir` is what a URL library makes of `file:/dir`.
    let dir = match rest.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => return Err("`file://HOST/…` is not supported; write `file:DIR` or `file:///DIR`".into()),
        None => rest,
    };
    if dir.is_empty() {
        return Err("`file:` names no folder; write `file:DIR`".into());
    }
    Ok(StoreUrl::File(dir.into()))
}

/// `host:port` as one harmless path segment.
fn folder_name(upstream: &http::Uri) -> String {
    let port = upstream.port_u16().unwrap_or(if upstream.scheme_str() == Some("https") { 443 } else { 80 });
    let host = upstream.host().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    format!("{}:{port}", host.chars().map(plain).collect::<String>())
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Redis(url) => url.fmt(f),
            StoreUrl::File(dir) => write!(f, "file:{}", dir.display()),
            StoreUrl::Memory => f.write_str("memory:"),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_store_is_read() {
        for url in [
            "redis://localhost",
            "redis://u:p%40@h:6380/3",
            "rediss://:pw@[::1]:6379",
            "redis://h/0?protocol=resp3",
            "redis-sentinel://a,b/1?master=m",
            "rediss-cluster://u:p@a:7000,b",
        ] {
            let parsed = StoreUrl::parse(url);
            assert!(matches!(&parsed, Ok(StoreUrl::Redis(redis)) if redis.text() == url), "{url}: {parsed:?}");
        }
        assert_eq!(StoreUrl::parse("file:data"), Ok(StoreUrl::File("data".into())));
        assert_eq!(StoreUrl::parse("file:/var/x"), Ok(StoreUrl::File("/var/x".into())));
        assert_eq!(StoreUrl::parse("file:///var/x"), Ok(StoreUrl::File("/var/x".into())));
        assert_eq!(StoreUrl::parse("memory:"), Ok(StoreUrl::Memory));
    }

    #[test]
    fn what_is_not_a_store_is_refused_without_repeating_the_password() {
        let wrong = [
            "",
            "secret",
            "redis:secret",
            "redis://",
            "redis://:secret",
            "redis://u:secret@",
            "redis://h:port-secret",
            "redis://u:secret@h/notadb",
            "rediss://u:secret@h#insecure",
            "redis-cluster://u:secret@h/1",
            "redis-sentinel://u:secret@h",
            "http://u:secret@h",
            "file:",
            "file://host/x",
            "memory:x",
        ];
        for text in wrong {
            let error = StoreUrl::parse(text).expect_err(text);
            assert!(!error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = StoreUrl::parse("redis://user:s3cret@h:1/2").unwrap();
        assert_eq!(url.to_string(), "redis://***@h:1/2");
        assert_eq!(format!("{url:?}"), "StoreUrl(redis://***@h:1/2)");
    }

    #[test]
    fn the_embedded_place_is_the_data_dir_else_below_the_state_home() {
        let place = |upstream: &'static str, vars: &[(&str, &str)]| {
            let find = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
            StoreUrl::embedded_default(&http::Uri::from_static(upstream), find).map(|url| url.to_string())
        };
        let all = [("SIDESTREAM_DATA_DIR", "/d"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(place("http://a:1", &all).as_deref(), Some("file:/d"));
        assert_eq!(place("http://a:1", &all[1..]).as_deref(), Some("file:/x/sidestream/a:1"));
        assert_eq!(place("https://a", &all[2..]).as_deref(), Some("file:/h/.local/state/sidestream/a:443"));
        let relative = [("XDG_STATE_HOME", "x"), ("HOME", "/h")];
        assert_eq!(place("http://[::1]:9", &relative).as_deref(), Some("file:/h/.local/state/sidestream/___1_:9"));
        assert_eq!(place("http://a:1", &[]), None);
    }
}
