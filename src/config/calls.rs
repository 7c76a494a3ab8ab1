//! What a route says about live control: how its runs are cancelled and steered at the upstream, and
//! with which credential. Pure values; nothing here calls anybody.

use std::fmt;

use http::{HeaderValue, Method};

use super::route::json_pointer;

/// A request to the upstream, `METHOD /path/{name}`; the names are filled in when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallTemplate {
    /// The request's method.
    pub method: Method,
    /// The path and query, with names in braces.
    pub path: String,
}

impl CallTemplate {
    /// Reads `POST /runs/{run_id}/cancel`. The error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let template = CallTemplate::reference(text)?;
        match template.path.starts_with('/') {
            true => Ok(template),
            false => Err(not_a_call(text)),
        }
    }

    /// The same with a path that need not begin with `/`: a reference, which [`CallTemplate::resolved`] makes a path.
    pub(crate) fn reference(text: &str) -> Result<Self, String> {
        let wrong = || not_a_call(text);
        let (method, path) = text.split_once(' ').unwrap_or((text, ""));
        let upper = method.bytes().all(|b| b.is_ascii_uppercase());
        let method = Method::from_bytes(method.as_bytes()).ok().filter(|_| upper).ok_or_else(wrong)?;
        let path = path.trim();
        if path.contains('#') || !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong());
        }
        let template = CallTemplate { method, path: path.into() };
        let balanced = path.matches('{').count() == path.matches('}').count();
        match balanced && template.names().all(is_name) {
            true => Ok(template),
            false => Err(format!("`{path}`: a name in braces is made of letters, digits and `_`")),
        }
    }

    /// The call at the path to which its reference leads from `path`, the path of a request (RFC 3986 section 5.2).
    pub(crate) fn resolved(&self, path: &str) -> Self {
        if self.path.starts_with('/') {
            return self.clone();
        }
        // Braces of the request's own path are no names.
        let path = path.replace('{', "%7B").replace('}', "%7D");
        let mut segments: Vec<&str> = path.split('/').collect();
        if !self.path.is_empty() {
            segments.pop();
        }
        let mut rest = &*self.path;
        while let Some(below) = rest.strip_prefix("../") {
            segments.pop();
            rest = below;
        }
        if segments.is_empty() {
            segments.push("");
        }
        if !rest.is_empty() {
            segments.push(rest);
        }
        CallTemplate { method: self.method.clone(), path: segments.join("/") }
    }

    /// The names in braces.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap_or_default())
    }

    /// The path with its names filled in, percent-encoded (RFC 3986 §2.1); or the first name that has
    /// no value that can be a segment: one of dots alone would lead to another path (§5.2.4).
    pub fn fill<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Result<String, &str> {
        let mut parts = self.path.split('{');
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}').unwrap_or((part, ""));
            let value = value(name).filter(|value| value.bytes().any(|byte| byte != b'.')).ok_or(name)?;
            for byte in value.bytes() {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        filled.push(char::from(byte))
                    }
                    other => filled.push_str(&format!("%{other:02X}")),
                }
            }
            filled.push_str(rest);
        }
        Ok(filled)
    }
}

fn not_a_call(text: &str) -> String {
    format!("`{text}` is not a call; write `METHOD /path`, such as `POST /runs/{{run_id}}/cancel`")
}

impl fmt::Display for CallTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// What the upstream is told of a cancellation, beside the closing of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelPolicy {
    /// Nothing.
    Off,
    /// This.
    Call(CallTemplate),
}

impl CancelPolicy {
    /// Reads `off` or `METHOD /path`. The error says so.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(CancelPolicy::Off),
            call => CallTemplate::parse(call).map(CancelPolicy::Call).map_err(|error| format!("{error}, or `off`")),
        }
    }
}

impl fmt::Display for CancelPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CancelPolicy::Off => f.write_str("off"),
            CancelPolicy::Call(call) => call.fmt(f),
        }
    }
}

/// What a `steer` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SteerPolicy {
    /// Calls the upstream, beside the run's stream.
    Forward(CallTemplate),
    /// Cancels the run and begins another with the new body.
    Interrupt,
    /// Begins another run with the new body when this one has ended.
    Queue,
    /// Nothing.
    Reject,
}

impl SteerPolicy {
    /// Reads `queue`, `interrupt`, `reject` or `forward METHOD /path`. The error says so.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(' ') {
            Some(("forward", call)) => CallTemplate::parse(call.trim()).map(SteerPolicy::Forward),
            None if text == "interrupt" => Ok(SteerPolicy::Interrupt),
            None if text == "queue" => Ok(SteerPolicy::Queue),
            None if text == "reject" => Ok(SteerPolicy::Reject),
            _ => Err(format!("`{text}`: write `queue`, `interrupt`, `reject` or `forward METHOD /path`")),
        }
    }
}

