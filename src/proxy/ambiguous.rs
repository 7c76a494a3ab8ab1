//! Refuses requests that two parsers may read differently (request smuggling). Decides by what the
//! parsed request shows; what hyper's parser resolves on its own (`Content-Length` dropped beside
//! `Transfer-Encoding`, bare line feeds) is safe because we frame the upstream's request anew.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Version, request};

use crate::server::Problem;
use crate::wire::Code;

/// The authority that the client addressed: from the request target where it has one, else from
/// `Host`; `None` only for HTTP/1.0 and for an empty `Host`. An error is what the client is told;
/// its connection is closed with it.
pub(super) fn check(head: &request::Parts) -> Result<Option<Authority>, Problem> {
    if head.method == Method::CONNECT {
        return Err(Problem::new(Code::NotSupported, "CONNECT is not supported; this is not a forward proxy").closing());
    }
    check_framing(&head.headers)?;
    check_host(head)
}

/// RFC 9112 §6.1: a coding we do not undo must not be forwarded as if it were undone.
fn check_framing(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some() {
        return Err(refused("the only Transfer-Encoding that is accepted is one `chunked`"));
    }
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(refused("Content-Length beside Transfer-Encoding"));
    }
    Ok(())
}

/// RFC 9112 §3.2: exactly one valid `Host` in HTTP/1.1, and the same as the target's authority.
fn check_host(head: &request::Parts) -> Result<Option<Authority>, Problem> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(refused("more than one Host line"));
    }
    let host = match host.map(|value| value.as_bytes()) {
        None if head.version == Version::HTTP_11 => return Err(refused("HTTP/1.1 without a Host line")),
        None | Some(b"") => None,
        Some(bytes) => Some(Authority::try_from(bytes).map_err(|_| refused("the Host line is not a host"))?),
    };
    let target = head.uri.authority().cloned();
    if [&host, &target].into_iter().flatten().any(|authority| authority.as_str().contains('@')) {
        return Err(refused("user information in the request's authority"));
    }
    match (target, host) {
        (Some(target), Some(host)) if !same(&target, &host, head.uri.scheme()) => {
            Err(refused("the request target and Host name different servers"))
        }
        (target, host) => Ok(target.or(host)),
    }
}

fn same(target: &Authority, host: &Authority, scheme: Option<&Scheme>) -> bool {
    let default = if scheme == Some(&Scheme::HTTPS) { 443 } else { 80 };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default);
    target.host().eq_ignore_ascii_case(host.host()) && port(target) == port(host)
}

fn refused(why: &str) -> Problem {
    Problem::new(Code::BadRequest, format!("ambiguous request refused: {why}")).closing()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check_request(request: http::request::Builder) -> Result<Option<String>, String> {
        let (head, ()) = request.body(()).expect("a request").into_parts();
        check(&head).map(|authority| authority.map(|a| a.to_string())).map_err(|problem| problem.detail)
    }

    #[test]
    fn what_two_parsers_may_read_differently_is_refused() {
        let post = || Request::post("/").header("host", "a");
        let refused = [
            post().header("host", "b"),
            post().header("host", "a"),
            Request::post("/"),
            Request::post("/").header("host", "a b"),
            Request::post("/").header("host", "a/b"),
            Request::post("/").header("host", "user@a"),
            Request::post("http://b/").header("host", "a"),
            Request::post("http://a:81/").header("host", "a"),
            post().header("transfer-encoding", "gzip, chunked"),
            post().header("transfer-encoding", "chunked").header("transfer-encoding", "chunked"),
            post().header("transfer-encoding", "identity"),
            post().header("transfer-encoding", "chunked").header("content-length", "3"),
            Request::connect("a:443").header("host", "a:443"),
        ];
        for request in refused {
            let shown = format!("{request:?}");
            assert!(check_request(request).is_err(), "{shown}");
        }
    }

    #[test]
    fn one_meaning_is_accepted() {
        let accepted = [
            (Request::post("/").header("host", "a"), Some("a")),
            (Request::post("/").header("host", "[::1]:8080"), Some("[::1]:8080")),
            (Request::post("/").header("host", ""), None),
            (Request::get("/").version(Version::HTTP_10), None),
            (Request::get("http://A:80/").header("host", "a"), Some("A:80")),
            (Request::get("https://a/").header("host", "a:443"), Some("a")),
            (Request::get("http://a/").version(Version::HTTP_2), Some("a")),
            (Request::post("/").header("host", "a").header("transfer-encoding", "Chunked"), Some("a")),
        ];
        for (request, authority) in accepted {
            let shown = format!("{request:?}");
            assert_eq!(check_request(request), Ok(authority.map(str::to_owned)), "{shown}");
        }
    }
}
