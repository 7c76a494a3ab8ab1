//! Which session a request belongs to. What a client sends becomes an id only if it is a valid one;
//! any other value becomes the digest of (rule, value), so that nothing raw reaches keys, logs or
//! headers, and no client can name what a rule derives.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, request};
use sha2::{Digest, Sha256};

use super::extract;
use crate::config::SessionRule;
use crate::json_pointer;
use crate::server::Problem;
use crate::session::{RunId, SessionId};
use crate::wire::Code;

/// By which a client names its session itself, before any rule.
const OWN_HEADER: HeaderName = HeaderName::from_static("sidestream-session");

/// By which the upstream learns its run.
const RUN_HEADER: HeaderName = HeaderName::from_static("sidestream-run");

/// Why a request belongs to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The client said so (`Sidestream-Session`).
    Named,
    /// A rule yielded a value.
    Rule,
    /// Nothing did; the session is new and random.
    New,
    /// As `New`, because a rule's body was over the limit: `Sidestream-Session-Rule: none`.
    BodyTooLarge,
}

/// A request's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub session: SessionId,
    /// Why this one.
    pub basis: Basis,
}

/// What the request says about its session. The answer may have to say more.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Response fields to ask first, in order.
    response_headers: Vec<HeaderName>,
    /// Places in the answer's events to ask then.
    events: Vec<SessionRule>,
    /// Places in an answer that is JSON.
    answers: Vec<SessionRule>,
    /// What the request itself says.
    named: Named,
}

/// A session that the answer's first events name.
#[derive(Clone, Debug)]
pub struct Awaited(Vec<SessionRule>);

impl Awaited {
    /// The session that an event with this data names.
    pub fn find(&self, data: &str) -> Option<SessionId> {
        found_in(&self.0, data.as_bytes())
    }
}

/// Whether a rule reads the request's body.
pub fn needs_body(rules: &[SessionRule]) -> bool {
    rules.iter().any(|rule| matches!(rule, SessionRule::Json(_)))
}

