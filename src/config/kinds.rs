//! The kinds of values that only single options have. Like `value`, nothing here knows which option
//! it reads for.

use std::path::PathBuf;

use http::Uri;

use super::network::Network;
use super::principal::PrincipalRule;
use super::route_kinds::Pattern;
use super::secret::Secret;
use super::settings::{AuthMode, HostPolicy, Http2, Intercept, LogFormat};
use super::store::Ack;
use super::store_url::StoreUrl;
use super::value::{Choice, Given, Kind, ListOf, quoted};

impl Choice for AuthMode {
    const FORM: &'static str = "none";
    const NAMES: &'static [(&'static str, Self)] = &[("none", AuthMode::None)];
    const LATER: &'static [&'static str] = &["capability", "jwt", "forward"];
}

impl Choice for Option<HostPolicy> {
    const FORM: &'static str = "auto|preserve|upstream";
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", None), ("preserve", Some(HostPolicy::Preserve)), ("upstream", Some(HostPolicy::Upstream))];
}

impl Choice for Http2 {
    const FORM: &'static str = "off|h2c|alpn";
    const NAMES: &'static [(&'static str, Self)] = &[("off", Http2::Off), ("h2c", Http2::H2c), ("alpn", Http2::Alpn)];
}

impl Choice for LogFormat {
    const FORM: &'static str = "auto|pretty|json";
    const NAMES: &'static [(&'static str, Self)] =
        &[("auto", LogFormat::Auto), ("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
}

impl Choice for Ack {
    const FORM: &'static str = "memory|replicated";
    const NAMES: &'static [(&'static str, Self)] = &[("memory", Ack::Memory), ("replicated", Ack::Replicated)];
}

/// The backend's address.
pub(super) struct BackendUrl;

impl Kind for BackendUrl {
    type Value = Uri;
    const FORM: &'static str = "URL";

    fn read(given: &Given) -> Result<Uri, String> {
        let text = given.text("a URL")?;
        // The text is not repeated before it is known to hold no credentials.
        let wrong =
            |what: &str| Err(format!("{what}; write `http://HOST:PORT` or `https://HOST:PORT`, with an optional path"));
        let Ok(uri) = text.parse::<Uri>() else { return wrong("not a URL") };
        let Some(authority) = uri.authority() else { return wrong("the URL lacks its scheme or host") };
        if authority.as_str().contains('@') {
            return wrong("a user and password in the upstream's URL are not supported");
        }
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return wrong(&format!("`{text}` is neither `http://` nor `https://`"));
        }
        // `http://host:99999` parses, without a port.
        if authority.as_str().len() > authority.host().len() && authority.port_u16().is_none() {
            return wrong(&format!("`{text}` has no valid port"));
        }
        if uri.query().is_some() || text.contains('#') {
            return wrong(&format!("`{text}` has a query or fragment, which cannot be forwarded to"));
        }
        Ok(uri)
    }

    fn show(value: &Uri) -> String {
        quoted(value)
    }
}

/// Any text that is not empty.
pub(super) struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;
    const FORM: &'static str = "FILE";

    fn read(given: &Given) -> Result<PathBuf, String> {
        match given.text("the path of a file")? {
            "" => Err("the path is empty".into()),
            text => Ok(text.into()),
        }
    }

    fn show(value: &PathBuf) -> String {
        quoted(value.display())
    }
}

/// A store's address.
pub(super) struct StorePlace;

impl Kind for StorePlace {
    type Value = StoreUrl;
    const FORM: &'static str = "URL";

    fn read(given: &Given) -> Result<StoreUrl, String> {
        StoreUrl::parse(given.text("the address of a store")?)
    }

    fn show(value: &StoreUrl) -> String {
        quoted(value)
    }
}

/// `env:NAME` or `file:PATH`.
pub(super) struct SecretPlace;

