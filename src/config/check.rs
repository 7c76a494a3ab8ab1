//! Rules about values that must go together. Every message says what to do.

use std::net::SocketAddr;

use http::HeaderName;
use http::Method;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};

use super::calls::{CallTemplate, CancelPolicy, SteerPolicy};
use super::problem::Problem;
use super::route::RoutePattern;
use super::route_settings::Route;
use super::settings::{AuthMode, Config, Http2};
use super::store_rules;
use crate::dialect::{Call, Dialect, Dialects};

/// What is wrong with values that are fine one by one.
pub(super) fn together(config: &Config) -> Vec<Problem> {
    let rules = [listen_twice(config), http2(config), limits(config), sent_headers(config), lent_credential(config)];
    let wrong = rules.into_iter().flatten().chain(store_rules::store(config)).chain(open_listeners(config));
    wrong.chain(wrong_calls(config)).map(Problem::overall).collect()
}

/// Calls of dialects that cannot be made.
fn wrong_calls(config: &Config) -> impl Iterator<Item = String> {
    config.dialects.iter().flat_map(|dialect| {
        [("cancel", &dialect.cancel), ("follow_up", &dialect.follow_up)].into_iter().filter_map(move |(key, call)| {
            let wrong = wrong_call(dialect, call.as_ref()?)?;
            Some(format!("[[dialect]] `{}`: `{key}`: {wrong}", dialect.name))
        })
    })
}

fn wrong_call(dialect: &Dialect, call: &Call) -> Option<String> {
    let template = match CallTemplate::reference(&call.call) {
        Ok(template) => template,
        Err(wrong) => return Some(wrong),
    };
    let given =
        |name: &str| name == "session" || dialect.values.contains_key(name) || dialect.request.contains_key(name);
    if let Some(name) = template.names().find(|name| !given(name)) {
        return Some(format!("nothing gives `{{{name}}}`; add `values.{name} = \"/pointer\"` or `request.{name}`"));
    }
    let unread = call.headers.iter().find(|name| HeaderName::from_bytes(name.as_bytes()).is_err());
    if let Some(name) = unread {
        return Some(format!("`{name}` is not the name of a header"));
    }
    let body = call.body.as_deref()?;
    serde_json::from_str::<serde::de::IgnoredAny>(body).err().map(|error| format!("its body is not JSON: {error}"))
}

/// A dialect that a route names and nobody describes.
pub(super) fn unknown_dialect(route: &Route, dialects: &Dialects) -> Option<String> {
    let name = route.dialect.iter().find(|name| dialects.named(name).is_none())?;
    let known: Vec<_> = dialects.names().collect();
    Some(format!(
        "[[route]] `dialect`: there is no dialect `{name}`; write one of {}, or describe it in a `[[dialect]]`",
        known.join(", ")
    ))
}

/// What a client names in a `send` waits in the store with it, and must not frame another request.
fn sent_headers(config: &Config) -> Option<String> {
    let secret = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];
    let framing = [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE, TE];
    let wrong =
        config.send.headers.iter().find(|name| {
            secret.iter().chain(&config.send.credentials).chain(&framing).any(|kept_out| kept_out == *name)
        })?;
    Some(format!(
        "send.headers has `{wrong}`: what a client names in a message is stored while it waits, and frames nothing; credentials of its own request go along by send.credentials"
    ))
}

/// What is wrong with a route's values together.
pub(super) fn route(route: &Route, dialects: &Dialects) -> Option<String> {
    let dialects: Vec<_> = route.dialect.iter().filter_map(|name| dialects.named(name)).collect();
    if route.stall > route.stall_limit {
        let wrong =
            "[[route]] `stall` is longer than `stall_limit`; the run would fail before it is said to be stalled";
        return Some(wrong.into());
    }
    if let Some(wrong) = resumed(route) {
        return Some(wrong);
    }
    if route.cancel_body.is_some() && !matches!(route.cancel, Some(CancelPolicy::Call(_))) {
        return Some("[[route]] `cancel_body` without a `cancel`: name the call that it is the body of".into());
    }
    let calls = [
        match &route.cancel {
            Some(CancelPolicy::Call(call)) => Some(call),
            Some(CancelPolicy::Off) | None => None,
        },
        match &route.steer {
            Some(SteerPolicy::Forward(call)) => Some(call),
            _ => None,
        },
    ];
    let known = |name: &str| {
        name == "session"
            || route.pattern.has(name)
            || route.values.iter().any(|value| value.name == name)
            || dialects.iter().any(|dialect| dialect.values.contains_key(name) || dialect.request.contains_key(name))
    };
    let missing = |call: &CallTemplate| call.names().find(|name| !known(name)).map(str::to_owned);
    let name = calls.into_iter().flatten().find_map(missing)?;
    Some(format!(
        "[[route]] a call names `{{{name}}}`, which nothing gives; add `values = [\"{name}=json:/pointer\"]`, its place in the data of the run's events, or name a segment of the route's path so"
    ))
}