impl fmt::Display for SteerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SteerPolicy::Forward(call) => write!(f, "forward {call}"),
            SteerPolicy::Interrupt => f.write_str("interrupt"),
            SteerPolicy::Queue => f.write_str("queue"),
            SteerPolicy::Reject => f.write_str("reject"),
        }
    }
}

/// A value that a run's own events give: `NAME=json:/pointer` into their data. The first one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventValue {
    /// Its name in the templates.
    pub name: String,
    /// Where it stands in an event's data (RFC 6901).
    pub pointer: String,
}

impl EventValue {
    /// Reads `run_id=json:/metadata/run_id`. The error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(name, place)| Some((name, place.strip_prefix("json:")?)));
        let Some((name, pointer)) = parts.filter(|(name, _)| is_name(name)) else {
            return Err(format!("`{text}` is not a value of events; write `NAME=json:/pointer`"));
        };
        if name == "session" {
            return Err("`session` is the session's id already; take another name".into());
        }
        Ok(EventValue { name: name.into(), pointer: json_pointer(pointer)? })
    }
}

impl fmt::Display for EventValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=json:{}", self.name, self.pointer)
    }
}

/// The `Authorization` of requests that are made when their client is no longer there. Shown by
/// where it is found, never by what it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    place: String,
    value: HeaderValue,
}

impl Credential {
    /// Reads `env:NAME` or `file:PATH`, and what is there now. The error never repeats it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = match text.split_once(':') {
            Some(("env", name)) => std::env::var(name).map_err(|_| format!("the variable `{name}` is not set")),
            Some(("file", path)) => {
                std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
            }
            // Not what was written: it may be the credential itself.
            _ => Err("write `env:NAME` or `file:PATH`, where the value of `Authorization` is found".to_owned()),
        }?;
        let value = HeaderValue::from_str(found.trim()).ok().filter(|value| !value.is_empty());
        let mut value = value.ok_or_else(|| format!("what `{text}` holds cannot be the value of a header"))?;
        value.set_sensitive(true);
        Ok(Credential { place: text.into(), value })
    }

    /// The value of `Authorization`.
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.place)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_with_what_cannot_leave_its_segment() {
        let call = CallTemplate::parse("POST /threads/{thread}/runs/{run_id}/cancel?by={thread}").unwrap();
        let value = |name: &str| (name == "thread").then_some("a/b ?");
        assert_eq!(call.fill(value), Err("run_id"));
        let filled = call.fill(|name| value(name).or(Some("7")));
        assert_eq!(filled.as_deref(), Ok("/threads/a%2Fb%20%3F/runs/7/cancel?by=a%2Fb%20%3F"));
        for dots in ["", ".", ".."] {
            assert_eq!(call.fill(|_| Some(dots)), Err("thread"), "{dots}");
        }
        for bad in ["", "/x", "post /x", "POST x", "POST /{a b}", "POST /{}", "POST /{a", "POST /a}"] {
            assert!(CallTemplate::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reference_leads_where_rfc_3986_says() {
        for (reference, path, at) in [
            ("POST responses/{id}/cancel", "/v1/responses", "/v1/responses/{id}/cancel"),
            ("POST {id}/cancel?action=x", "/threads/t/runs/stream", "/threads/t/runs/{id}/cancel?action=x"),
            ("POST ../events", "/v1/sessions/s/events/stream", "/v1/sessions/s/events"),
            ("POST", "/mcp", "/mcp"),
            ("POST", "/", "/"),
            ("POST x", "/", "/x"),
            ("POST ../../../x", "/a/b", "/x"),
            ("POST x", "/{a}/b", "/%7Ba%7D/x"),
            ("POST /at/root", "/a/b", "/at/root"),
        ] {
            assert_eq!(CallTemplate::reference(reference).unwrap().resolved(path).path, at, "{reference} from {path}");
        }
    }

    #[test]
    fn every_way_to_steer_is_read_and_shown_alike() {
        for text in ["queue", "interrupt", "reject", "forward POST /runs/{id}/input"] {
            assert_eq!(SteerPolicy::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "forward", "forward /x", "wait", "queue now"] {
            assert!(SteerPolicy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_of_events_has_a_name_and_a_place() {
        assert_eq!(EventValue::parse("id=json:/a/0").unwrap().to_string(), "id=json:/a/0");
        for bad in ["", "id", "id=/a", "=json:/a", "a b=json:/a", "id=json:a", "session=json:/a"] {
            assert!(EventValue::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_credential_that_is_not_there_is_an_error_that_does_not_repeat_it() {
        for bad in ["Bearer secret", "env:SIDESTREAM_TEST_NO_SUCH_VARIABLE", "file:/no/such/file"] {
            assert!(Credential::parse(bad).is_err(), "{bad}");
        }
    }
}
