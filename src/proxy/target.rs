//! The upstream's address, and how request targets and `Location` translate between its URLs and
//! ours. Scheme, host and port are fixed at start: nothing of a request can change them.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Target {
    secure: bool,
    authority: Authority,
    /// Path prefix without a final slash; empty for none.
    prefix: String,
}

impl Target {
    /// From `http://host[:port][/prefix]` or `https://…`. The error says what is wrong with it.
    pub fn new(url: &Uri) -> Result<Self, &'static str> {
        let secure = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("it must begin with http:// or https://"),
        };
        let authority = url.authority().cloned().ok_or("it has no host")?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err("it must have a host and no user information");
        }
        if url.query().is_some() {
            return Err("it must not have a query");
        }
        Ok(Target { secure, authority, prefix: url.path().trim_end_matches('/').to_owned() })
    }

    /// Whether it is spoken to over TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host, and port where it was given.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The host as DNS or the socket wants it: without the brackets of IPv6.
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port, the scheme's own where none was given.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.secure { 443 } else { 80 })
    }

    /// For people.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.authority, self.prefix)
    }

    pub(super) fn scheme(&self) -> Scheme {
        if self.secure { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// The path and query that the upstream is asked for, byte for byte the client's behind the
    /// prefix.
    pub(super) fn path(&self, requested: &Uri) -> PathAndQuery {
        let asked = requested.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        if self.prefix.is_empty() || asked.as_str() == "*" {
            return asked;
        }
        // Two valid paths behind each other are a valid path.
        PathAndQuery::try_from(format!("{}{asked}", self.prefix)).unwrap_or(asked)
    }

    /// A `Location` that names the upstream, as a path on our own address; `None` where it names
    /// somebody else or is relative already. Clients refuse a redirect to another origin, and one
    /// that follows it would go around us.
    pub(super) fn relative(&self, location: &HeaderValue) -> Option<HeaderValue> {
        let text = location.to_str().ok()?;
        let path = match text.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?', '#']) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at(end);
                if !self.is_me(scheme, authority) {
                    return None;
                }
                path
            }
            _ if text.starts_with("//") || self.prefix.is_empty() => return None,
            _ => text,
        };
        let inside = self.without_prefix(path);
        if inside == text {
            return None;
        }
        // A path that begins with `//` would name a host, also as browsers read it (WHATWG URL §4.4: a backslash is a
        // slash, a tab is nothing).
        let begins_with = match inside.strip_prefix('/') {
            Some(rest) if rest.trim_start_matches('\t').starts_with(['/', '\\']) => "/.",
            Some(_) => "",
            None => "/",
        };
        HeaderValue::try_from(format!("{begins_with}{inside}")).ok()
    }

    fn without_prefix<'p>(&self, path: &'p str) -> &'p str {
        match path.strip_prefix(self.prefix.as_str()) {
            Some(rest) if rest.is_empty() || rest.starts_with(['/', '?', '#']) => rest,
            _ => path,
        }
    }

    fn is_me(&self, scheme: &str, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let default = match scheme.to_ascii_lowercase().as_str() {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        authority.host().eq_ignore_ascii_case(self.authority.host())
            && authority.port_u16().unwrap_or(default) == self.port()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target::new(&url.parse().expect("a URL")).expect("an upstream")
    }

    #[test]
    fn only_a_plain_http_address_is_an_upstream() {
        for bad in ["/path", "ftp://a/", "http://user@a/", "http://a/?q", "a:80"] {
            assert!(Target::new(&bad.parse().expect("a URL")).is_err(), "{bad}");
        }
        assert_eq!(target("https://[::1]/").host(), "::1");
        assert_eq!((target("https://a").port(), target("http://a:81/x/").port()), (443, 81));
    }

    #[test]
    fn the_path_is_the_clients_byte_for_byte_behind_the_prefix() {
        let path = |url: &str, asked: &str| target(url).path(&asked.parse().expect("a URL")).to_string();
        assert_eq!(path("http://a", "/x//y/../%7e?q=%20&&"), "/x//y/../%7e?q=%20&&");
        assert_eq!(path("http://a/api/", "http://b/x?y"), "/api/x?y");
        assert_eq!(path("http://a", "*"), "*");
        assert_eq!(path("http://a/api", "/"), "/api/");
    }

    #[test]
    fn a_location_at_the_upstream_becomes_a_path() {
        let relative = |url: &str, location: &'static str| {
            target(url).relative(&HeaderValue::from_static(location)).map(|v| v.to_str().expect("text").to_owned())
        };
        for (location, expected) in [
            ("http://agent:8000/threads/1?x#y", Some("/threads/1?x#y")),
            ("HTTP://AGENT:8000", Some("/")),
            ("http://agent:8000?x", Some("/?x")),
            ("http://agent:8000//evil.example/", Some("/.//evil.example/")),
            ("http://agent:8000/\\evil.example/", Some("/./\\evil.example/")),
            ("http://agent:8000/\t/evil.example/", Some("/./\t/evil.example/")),
            ("http://agent/", None),
            ("https://other.example/agent:8000", None),
            ("http://agent:8000.evil/", None),
            ("//agent:8000/", None),
            ("/already", None),
            ("relative?next=http://agent:8000/", None),
        ] {
            assert_eq!(relative("http://agent:8000", location).as_deref(), expected, "{location}");
        }
        assert_eq!(relative("http://agent:8000/api", "http://agent:8000/api/x").as_deref(), Some("/x"));
        assert_eq!(relative("http://agent:8000/api", "/api/x").as_deref(), Some("/x"));
        assert_eq!(relative("http://agent:8000/api", "/api/\\evil.example").as_deref(), Some("/./\\evil.example"));
        assert_eq!(relative("http://agent:8000/api", "/apix").as_deref(), None);
        assert_eq!(relative("https://agent", "https://agent:443/x").as_deref(), Some("/x"));
    }
}