impl Kind for SecretPlace {
    type Value = Secret;
    const FORM: &'static str = "env:NAME|file:PATH";

    fn read(given: &Given) -> Result<Secret, String> {
        Secret::parse(given.text("where a password is found")?)
    }

    fn show(value: &Secret) -> String {
        quoted(value)
    }
}

/// A user of another server.
pub(super) struct User;

impl Kind for User {
    type Value = String;
    const FORM: &'static str = "USER";

    fn read(given: &Given) -> Result<String, String> {
        match given.text("the name of a user")? {
            "" => Err("the name is empty".into()),
            text => Ok(text.into()),
        }
    }

    fn show(value: &String) -> String {
        quoted(value)
    }
}

/// The beginning of every Redis key: no braces, which decide a key's slot in a cluster.
pub(super) struct KeyPrefix;

impl Kind for KeyPrefix {
    type Value = String;
    const FORM: &'static str = "NAME";

    fn read(given: &Given) -> Result<String, String> {
        let text = given.text("a name")?;
        if (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return Ok(text.into());
        }
        Err(format!("`{text}` cannot begin a key; write 1 to 64 characters of A-Z a-z 0-9 . _ -"))
    }

    fn show(value: &String) -> String {
        quoted(value)
    }
}

/// The beginning of a path: `/name` or `/name/name`.
pub(super) struct PathPrefix;

impl Kind for PathPrefix {
    type Value = String;
    const FORM: &'static str = "PATH";

    fn read(given: &Given) -> Result<String, String> {
        let text = given.text("a path")?;
        let plain = |segment: &str| {
            !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
        };
        if text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain)) {
            return Ok(text.into());
        }
        Err(format!("`{text}` is not a path prefix; write `/name` or `/name/name`, without a final slash"))
    }

    fn show(value: &String) -> String {
        quoted(value)
    }
}

/// `address/bits`.
pub(super) struct Networks;

impl Kind for Networks {
    type Value = Network;
    const FORM: &'static str = "NETWORK";

    fn read(given: &Given) -> Result<Network, String> {
        Network::parse(given.text("a network")?)
    }

    fn show(value: &Network) -> String {
        quoted(value)
    }
}

/// A browser's origin (RFC 6454): `scheme://host[:port]`, or `*`.
pub(super) struct Origin;

impl Kind for Origin {
    type Value = String;
    const FORM: &'static str = "ORIGIN";

    fn read(given: &Given) -> Result<String, String> {
        let text = given.text("an origin")?;
        let exact = text.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' '])
        });
        // Browsers send origins in lower case; they are compared byte by byte.
        let lower = text.bytes().all(|b| !b.is_ascii_uppercase());
        if text == "*" || (exact && lower) {
            return Ok(text.into());
        }
        Err(format!("`{text}` is not an origin; write `https://app.example.com` (lower case, no path), or `*`"))
    }

    fn show(value: &String) -> String {
        quoted(value)
    }
}

/// A level, or directives per module.
pub(super) struct LogFilter;

impl Kind for LogFilter {
    type Value = String;
    const FORM: &'static str = "LEVEL";

    fn read(given: &Given) -> Result<String, String> {
        let text = given.text("a level")?;
        match tracing_subscriber::EnvFilter::builder().parse(text) {
            Ok(_) if !text.is_empty() => Ok(text.into()),
            _ => Err(format!(
                "`{text}` is not a log level; write `error`, `warn`, `info`, `debug` or `trace`, \
                 or directives such as `info,sidestream::run=debug`"
            )),
        }
    }

    fn show(value: &String) -> String {
        quoted(value)
    }
}

/// `auto`, `off`, or routes.
pub(super) struct Interception;

impl Kind for Interception {
    type Value = Intercept;
    const FORM: &'static str = "auto|off|ROUTES";