/// Applies the rules in order; the first that yields a value wins. `body` is `None` where no rule
/// needs it, or where it was too large to read.
///
/// # Errors
/// A `Sidestream-Session` that begins with `~`, which only we may write.
pub fn identify(rules: &[SessionRule], head: &request::Parts, body: Option<&[u8]>) -> Result<Identity, Problem> {
    let (mut response_headers, mut events, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(literal) = extract::header(&head.headers, &OWN_HEADER).filter(|value| !value.is_empty()) {
        if literal.starts_with(b"~") {
            let detail = "Sidestream-Session must not begin with `~`; ids of that form are derived by the server";
            return Err(Problem::new(Code::BadRequest, detail));
        }
        let session = session("header:sidestream-session", &literal);
        return Ok(Identity { response_headers, events, answers, named: Named { session, basis: Basis::Named } });
    }
    let mut basis = Basis::New;
    for rule in rules {
        if let Some(value) = extract::value(rule, head, body) {
            let session = session(&rule.to_string(), &value);
            return Ok(Identity { response_headers, events, answers, named: Named { session, basis: Basis::Rule } });
        }
        match rule {
            SessionRule::ResponseHeader(name) => response_headers.push(name.clone()),
            SessionRule::EventJson(_) => events.push(rule.clone()),
            SessionRule::AnswerJson(_) => answers.push(rule.clone()),
            SessionRule::Json(_) if body.is_none() => basis = Basis::BodyTooLarge,
            _ => {}
        }
    }
    let named = Named { session: SessionId::from_random(crate::random::u128()), basis };
    Ok(Identity { response_headers, events, answers, named })
}

/// The sessions that any of `rules` makes of a value, which stands percent-encoded in a path; each once, in the
/// order of the rules. They differ only where the value is no id.
pub fn sessions_named(rules: &[&SessionRule], encoded: &str) -> Vec<SessionId> {
    let value = extract::percent_decoded(encoded, false);
    let mut sessions = Vec::new();
    for rule in rules {
        let session = session(&rule.to_string(), &value);
        if !sessions.contains(&session) {
            sessions.push(session);
        }
    }
    sessions
}

impl Identity {
    /// The session that the request itself names, by its own header or by a rule.
    pub fn named_by_request(&self) -> Option<&SessionId> {
        matches!(self.named.basis, Basis::Named | Basis::Rule).then_some(&self.named.session)
    }

    /// The session that the client itself has named, as ours.
    pub fn named_by_client(&self) -> Option<&SessionId> {
        (self.named.basis == Basis::Named).then_some(&self.named.session)
    }

    /// The session, unless the answer's head names another.
    pub fn session(&self) -> &SessionId {
        &self.named.session
    }

    /// The same with `session` in place of a new one, where the request names none.
    pub fn or(mut self, session: &SessionId) -> Self {
        if self.named_by_request().is_none() {
            self.named.session = session.clone();
        }
        self
    }

    /// The session, once the answer's head is known.
    pub fn settle(&self, answer: &HeaderMap) -> Named {
        let told = self.told(answer);
        told.map_or_else(|| self.named.clone(), |session| Named { session, basis: Basis::Rule })
    }

    /// Where the answer's first events may name the session, once its head is known and does not.
    pub fn awaits_events(&self, answer: &HeaderMap) -> Option<Awaited> {
        (!self.events.is_empty() && self.told(answer).is_none()).then(|| Awaited(self.events.clone()))
    }

    /// The session that an answer of JSON names, or else the request.
    pub fn named_by_answer(&self, answer: &[u8]) -> Option<SessionId> {
        found_in(&self.answers, answer).or_else(|| self.named_by_request().cloned())
    }

    fn told(&self, answer: &HeaderMap) -> Option<SessionId> {
        self.response_headers.iter().find_map(|name| {
            let value = extract::header(answer, name).filter(|value| !value.is_empty())?;
            Some(session(&SessionRule::ResponseHeader(name.clone()).to_string(), &value))
        })
    }
}

/// Tells the upstream which session and run its answer will be, for the calls that it makes itself.
/// Only for clients that know of us: what others send reaches it as they sent it.
pub fn tell_run(headers: &mut HeaderMap, session: &SessionId, run: &RunId) {
    for (name, id) in [(OWN_HEADER, session.as_str()), (RUN_HEADER, run.as_str())] {
        // Ids are plain ASCII by their types.
        if let Ok(value) = HeaderValue::from_str(id) {
            headers.insert(name, value);
        }
    }
}

/// The session that the first of `rules` yields that finds something in `json`.
fn found_in(rules: &[SessionRule], json: &[u8]) -> Option<SessionId> {
    rules.iter().find_map(|rule| {
        let (SessionRule::EventJson(pointer) | SessionRule::AnswerJson(pointer)) = rule else { return None };
        let value = extract::scalar(json_pointer::find(json, pointer)?).filter(|value| !value.is_empty())?;
        Some(session(&rule.to_string(), &value))
    })
}

/// A valid id as it is, anything else as a digest.
fn session(rule: &str, value: &[u8]) -> SessionId {
    if let Some(id) = std::str::from_utf8(value).ok().and_then(|text| SessionId::parse(text).ok()) {
        return id;
    }
    let mut digest = Sha256::new();
    for part in [rule.as_bytes(), value] {
        // The lengths keep (ab, c) and (a, bc) apart.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    SessionId::from_digest_text(&URL_SAFE_NO_PAD.encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(lines: &[(&str, &str)]) -> request::Parts {
        let request = lines.iter().fold(Request::post("/?q=from-query"), |request, (n, v)| request.header(*n, *v));
        request.body(()).expect("a request").into_parts().0
    }

    fn settled(rules: &[SessionRule], lines: &[(&str, &str)], body: Option<&str>) -> Named {
        identify(rules, &head(lines), body.map(str::as_bytes)).expect("an identity").settle(&HeaderMap::new())
    }

    fn by_header(name: &'static str) -> SessionRule {
        SessionRule::Header(HeaderName::from_static(name))
    }

    #[test]
    fn the_first_rule_that_yields_a_value_wins() {
        let rules = [SessionRule::Json("/id".into()), by_header("x-chat"), SessionRule::Query("q".into())];
        let header = [("x-chat", "from-header")];
        assert_eq!(settled(&rules, &header, Some(r#"{"id":"from-body"}"#)).session.as_str(), "from-body");
        assert_eq!(settled(&rules, &header, Some("{}")).session.as_str(), "from-header");
        assert_eq!(settled(&rules, &[], Some("{}")).session.as_str(), "from-query");
        let own = [("sidestream-session", "mine"), header[0]];
        assert_eq!(
            settled(&rules, &own, None),
            Named { session: SessionId::parse("mine").expect("an id"), basis: Basis::Named }
        );
    }

    #[test]
    fn a_value_that_is_no_id_becomes_the_same_digest_every_time() {
        let one = settled(&[by_header("a")], &[("a", "chat 42")], None);
        assert_eq!((one.session.as_str().len(), one.basis), (44, Basis::Rule));
        assert!(one.session.as_str().starts_with('~'));
        assert_eq!(one, settled(&[by_header("a")], &[("a", "chat 42")], None));
        assert_ne!(one, settled(&[by_header("b")], &[("b", "chat 42")], None), "another rule, another session");
        assert_ne!(one, settled(&[by_header("a")], &[("a", "chat 43")], None));
        assert_ne!(session("ab", b"c "), session("a", b"bc "));
    }

    #[test]
    fn a_value_in_a_path_names_the_session_that_a_rule_makes_of_it() {
        let (json, header) = (SessionRule::Json("/id".into()), by_header("a"));
        let posted =
            |id: &str| settled(std::slice::from_ref(&json), &[], Some(&format!("{{\"id\":\"{id}\"}}"))).session;
        assert_eq!(sessions_named(&[&json, &header], "chat-42"), [posted("chat-42")]);
        let two = sessions_named(&[&json, &header], "chat%2042");
        assert_eq!((two.len(), &two[0]), (2, &posted("chat 42")));
    }

    #[test]
    fn a_client_cannot_name_a_digest() {
        let derived = settled(&[by_header("a")], &[("a", "chat 42")], None).session.to_string();
        let refused = identify(&[], &head(&[("sidestream-session", &derived)]), None);
        assert_eq!(refused.expect_err("refused").code, Code::BadRequest);
        assert_ne!(settled(&[by_header("a")], &[("a", &derived)], None).session.as_str(), derived);
    }

    #[test]
    fn without_a_match_every_request_is_its_own_session() {
        let (one, two) = (settled(&[], &[], None), settled(&[], &[], None));
        assert_ne!(one.session, two.session);
        assert_eq!((one.basis, one.session.as_str().len()), (Basis::New, 32));
    }

    #[test]
    fn a_body_that_was_too_large_is_said_only_where_it_mattered() {
        let json = SessionRule::Json("/id".into());
        assert_eq!(settled(std::slice::from_ref(&json), &[], None).basis, Basis::BodyTooLarge);
        assert_eq!(settled(&[by_header("a"), json], &[("a", "x")], None).basis, Basis::Rule);
    }

    #[test]
    fn a_response_header_counts_at_its_place_among_the_rules() {
        let name = HeaderName::from_static("x-thread");
        let rules = [by_header("first"), SessionRule::ResponseHeader(name.clone()), by_header("last")];
        let mut answer = HeaderMap::new();
        answer.insert(name, "from-answer".parse().expect("a value"));
        let settle = |lines: &[(&str, &str)], answer: &HeaderMap| {
            identify(&rules, &head(lines), None).expect("an identity").settle(answer).session.to_string()
        };
        assert_eq!(settle(&[("first", "a"), ("last", "b")], &answer), "a");
        assert_eq!(settle(&[("last", "b")], &answer), "from-answer");
        assert_eq!(settle(&[("last", "b")], &HeaderMap::new()), "b");
    }
}