/// What is wrong with how runs of a route are found again.
fn resumed(route: &Route) -> Option<String> {
    if route.session.is_empty() && (route.join || !route.resume.is_empty()) {
        let option = if route.join { "join" } else { "resume" };
        return Some(format!(
            "[[route]] `{}` has `{option}` and no `session`: every request is a session of its own, and none is found again; add a rule such as `session = [\"json:/id\"]`",
            route.pattern
        ));
    }
    let kept_out = !route.record || route.intercept == Some(false);
    if kept_out && !route.resume.is_empty() {
        return Some(format!("[[route]] `{}` is not recorded: there is nothing to `resume`", route.pattern));
    }
    let fits = |pattern: &&RoutePattern| pattern.method != Some(Method::GET) || !pattern.has("session");
    let wrong = route.resume.iter().find(fits)?;
    Some(format!(
        "[[route]] `resume`: `{wrong}` must be a GET with a segment `{{session}}`, such as `GET /api/chat/{{session}}/stream`"
    ))
}

/// The data and admin listeners that other machines reach, each with its option.
pub(super) fn public(config: &Config) -> impl Iterator<Item = (&'static str, SocketAddr, &'static str)> {
    [("data", config.listen, "--listen"), ("admin", config.admin_listen, "--admin-listen")]
        .into_iter()
        .filter(|(_, address, _)| !address.ip().to_canonical().is_loopback())
}

/// Without authentication nobody knows who sends, and a queued run goes out with the route's own credential.
fn lent_credential(config: &Config) -> Option<String> {
    let lends = config.routes.iter().find(|route| route.credential.is_some())?;
    let open = config.auth.mode == AuthMode::None && !config.listen.ip().to_canonical().is_loopback();
    open.then(|| {
        format!(
            "[[route]] `{}` has a `credential`, and other machines reach --listen {} without authentication: whoever does could have \
             requests made with it; listen on 127.0.0.1, or remove it",
            lends.pattern, config.listen
        )
    })
}

fn open_listeners(config: &Config) -> Vec<String> {
    if config.auth.mode != AuthMode::None || config.allow_open {
        return Vec::new();
    }
    public(config)
        .map(|(name, address, flag)| {
            format!(
                "{flag} {address}: other machines reach the {name} listener, and with `--auth none` (all that this version has) \
                 whoever reaches it may read every session; listen on 127.0.0.1, or accept it with `--allow-open`"
            )
        })
        .collect()
}

fn listen_twice(config: &Config) -> Option<String> {
    let all =
        [("listen", config.listen), ("health_listen", config.health_listen), ("admin_listen", config.admin_listen)];
    all.iter().enumerate().find_map(|(i, (name, address))| {
        let (twin, _) = all[i + 1..].iter().find(|(_, other)| other == address && address.port() != 0)?;
        Some(format!("`{name}` and `{twin}` are both {address}; give each its own port"))
    })
}

fn http2(config: &Config) -> Option<String> {
    let tls = config.upstream.url.scheme_str() == Some("https");
    match config.upstream.http2 {
        Http2::Alpn if !tls => {
            Some("`upstream.http2 = \"alpn\"` needs an https:// upstream; for http:// write \"h2c\"".into())
        }
        Http2::H2c if tls => Some("`upstream.http2 = \"h2c\"` is without TLS; for https:// write \"alpn\"".into()),
        _ => None,
    }
}

