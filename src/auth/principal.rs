//! The principal of a request: whose it says it is, as a digest.

use http::HeaderMap;
use sha2::{Digest, Sha256};

use crate::config::PrincipalRule;
use crate::server::cookie;
use crate::session::Subject;

/// What a digest begins with, so that it is the digest of nothing else: the subject's, and the secret's.
const SUBJECT: &[u8] = b"sidestream subject 1";
const SECRET: &[u8] = b"sidestream secret 1";

/// Where the principal of a request is found.
#[derive(Clone, Debug)]
pub struct Principal {
    rules: Vec<PrincipalRule>,
}

impl Principal {
    /// The first of `rules` that a request has a value for counts.
    pub fn new(rules: Vec<PrincipalRule>) -> Self {
        Principal { rules }
    }

    /// Whose request it is; `None`: it does not say.
    pub fn subject(&self, headers: &HeaderMap) -> Option<Subject> {
        self.digest(SUBJECT, headers).map(Subject::from_digest)
    }

    /// What only whoever has the principal's credential can know, to derive ids from that nobody else can
    /// guess. Unlike the subject it is shown to nobody and kept nowhere.
    pub fn secret(&self, headers: &HeaderMap) -> Option<[u8; 32]> {
        self.digest(SECRET, headers)
    }

    fn digest(&self, domain: &[u8], headers: &HeaderMap) -> Option<[u8; 32]> {
        self.rules.iter().find_map(|rule| {
            let value = match rule {
                PrincipalRule::Header(name) => headers.get(name).map(|value| value.as_bytes().to_vec()),
                PrincipalRule::Cookie(name) => cookie(headers, name),
            };
            value.filter(|value| !value.is_empty()).map(|value| digest(domain, rule, &value))
        })
    }

    /// What a request without a principal is told to send.
    pub fn wanted(&self) -> String {
        match self.rules.is_empty() {
            true => "`auth.principal` is empty: nobody has sessions of their own here".into(),
            false => {
                let rules: Vec<_> = self.rules.iter().map(|rule| format!("`{rule}`")).collect();
                format!("the request does not say whose it is; send {} (`auth.principal`)", rules.join(" or "))
            }
        }
    }
}

fn digest(domain: &[u8], rule: &PrincipalRule, value: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [domain, rule.to_string().as_bytes(), value] {
        // The lengths keep (ab, c) and (a, bc) apart.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{AUTHORIZATION, COOKIE};

    use super::*;

    fn principal(rules: &[&str]) -> Principal {
        Principal::new(rules.iter().map(|rule| PrincipalRule::parse(rule).expect("a rule")).collect())
    }

    fn headers(authorization: Option<&'static str>, cookie: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        authorization.map(|value| headers.insert(AUTHORIZATION, HeaderValue::from_static(value)));
        cookie.map(|value| headers.insert(COOKIE, HeaderValue::from_static(value)));
        headers
    }

    #[test]
    fn the_first_rule_that_has_a_value_counts() {
        let rules = principal(&["header:authorization", "cookie:sid"]);
        let by_header = rules.subject(&headers(Some("Bearer a"), Some("sid=1")));
        assert_eq!(by_header, rules.subject(&headers(Some("Bearer a"), Some("sid=2"))));
        let by_cookie = rules.subject(&headers(None, Some("sid=1")));
        assert!(by_header.is_some() && by_cookie.is_some() && by_header != by_cookie);
        assert_eq!(rules.subject(&headers(Some(""), Some("other=1"))), None);
        assert!(rules.wanted().contains("`header:authorization` or `cookie:sid`"));
    }

    #[test]
    fn the_secret_is_not_the_subject() {
        let (rules, headers) = (principal(&["header:authorization"]), headers(Some("Bearer a"), None));
        assert_ne!(rules.secret(&headers).map(Subject::from_digest), rules.subject(&headers));
        assert_eq!(rules.secret(&HeaderMap::new()), None);
    }

    #[test]
    fn the_same_value_by_another_rule_is_another_subject() {
        let by = |rule: &str| principal(&[rule]).subject(&headers(Some("x"), Some("authorization=x")));
        assert_ne!(by("header:authorization"), by("cookie:authorization"));
    }
}
