//! Who asks.

use bytestring::ByteString;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use crate::server::Peer;
use crate::session::Subject;

/// Fields by which the upstream learns where a request came from; they say nothing secret.
const CONTEXT: [HeaderName; 5] = [
    HOST,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-prefix"),
];

/// A client as far as requests are made for it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name, as other devices see it.
    pub name: ByteString,
    /// Where it is.
    pub peer: Peer,
    /// Fields of its own request that describe it.
    pub context: HeaderMap,
    /// Its credentials, for as long as it is there.
    pub credentials: HeaderMap,
    /// The path that its `send` goes to where it names none.
    pub path: Option<String>,
    /// Whose it is, where its request says so.
    pub subject: Option<Subject>,
}

impl Client {
    /// The client that sent a request with these `headers`, of which those named `credentials` go
    /// with what it sends.
    pub fn new(
        name: ByteString,
        peer: Peer,
        headers: &HeaderMap,
        credentials: &[HeaderName],
        path: Option<String>,
    ) -> Self {
        let (context, mut credentials) = (fields(headers, &CONTEXT), fields(headers, credentials));
        credentials.values_mut().for_each(|value| value.set_sensitive(true));
        Client { name, peer, context, credentials, path, subject: None }
    }

    /// Who asks, for terminals and receipts: a JSON object.
    pub(super) fn by(&self) -> ByteString {
        json!({"client": &*self.name}).to_string().into()
    }

    /// Whether its requests carry anything that must not be stored.
    pub(super) fn has_credentials(&self) -> bool {
        !self.credentials.is_empty()
    }
}

/// The fields of `headers` with these names.
pub(super) fn fields(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in names {
        for value in headers.get_all(name) {
            // A copy: the value is a slice of the buffer that the request was read into, and would keep all of it for as long
            // as the client is connected.
            let Ok(mut value) = HeaderValue::from_bytes(value.as_bytes()) else { continue };
            value.set_sensitive(name == AUTHORIZATION);
            kept.append(name, value);
        }
    }
    kept
}