    fn read(given: &Given) -> Result<Intercept, String> {
        match given {
            Given::Text(text) if text == "auto" => Ok(Intercept::Auto),
            Given::Text(text) if text == "off" => Ok(Intercept::Off),
            Given::Text(_) | Given::List(_) => <ListOf<Pattern>>::read(given)
                .and_then(|routes| if routes.is_empty() { Err("no route is named".into()) } else { Ok(routes) })
                .map(Intercept::Only)
                .map_err(|error| format!("{error} (or write `auto`, or `off` for none)")),
            other => other.text("`auto`, `off` or an array of routes").map(|_| Intercept::Auto),
        }
    }

    fn show(value: &Intercept) -> String {
        match value {
            Intercept::Auto => quoted("auto"),
            Intercept::Off => quoted("off"),
            Intercept::Only(routes) => <ListOf<Pattern>>::show(routes),
        }
    }
}

/// What of a request is its principal.
pub(super) struct Principal;

impl Kind for Principal {
    type Value = PrincipalRule;
    const FORM: &'static str = "PRINCIPAL";

    fn read(given: &Given) -> Result<PrincipalRule, String> {
        PrincipalRule::parse(given.text("a principal")?)
    }

    fn show(value: &PrincipalRule) -> String {
        quoted(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Given {
        Given::Text(text.into())
    }

    #[test]
    fn the_upstream_is_an_http_address_without_credentials() {
        for url in ["http://127.0.0.1:8000", "https://agent.example/base", "http://[::1]:80", "http://agent"] {
            assert!(BackendUrl::read(&text(url)).is_ok(), "{url}");
        }
        for url in [
            "",
            "localhost:8000",
            "/x",
            "ftp://h",
            "http://",
            "http://h:99999",
            "http://h/?q",
            "http://h/#f",
            "http://user:secret@h",
        ] {
            let error = BackendUrl::read(&text(url)).expect_err(url);
            assert!(error.contains("http://HOST:PORT") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_origin_is_exactly_what_a_browser_sends() {
        for origin in ["https://app.example.com", "http://localhost:3000", "*"] {
            assert!(Origin::read(&text(origin)).is_ok(), "{origin}");
        }
        for origin in
            ["app.example.com", "https://app.example.com/", "https://App.example", "https://*.example", "null"]
        {
            assert!(Origin::read(&text(origin)).is_err(), "{origin}");
        }
    }

    #[test]
    fn a_path_prefix_has_plain_segments_and_no_final_slash() {
        for prefix in ["/_sidestream", "/api/_s"] {
            assert!(PathPrefix::read(&text(prefix)).is_ok(), "{prefix}");
        }
        for prefix in ["", "/", "api", "/api/", "/a//b", "/a b", "/%20"] {
            assert!(PathPrefix::read(&text(prefix)).is_err(), "{prefix}");
        }
    }

    #[test]
    fn a_log_level_may_name_modules() {
        assert!(LogFilter::read(&text("info,sidestream::run=debug")).is_ok());
        assert!(LogFilter::read(&text("")).is_err());
        assert!(LogFilter::read(&text("sidestream=loud")).is_err());
    }

    #[test]
    fn interception_is_auto_off_or_routes() {
        assert_eq!(Interception::read(&text("off")), Ok(Intercept::Off));
        let routes = Interception::read(&text("POST /a, * /b/*")).unwrap();
        assert_eq!(Interception::show(&routes), r#"["POST /a", "* /b/*"]"#);
        assert!(Interception::read(&Given::List(vec![])).is_err());
        assert!(Interception::read(&Given::Boolean(false)).is_err());
        assert!(Interception::read(&text("of")).unwrap_err().contains("`off`"));
    }

    #[test]
    fn a_later_way_to_authenticate_says_so() {
        use super::super::value::OneOf;
        assert!(<OneOf<AuthMode>>::read(&text("jwt")).unwrap_err().contains("later version"));
        assert!(<OneOf<AuthMode>>::read(&text("open")).unwrap_err().contains("`none`"));
    }
}
