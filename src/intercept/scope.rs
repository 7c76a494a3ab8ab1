//! What an `Idempotency-Key` means: the same key of another caller, or on another path, is another
//! key. Pure; must never let a key or a credential into a log, a store or an id as it is.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, request};
use sha2::{Digest, Sha256};

use crate::session::SessionId;

/// By which a caller says that a request is the same one again (IETF draft
/// idempotency-key-header-07).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// All sessions belong to this tenant until tenants exist.
const TENANT: &[u8] = b"default";

/// The block of SHA-256, which HMAC pads its key to (RFC 2104 §2).
const BLOCK: usize = 64;

/// The scope of one key: (tenant, principal, method, path, key).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    claim: String,
    session: Option<SessionId>,
}

impl Scope {
    /// The scope of a request's key; `None` where it has none. The path is the request's own and not
    /// its route's pattern: a key that is used for two threads of one route names two requests.
    /// `secret` is what only its principal knows, if there is one.
    pub(super) fn of(head: &request::Parts, secret: impl FnOnce(&HeaderMap) -> Option<[u8; 32]>) -> Option<Self> {
        let lines: Vec<&[u8]> = head.headers.get_all(IDEMPOTENCY_KEY).iter().map(|line| line.as_bytes()).collect();
        if lines.iter().all(|line| line.is_empty()) {
            return None;
        }
        let principal = secret(&head.headers);
        let scope = digest_of(head, principal.as_ref(), &lines);
        // Only who has the principal's credential and its key can derive the session. Without a
        // principal anybody could who guesses the key, so that nothing is derived.
        let session = principal.map(|secret| {
            SessionId::from_digest_text(&URL_SAFE_NO_PAD.encode(hmac_sha256(&secret, &[b"session", &scope])))
        });
        Some(Scope { claim: format!("http:{}", URL_SAFE_NO_PAD.encode(scope)), session })
    }

    /// The name of its claim in the log.
    pub(super) fn claim(&self) -> &str {
        &self.claim
    }

    /// The session of its run, where nothing else names one.
    pub(super) fn session(&self) -> Option<&SessionId> {
        self.session.as_ref()
    }
}

/// Where the run of a request is found by its caller and its `body`, which says more than the body where more says
/// what is asked.
pub(super) fn of_body(head: &request::Parts, caller: &[u8; 32], body: &str) -> String {
    format!("body:{}", URL_SAFE_NO_PAD.encode(digest_of(head, Some(caller), &[body.as_bytes()])))
}

fn digest_of(head: &request::Parts, principal: Option<&[u8; 32]>, rest: &[&[u8]]) -> [u8; 32] {
    let who = principal.map_or(&[][..], |principal| &principal[..]);
    let mut digest = Sha256::new();
    for part in [TENANT, who, head.method.as_str().as_bytes(), head.uri.path().as_bytes()].iter().chain(rest) {
        // The lengths keep (ab, c) and (a, bc) apart.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// HMAC (RFC 2104) with SHA-256, for a key that is no longer than a block.
fn hmac_sha256(key: &[u8; 32], message: &[&[u8]]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; BLOCK];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        Sha256::new().chain_update(block)
    };
    let inner = message.iter().fold(pad(0x36), |digest, part| digest.chain_update(part)).finalize();
    pad(0x5c).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn scope(path: &str, headers: &[(&str, &str)]) -> Option<Scope> {
        let request = headers.iter().fold(Request::post(path), |request, (name, value)| request.header(*name, *value));
        let authorization = |headers: &HeaderMap| {
            headers.get("authorization").map(|credential| Sha256::digest(credential.as_bytes()).into())
        };
        Scope::of(&request.body(()).unwrap().into_parts().0, authorization)
    }

    #[test]
    fn a_key_means_the_same_only_for_the_same_caller_and_path() {
        let mine = [("authorization", "Bearer mine"), ("idempotency-key", "k")];
        let one = scope("/chat", &mine).unwrap();
        assert_eq!(scope("/chat?retry=1", &mine).unwrap(), one);
        let others = [
            scope("/other", &mine),
            scope("/chat", &[mine[0], ("idempotency-key", "l")]),
            scope("/chat", &[("authorization", "Bearer yours"), mine[1]]),
            scope("/chat", &[mine[1]]),
        ];
        for other in others {
            let other = other.unwrap();
            assert_ne!(other.claim(), one.claim());
            assert_ne!(other.session(), one.session());
        }
        assert_eq!(scope("/chat", &mine[..1]), None);
        assert_eq!(scope("/chat", &[("idempotency-key", "")]), None);
    }

    #[test]
    fn a_session_is_derived_only_where_the_caller_is_known() {
        let key = ("idempotency-key", "k");
        assert_eq!(scope("/chat", &[key]).unwrap().session(), None);
        let derived = scope("/chat", &[key, ("authorization", "Bearer mine")]).unwrap();
        let id = derived.session().unwrap().as_str();
        assert!(id.starts_with('~') && id.len() == 44, "{id}");
    }

    /// RFC 4231 §4.2 has a shorter key; zeros at its end change nothing (RFC 2104 §2).
    #[test]
    fn the_hmac_is_that_of_the_rfc() {
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let tag = hmac_sha256(&key, &[b"Hi ", b"There"]);
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }
}
