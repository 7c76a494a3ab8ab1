//! A store's address, and the embedded store's default place. The password in an address is never
//! shown: `Debug` and `Display` leave it out, and no error repeats what was written.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use ::redis::IntoConnectionInfo;

/// A store's address.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `redis://` or `rediss://`, with optional `user:password@` and `/db`.
    Redis(String),
    /// `file:DIR`.
    File(PathBuf),
    /// `memory:`; gone with the process.
    Memory,
}

impl StoreUrl {
    /// Reads `redis://…`, `rediss://…`, `file:DIR` or `memory:`. The error says what to write
    /// instead and repeats nothing but the scheme.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str = "write `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `rediss://…`, `file:DIR` or `memory:`";
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(format!("not the address of a store; {FORMS}"));
        };
        match scheme {
            "redis" | "rediss" => redis_url(text, scheme),
            "redis-cluster" | "rediss-cluster" | "redis-sentinel" | "rediss-sentinel" => Err(format!(
                "`{scheme}://` comes with a later version; this one speaks to a single server, `redis://…`"
            )),
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

fn redis_url(text: &str, scheme: &str) -> Result<StoreUrl, String> {
    // The driver reads `#insecure` as "accept any certificate".
    if text.contains('#') {
        return Err("a store's address has no `#…`; percent-encode a `#` in the password as `%23`".into());
    }
    if text.into_connection_info().is_err() {
        return Err(format!(
            "not the address of a Redis server; write `{scheme}://[USER:PASSWORD@]HOST[:PORT][/DB]` \
             and percent-encode special characters in the password"
        ));
    }
    Ok(StoreUrl::Redis(text.into()))
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
            StoreUrl::Redis(url) => f.write_str(&without_credentials(url)),
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

/// `url` with `***` for the user and password, and without its query, which may hold them as well.
fn without_credentials(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) => format!("{}***{}", &url[..scheme + 3], &url[at..]),
        _ => url.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_store_is_read() {
        for url in
            ["redis://localhost", "redis://u:p%40@h:6380/3", "rediss://:pw@[::1]:6379", "redis://h/0?protocol=resp3"]
        {
            assert_eq!(StoreUrl::parse(url), Ok(StoreUrl::Redis(url.into())));
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
    fn cluster_and_sentinel_are_said_to_come_later() {
        for url in ["redis-cluster://a,b", "redis-sentinel://a/master"] {
            assert!(StoreUrl::parse(url).expect_err(url).contains("comes with a later version"));
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("redis://user:s3cret@h:1/2", "redis://***@h:1/2"),
            ("redis://:s3c@ret@h", "redis://***@h"),
            ("redis://h/0?password=s3cret", "redis://h/0"),
            ("redis://h:6379", "redis://h:6379"),
        ] {
            let url = StoreUrl::Redis(url.into());
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("StoreUrl({shown})"));
        }
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
