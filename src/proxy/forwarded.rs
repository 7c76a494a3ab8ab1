//! What the upstream is told about where a request came from: `Host`, `X-Forwarded-*` and
//! `Forwarded` (RFC 7239). Must never pass on a claim of somebody who is not a trusted proxy.
//!
//! `Via` is not added although RFC 9110 §7.6.3 asks for it: a drop-in changes nothing that a
//! backend may react to (several turn compression off when they see it).

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::headers::tokens;
use crate::config::{HostPolicy, Network};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// How requests are marked on their way to the upstream.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// Networks whose claims about the client are kept.
    pub trusted: Vec<Network>,
    /// Which `Host` the upstream sees.
    pub host: HostPolicy,
    /// The upstream's own authority.
    pub upstream: Authority,
}

impl Forwarding {
    /// Marks a request that `peer` sent to `authority` (none: it did not say).
    ///
    /// `X-Forwarded-For` is appended to; `-Proto`, `-Host`, `-Prefix` and `Forwarded` are kept
    /// from a trusted peer and replaced otherwise: overwriting a trusted `https` would break
    /// redirects, OAuth callbacks and Secure cookies.
    pub(super) fn apply(&self, headers: &mut HeaderMap, authority: Option<&Authority>, peer: SocketAddr) {
        let address = peer.ip().to_canonical();
        if !self.trusted.iter().any(|network| network.contains(address)) {
            for name in [X_HOST, PROTO, PREFIX, FORWARDED] {
                headers.remove(name);
            }
        }
        if !headers.contains_key(PROTO) {
            headers.insert(PROTO, HeaderValue::from_static("http"));
        }
        if !headers.contains_key(X_HOST)
            && let Some(value) = authority.and_then(|authority| authority.as_str().parse().ok())
        {
            headers.insert(X_HOST, value);
        }
        append(headers, FOR, &address.to_string());
        let forwarded = self.forwarded(headers, authority, address);
        append(headers, FORWARDED, &forwarded);

        let host = match self.host {
            HostPolicy::Preserve => authority.unwrap_or(&self.upstream),
            HostPolicy::Upstream => &self.upstream,
        };
        if let Ok(value) = HeaderValue::from_str(host.as_str()) {
            headers.insert(HOST, value);
        }
    }

    /// Our part of `Forwarded`. Where nobody has written one yet, it says what the `X-Forwarded-*`
    /// fields say (RFC 7239 §7.4): backends that prefer it must not learn less from it.
    fn forwarded(&self, headers: &HeaderMap, authority: Option<&Authority>, peer: IpAddr) -> String {
        let written = headers.contains_key(FORWARDED);
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let scheme = text(&PROTO).filter(|proto| !written && is_scheme(proto)).unwrap_or("http");
        let host = text(&X_HOST).filter(|_| !written).and_then(|host| host.parse::<Authority>().ok());
        let host = host.as_ref().or(authority).map(|host| format!(";host=\"{host}\"")).unwrap_or_default();

        let mut nodes = if written { vec![node(peer)] } else { tokens(headers, &FOR).map(parse_node).collect() };
        if let Some(first) = nodes.first_mut() {
            first.push_str(&format!("{host};proto={scheme}"));
        }
        nodes.join(", ")
    }
}

/// `for=…` of an address; IPv6 needs brackets and therefore quotes (RFC 7239 §6).
fn node(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    }
}

/// `for=…` of an item of `X-Forwarded-For`, which may be anything.
fn parse_node(text: &str) -> String {
    let address = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.map_or_else(|_| "for=unknown".to_owned(), node)
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Adds an item to a list field, all lines of which become one. A line that is not text is nobody's
/// address and is left out.
fn append(headers: &mut HeaderMap, name: HeaderName, item: &str) {
    let lines = headers.get_all(&name).iter().filter_map(|line| line.to_str().ok());
    let list = lines.filter(|line| !line.is_empty()).chain([item]).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::try_from(list) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarding(host: HostPolicy) -> Forwarding {
        let network = |address: &str, bits| Network { address: address.parse().expect("an address"), bits };
        Forwarding {
            trusted: vec![network("10.0.0.0", 8), network("::1", 128)],
            host,
            upstream: Authority::from_static("agent:8000"),
        }
    }

    fn applied(peer: &str, lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let authority = Authority::from_static("chat.example");
        forwarding(HostPolicy::Preserve).apply(&mut headers, Some(&authority), peer.parse().expect("an address"));
        headers.remove(HOST);
        let mut shown: Vec<_> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().expect("text"))).collect();
        shown.sort();
        shown
    }

    #[test]
    fn a_stranger_cannot_claim_another_host_or_scheme() {
        let lines = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-prefix", "/evil"),
            ("forwarded", "for=6.6.6.6;proto=https"),
        ];
        assert_eq!(
            applied("8.8.8.8:1", &lines),
            [
                "forwarded: for=6.6.6.6;host=\"chat.example\";proto=http, for=8.8.8.8",
                "x-forwarded-for: 6.6.6.6, 8.8.8.8",
                "x-forwarded-host: chat.example",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_forwarded_says_the_same() {
        let lines = [
            ("x-forwarded-for", "2001:db8::1, unknown"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "public.example"),
            ("x-forwarded-prefix", "/api"),
        ];
        assert_eq!(
            applied("10.1.2.3:1", &lines),
            [
                "forwarded: for=\"[2001:db8::1]\";host=\"public.example\";proto=https, for=unknown, for=10.1.2.3",
                "x-forwarded-for: 2001:db8::1, unknown, 10.1.2.3",
                "x-forwarded-host: public.example",
                "x-forwarded-prefix: /api",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn forwarded_of_a_trusted_proxy_is_appended_to() {
        let shown = applied("[::1]:1", &[("forwarded", "for=1.1.1.1;proto=https"), ("x-forwarded-proto", "https")]);
        assert_eq!(shown[0], "forwarded: for=1.1.1.1;proto=https, for=\"[::1]\";host=\"chat.example\";proto=http");
    }

    #[test]
    fn the_host_is_the_clients_or_the_upstreams() {
        for (policy, authority, expected) in [
            (HostPolicy::Preserve, Some("chat.example"), "chat.example"),
            (HostPolicy::Preserve, None, "agent:8000"),
            (HostPolicy::Upstream, Some("chat.example"), "agent:8000"),
        ] {
            let mut headers = HeaderMap::new();
            let authority = authority.map(Authority::from_static);
            forwarding(policy).apply(&mut headers, authority.as_ref(), ([8, 8, 8, 8], 1).into());
            assert_eq!(headers[HOST], expected);
        }
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let cases = [
            ("10.0.0.0", 8, "10.255.0.1", true),
            ("10.0.0.0", 8, "11.0.0.1", false),
            ("0.0.0.0", 0, "8.8.8.8", true),
            ("::", 0, "fe80::1", true),
            ("::", 0, "8.8.8.8", false),
            ("fd00::", 8, "fdff::1", true),
            ("127.0.0.1", 32, "127.0.0.2", false),
        ];
        for (address, bits, candidate, expected) in cases {
            let network = Network { address: address.parse().expect("an address"), bits };
            assert_eq!(network.contains(candidate.parse().expect("an address")), expected, "{candidate}");
        }
    }
}
