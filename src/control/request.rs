//! A request that is made for a client, and its form in the queue.

use bytes::Bytes;
use bytestring::ByteString;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::config::{Route, SendSettings};
use crate::control::Client;
use crate::json_pointer;
use crate::server::{Body, Peer, Problem, full};
use crate::session::{Kind, Record, RunId};
use crate::wire::{Code, SendRun};

/// A body up to this size is kept as the input of its run where no rule says which part is; of a
/// larger one the digest.
const INPUT_BYTES: usize = 16 << 10;

/// What the upstream may answer with.
const ACCEPTED: HeaderValue = HeaderValue::from_static("text/event-stream, application/json;q=0.9, */*;q=0.5");

/// By which the upstream may recognise a repeat.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request to the upstream on behalf of a client, without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sendable {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    /// What the client named, and what describes it.
    pub(super) headers: HeaderMap,
    /// A JSON value.
    pub(super) body: ByteString,
    /// Where the client was.
    pub(super) peer: Peer,
    /// Who it was.
    pub(super) client: ByteString,
    pub(super) source: Option<ByteString>,
}

/// A [`Sendable`] as it waits in the queue. Not a format for others; the version is for us.
#[derive(Serialize, Deserialize)]
struct Item {
    v: u32,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
    peer: std::net::SocketAddr,
    client: String,
    source: Option<String>,
    /// The client had credentials: the route's own stands in for them.
    vouched: bool,
}

/// The version of [`Item`].
const VERSION: u32 = 1;

impl Sendable {
    /// The request that `send` asks for.
    ///
    /// # Errors
    /// A method, path or header that cannot be sent.
    pub(super) fn new(send: &SendRun, client: &Client, settings: &SendSettings) -> Result<Self, Problem> {
        let bad = |what: String| Problem::new(Code::BadRequest, what);
        let method = send.method.as_deref().unwrap_or("POST");
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad(format!("`{method}` is not a method")))?;
        if matches!(method, Method::CONNECT | Method::TRACE) {
            // The one has no answer that ends; the other answers what it was sent, credentials included.
            return Err(bad(format!("`{method}` cannot be sent")));
        }
        let Some(target) = send.path.clone().or_else(|| client.path.clone()) else {
            return Err(bad("`path` is missing: the path of your backend that begins the run, such as \"/api/chat\" (a WebSocket that was opened at such a path needs none)".into()));
        };
        let plain = target.starts_with('/') && !target.starts_with("//") && !target.contains('#');
        if !plain || target.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(bad("`path` begins with `/` and is encoded as in a URL".into()));
        }
        if climbs(&target) {
            return Err(bad("`path` has a segment `.` or `..`; write it as the backend knows it".into()));
        }
        let mut headers = client.context.clone();
        for (name, value) in &send.headers {
            let name: HeaderName = name.parse().map_err(|_| bad(format!("`{name}` is not the name of a header")))?;
            if !settings.headers.contains(&name) {
                let detail =
                    format!("the header `{name}` may not be sent; the operator allows headers by send.headers");
                return Err(Problem::new(Code::Forbidden, detail));
            }
            let value =
                HeaderValue::from_str(value).map_err(|_| bad(format!("`{name}` has a value that no header has")))?;
            headers.insert(name, value);
        }
        if let Some(value) = send.key.as_deref().and_then(|key| HeaderValue::from_str(key).ok()) {
            headers.insert(IDEMPOTENCY_KEY, value);
        }
        let (body, source) = (send.body.clone(), send.source.clone());
        Ok(Sendable { method, target, headers, body, peer: client.peer, client: client.name.clone(), source })
    }

    /// The path without its query, by which routes are found.
    pub(super) fn path(&self) -> &str {
        path_of(&self.target)
    }

    /// The fields of the calls that its route has for its run: all but the key, by which the upstream
    /// would take them for repeats.
    pub(super) fn call_headers(&self, credentials: &HeaderMap) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.remove(IDEMPOTENCY_KEY);
        headers.extend(credentials.clone());
        headers
    }

    /// The request, with `credentials`.
    pub(super) fn request(self, credentials: &HeaderMap) -> Request<Body> {
        let mut request = Request::new(full(self.body.into_bytes()));
        *request.method_mut() = self.method;
        // It was checked when the message came.
        *request.uri_mut() = self.target.parse().unwrap_or_default();
        let headers = request.headers_mut();
        *headers = self.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.entry(ACCEPT).or_insert(ACCEPTED);
        for (name, value) in credentials {
            headers.append(name, value.clone());
        }
        request
    }

    /// What of it other devices see: by the route's rule, else the whole body, else its digest.
    pub(super) fn input(&self, route: &Route, run: &RunId) -> Option<Record> {
        let data: ByteString = match &route.input {
            Some(pointer) => json_pointer::find(self.body.as_bytes(), pointer)?.get().into(),
            None if self.body.len() <= INPUT_BYTES => self.body.clone(),
            None => json!({"bytes": self.body.len(), "sha256": sha256(&self.body)}).to_string().into(),
        };
        let (run, source) = (Some(run.clone()), Some(self.client.clone()));
        Some(Record { kind: Kind::Input, run, source, event: None, id: None, data })
    }

    /// By which two requests are the same.
    pub(super) fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for part in [self.method.as_str(), &self.target, &self.body] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        hex(&digest.finalize())
    }

    /// As it waits in the queue; `vouched`: its client had credentials, which do not wait with it.
    pub(super) fn to_item(&self, vouched: bool) -> Bytes {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let item = Item {
            v: VERSION,
            method: self.method.to_string(),
            target: self.target.clone(),
            headers: self.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: self.body.to_string(),
            peer: self.peer.addr,
            client: self.client.to_string(),
            source: self.source.as_ref().map(ByteString::to_string),
            vouched,
        };
        // Strings and numbers always serialise.
        serde_json::to_vec(&item).unwrap_or_default().into()
    }

    /// Reads an item, and whether its client had credentials. `None`: of another version.
    pub(super) fn of_item(item: &[u8]) -> Option<(Self, bool)> {
        let item: Item = serde_json::from_slice(item).ok().filter(|item: &Item| item.v == VERSION)?;
        let header = |(name, value): &(String, String)| Some((name.parse().ok()?, HeaderValue::from_str(value).ok()?));
        let sendable = Sendable {
            method: item.method.parse().ok()?,
            target: item.target,
            headers: item.headers.iter().filter_map(header).collect::<HeaderMap<_>>(),
            body: item.body.into(),
            peer: Peer { addr: item.peer },
            client: item.client.into(),
            source: item.source.map(ByteString::from),
        };
        Some((sendable, item.vouched))
    }
}

fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

/// Whether some server may read the path as another one (RFC 3986 §5.2.4): encoded, with `\` for `/`, or
/// with parameters behind the dots. A route, and with it a credential, belongs to the path as it stands.
fn climbs(target: &str) -> bool {
    let path: Vec<u8> = percent_decode_str(path_of(target)).collect();
    let segments = path.split(|byte| matches!(byte, b'/' | b'\\'));
    segments.map(|segment| segment.split(|byte| *byte == b';').next()).any(|name| matches!(name, Some(b"." | b"..")))
}

/// The credentials of a run whose client may be gone.
pub(super) fn service(route: &Route) -> HeaderMap {
    route.credential.iter().map(|credential| (AUTHORIZATION, credential.value().clone())).collect()
}

/// The SHA-256 of a text, in hexadecimal.
pub(super) fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("app.example"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        let peer = Peer { addr: ([127, 0, 0, 1], 7).into() };
        Client::new("phone".into(), peer, &headers, &[AUTHORIZATION], Some("/chat".into()))
    }

    fn send(fields: &str) -> SendRun {
        SendRun::parse(&format!(r#"{{"body":{{"message":"hi"}}{fields}}}"#), crate::session::SessionId::from_random(1))
            .unwrap()
    }

    #[test]
    fn what_waits_comes_back_without_credentials() {
        let sendable =
            Sendable::new(&send(r#","headers":{"accept-language":"de"}"#), &client(), &SendSettings::default());
        let sendable = sendable.unwrap();
        let item = sendable.to_item(true);
        assert!(!String::from_utf8_lossy(&item).contains("secret"));
        assert_eq!(Sendable::of_item(&item), Some((sendable, true)));
        assert_eq!(Sendable::of_item(br#"{"v":2}"#), None);
    }

    #[test]
    fn a_header_that_is_not_allowed_is_refused_by_its_name() {
        let refused = Sendable::new(&send(r#","headers":{"x-admin":"1"}"#), &client(), &SendSettings::default());
        let refused = refused.unwrap_err();
        assert!(refused.code == Code::Forbidden && refused.detail.contains("x-admin"), "{refused:?}");
    }

    #[test]
    fn a_path_is_one_of_the_upstream_and_nothing_else() {
        for path in [
            "chat",
            "//evil.example/x",
            "http://evil.example/",
            "/a b",
            "/a#b",
            "",
            "/a/..",
            "/a/..;x/b",
            "/./a",
            "/chat%2f..%2fadmin",
            "/..?q",
        ] {
            let wanted = send(&format!(r#","path":"{path}""#));
            assert!(Sendable::new(&wanted, &client(), &SendSettings::default()).is_err(), "{path}");
        }
        for path in ["/a..b/...?x=../..", "/a.", "/..a"] {
            let wanted = send(&format!(r#","path":"{path}""#));
            assert!(Sendable::new(&wanted, &client(), &SendSettings::default()).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_large_body_is_shown_by_its_digest_and_a_small_one_as_it_is() {
        let run = RunId::from_random(1);
        let mut sendable = Sendable::new(&send(""), &client(), &SendSettings::default()).unwrap();
        let shown =
            |sendable: &Sendable, route: &Route| sendable.input(route, &run).map(|record| record.data.to_string());
        let mut route = Route::unnamed();
        assert_eq!(shown(&sendable, &route).as_deref(), Some(r#"{"message":"hi"}"#));
        route.input = Some("/message".into());
        assert_eq!(shown(&sendable, &route).as_deref(), Some(r#""hi""#));
        route.input = None;
        sendable.body = format!("\"{}\"", "x".repeat(INPUT_BYTES)).into();
        assert!(shown(&sendable, &route).unwrap().contains("sha256"));
    }
}