fn limits(config: &Config) -> Option<String> {
    (config.limits.pending_bytes < config.limits.event_bytes)
        .then(|| "`limits.pending_bytes` is less than `limits.event_bytes`: the largest event would never fit; raise the first or lower the second".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Credential, EventValue, StoreUrl};

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::new(http::Uri::from_static("http://127.0.0.1:8000"));
        config.store.url = Some(StoreUrl::File("data".into()));
        change(&mut config);
        config
    }

    #[track_caller]
    fn assert_refused(change: impl FnOnce(&mut Config), names: &[&str]) {
        let problems = together(&config(change));
        assert_eq!(problems.len(), 1, "{problems:?}");
        for name in names {
            assert!(problems[0].message.contains(name), "{problems:?}");
        }
    }

    #[test]
    fn the_defaults_are_fine() {
        assert_eq!(together(&config(|_| {})), []);
        assert!(config(|_| {}).warnings().is_empty());
    }

    #[test]
    fn a_header_that_must_not_be_stored_or_frames_the_request_is_none_that_clients_name() {
        for name in [AUTHORIZATION, COOKIE, CONTENT_LENGTH, HOST] {
            assert_refused(|c| c.send.headers = vec![name.clone()], &["send.headers", name.as_str()]);
        }
        let key = http::HeaderName::from_static("x-api-key");
        assert_refused(
            |c| (c.send.headers, c.send.credentials) = (vec![key.clone()], vec![key.clone()]),
            &["x-api-key"],
        );
        assert_eq!(together(&config(|c| c.send.headers = vec![key])), []);
    }

    #[test]
    fn an_open_listener_is_refused_and_both_ways_out_are_named() {
        let open: SocketAddr = "0.0.0.0:8787".parse().unwrap();
        assert_refused(|c| c.listen = open, &["--auth", "--allow-open", "0.0.0.0:8787"]);
        assert_refused(|c| c.admin_listen = open, &["--auth", "--allow-open", "admin"]);
        assert_eq!(together(&config(|c| c.health_listen = open)), []);
    }

    #[test]
    fn an_open_listener_that_was_accepted_is_a_loud_warning() {
        let accepted = config(|c| {
            c.listen = "[::]:8787".parse().unwrap();
            c.allow_open = true;
        });
        assert_eq!(together(&accepted), []);
        assert!(accepted.warnings()[0].contains("OPEN"));
    }

    #[test]
    fn loopback_in_any_spelling_is_not_open() {
        for address in ["127.0.0.2:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(together(&config(|c| c.listen = address.parse().unwrap())), [], "{address}");
        }
    }

    #[test]
    fn two_listeners_cannot_share_a_port_but_both_may_ask_for_a_free_one() {
        assert_refused(|c| c.admin_listen = c.listen, &["`listen`", "`admin_listen`"]);
        let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
        assert_eq!(together(&config(|c| (c.listen, c.health_listen) = (free, free))), []);
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        assert_refused(|c| c.upstream.http2 = Http2::Alpn, &["h2c"]);
        assert_refused(|c| c.limits.pending_bytes = 1, &["limits.event_bytes"]);
        assert_refused(|c| c.store.total_bytes = 1, &["store.max_bytes"]);
        assert_refused(|c| c.store.url = None, &["--store"]);
    }

    #[test]
    fn a_credential_is_not_lent_to_whoever_reaches_the_listener() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "Bearer x").unwrap();
        let lends = |config: &mut Config| {
            let mut route = Route::unnamed();
            route.credential = Credential::parse(&format!("file:{}", file.path().display())).ok();
            config.routes.push(route);
        };
        assert!(together(&config(lends)).is_empty());
        assert_refused(
            |config| {
                lends(config);
                config.allow_open = true;
                config.listen = ([0, 0, 0, 0], 8787).into();
            },
            &["credential", "--listen"],
        );
    }

    #[test]
    fn a_call_names_only_what_the_runs_events_give() {
        let mut rules = Route::unnamed();
        rules.cancel = CancelPolicy::parse("POST /s/{session}/runs/{run_id}/cancel").ok();
        assert!(route(&rules, &Dialects::default()).is_some_and(|message| message.contains("run_id=json:")));
        rules.values.extend(EventValue::parse("run_id=json:/id"));
        assert_eq!(route(&rules, &Dialects::default()), None);
        rules.steer = SteerPolicy::parse("forward POST /runs/{other}").ok();
        assert!(route(&rules, &Dialects::default()).is_some_and(|message| message.contains("other")));
    }

    #[test]
    fn a_run_is_stalled_before_it_fails() {
        let mut rules = Route::unnamed();
        rules.stall_limit = rules.stall / 2;
        assert!(route(&rules, &Dialects::default()).is_some_and(|message| message.contains("stall_limit")));
    }
}
