//! Upgraded connections (WebSocket and the like): bytes copied both ways, never looked at. Begins
//! only after the upstream's own `101`, so that bytes which a client sends early can never be read
//! as anything but what the upstream agreed to.

use http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;

use super::headers::{self, has_token, tokens};
use super::passthrough::{AcceptEncoding, Passthrough, problem};
use crate::server::{Body, Peer, Problem, empty};
use crate::wire::Code;

/// Our own WebSocket subprotocol.
const SUBPROTOCOL: &str = "sidestream.v1";

/// Whether a request wants a WebSocket that speaks our subprotocol; then it is ours, whatever its
/// path.
pub fn is_sidestream_upgrade<B>(request: &Request<B>) -> bool {
    offered(request.headers(), request.version()).is_some_and(|protocols| protocols.eq_ignore_ascii_case("websocket"))
        && tokens(request.headers(), &SEC_WEBSOCKET_PROTOCOL).any(|offer| offer == SUBPROTOCOL)
}

/// The protocols that a request wants to change to, if it wants to. `h2c`, other HTTP versions and
/// TLS are left out: an upstream that took one of them would get requests past us.
pub(super) fn offered(headers: &HeaderMap, version: Version) -> Option<String> {
    if version != Version::HTTP_11 || !has_token(headers, &CONNECTION, "upgrade") {
        return None;
    }
    let tunnelled = |protocol: &&str| {
        let name = protocol.split('/').next().unwrap_or(protocol);
        !["h2c", "h2", "http", "tls"].iter().any(|kept| name.eq_ignore_ascii_case(kept))
    };
    let protocols: Vec<&str> = tokens(headers, &UPGRADE).filter(tunnelled).collect();
    if protocols.is_empty() { None } else { Some(protocols.join(", ")) }
}

/// Forwards a request for an upgrade; connects the two sides when the upstream agrees.
pub(super) async fn tunnel(
    proxy: &Passthrough,
    mut request: Request<Body>,
    peer: Peer,
    protocols: String,
) -> Result<Response<Body>, Problem> {
    let client = hyper::upgrade::on(&mut request);
    let mut request = proxy.prepare(request, peer, AcceptEncoding::AsSent)?;
    let offer = HeaderValue::try_from(&protocols).expect("parts of a header value are one");
    request.headers_mut().insert(UPGRADE, offer);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));

    let mut answer = proxy.send(request).await.map_err(problem)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, body) = answer.into_parts();
        return Ok(proxy.respond(head, body.map_err(Into::into).boxed_unsync()));
    }
    let agreed = answer.headers().get(UPGRADE).cloned().filter(|agreed| is_among(agreed, &protocols));
    let Some(agreed) = agreed else {
        return Err(Problem::new(Code::UpstreamInvalid, "the upstream switched to a protocol that was not offered"));
    };

    let upstream = hyper::upgrade::on(&mut answer);
    let (mut head, link) = answer.into_parts();
    headers::remove_hop_by_hop(&mut head.headers);
    head.headers.insert(UPGRADE, agreed);
    head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    tokio::spawn(async move {
        let _link = link; // closes the upstream's connection if the client never takes the answer
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
            tracing::debug!(%error, "tunnel ended");
        }
    });
    Ok(Response::from_parts(head, empty()))
}

fn is_among(agreed: &HeaderValue, offered: &str) -> bool {
    offered.split(", ").any(|protocol| agreed.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[(&str, &str)]) -> Request<()> {
        let request = lines.iter().fold(Request::get("/chat"), |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a request")
    }

    #[test]
    fn a_websocket_with_our_subprotocol_is_ours_on_any_path() {
        let lines = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        let with = |protocols| request(&[lines[0], lines[1], ("sec-websocket-protocol", protocols)]);
        assert!(is_sidestream_upgrade(&with("bearer.abc, sidestream.v1")));
        assert!(!is_sidestream_upgrade(&with("graphql-ws")));
        assert!(!is_sidestream_upgrade(&with("sidestream.v10")));
        assert!(!is_sidestream_upgrade(&request(&[lines[1], ("sec-websocket-protocol", "sidestream.v1")])));
    }

    #[test]
    fn an_upgrade_that_would_lead_requests_past_us_is_not_offered_on() {
        let offer = |protocols| {
            let request = request(&[("connection", "upgrade"), ("upgrade", protocols)]);
            offered(request.headers(), request.version())
        };
        assert_eq!(offer("h2c"), None);
        assert_eq!(offer("TLS/1.3, HTTP/2.0"), None);
        assert_eq!(offer("h2c, websocket").as_deref(), Some("websocket"));
        assert_eq!(offer("foo/2").as_deref(), Some("foo/2"));
    }
}
