//! Rules about the options of a store that must go together. Every message names what to change.

use std::fs::File;
use std::path::Path;

use super::secret::Secret;
use super::settings::Config;
use super::store::{Ack, Store};
use super::store_url::StoreUrl;
use crate::redis_url::{RedisUrl, Topology};

/// What is wrong with the store's options together.
pub(super) fn store(config: &Config) -> Vec<String> {
    let store = &config.store;
    match &store.url {
        None => vec![
            "no place for the embedded store: none of SIDESTREAM_DATA_DIR, XDG_STATE_HOME and HOME is set; name one with `--store file:DIR`".into(),
        ],
        Some(StoreUrl::Redis(url)) => redis(store, url),
        Some(url) => embedded(store, url),
    }
}

fn embedded(store: &Store, url: &StoreUrl) -> Vec<String> {
    let given = [
        ("store.password", store.password.is_some()),
        ("store.ca_file", store.ca_file.is_some()),
        ("store.cert_file", store.cert_file.is_some()),
        ("store.key_file", store.key_file.is_some()),
        ("store.sentinel_username", store.sentinel_username.is_some()),
        ("store.sentinel_password", store.sentinel_password.is_some()),
    ];
    let given = given.into_iter().filter(|(_, is_given)| *is_given);
    let mut wrong: Vec<String> =
        given.map(|(name, _)| format!("`{name}` is for a Redis store; remove it, or change `store.url`")).collect();
    if store.ack == Ack::Replicated {
        wrong.push("`store.ack = \"replicated\"` is for a Redis store: the embedded store is on one disk and has no replicas; remove it, or change `store.url`".into());
    }
    if matches!(url, StoreUrl::File(_)) && store.total_bytes < store.max_bytes {
        wrong.push("`store.total_bytes` is less than `store.max_bytes` of a single session; raise the first or lower the second".into());
    }
    wrong
}

fn redis(store: &Store, url: &RedisUrl) -> Vec<String> {
    let mut wrong = Vec::new();
    let password = match &store.password {
        Some(Secret::File(path)) => Some(path),
        _ => None,
    };
    let sentinel_password = match &store.sentinel_password {
        Some(Secret::File(path)) => Some(path),
        _ => None,
    };
    let tls = [
        ("store.ca_file", store.ca_file.as_ref()),
        ("store.cert_file", store.cert_file.as_ref()),
        ("store.key_file", store.key_file.as_ref()),
    ];
    for (name, path) in tls.into_iter().filter_map(|(name, path)| Some((name, path?))) {
        match url.tls {
            true => wrong.extend(unreadable(name, path)),
            false => wrong.push(format!(
                "`{name}` is for a store with TLS (`rediss://…`, `rediss-sentinel://…`, `rediss-cluster://…`); remove it, or change `store.url`"
            )),
        }
    }
    for (name, path) in [("store.password", password), ("store.sentinel_password", sentinel_password)] {
        wrong.extend(path.and_then(|path| unreadable(name, path)));
    }
    match (&store.cert_file, &store.key_file) {
        (Some(_), None) => wrong.push("`store.cert_file` needs `store.key_file`, the certificate's private key".into()),
        (None, Some(_)) => wrong.push("`store.key_file` needs `store.cert_file`, the key's certificate".into()),
        _ => {}
    }
    if url.password.is_some() && store.password.is_some() {
        wrong.push("both `store.url` and `store.password` give a password; remove one of them".into());
    }
    if url.user.is_some() && url.password.is_none() && store.password.is_none() {
        wrong.push("`store.url` names a user without a password; write `USER:PASSWORD@` (`:PASSWORD@` for the default user), or say with `store.password` where it is".into());
    }
    let sentinel = matches!(url.topology, Topology::Sentinel { .. });
    for (name, given) in [
        ("store.sentinel_username", store.sentinel_username.is_some()),
        ("store.sentinel_password", store.sentinel_password.is_some()),
    ] {
        if given && !sentinel {
            wrong.push(format!("`{name}` is for a `redis-sentinel://` store; remove it, or change `store.url`"));
        }
    }
    if store.sentinel_username.is_some() && store.sentinel_password.is_none() {
        wrong.push("`store.sentinel_username` needs `store.sentinel_password`".into());
    }
    wrong
}

fn unreadable(name: &str, path: &Path) -> Option<String> {
    File::open(path).err().map(|error| format!("`{name}`: cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_refused(url: &str, change: impl FnOnce(&mut Store), names: &[&str]) {
        let mut config = Config::new(http::Uri::from_static("http://127.0.0.1:8000"));
        config.store.url = StoreUrl::parse(url).ok();
        change(&mut config.store);
        let wrong = store(&config);
        assert_eq!(wrong.len(), usize::from(!names.is_empty()), "{wrong:?}");
        for name in names {
            assert!(wrong[0].contains(name), "{wrong:?}");
        }
    }

    fn text(value: &str) -> Option<Secret> {
        Some(Secret::Variable { name: "PW".into(), value: value.into() })
    }

    #[test]
    fn what_only_redis_has_is_not_for_the_embedded_store() {
        assert_refused("file:data", |s| s.ca_file = Some("ca.pem".into()), &["store.ca_file", "Redis"]);
        assert_refused("memory:", |s| s.password = text("x"), &["store.password", "Redis"]);
        assert_refused("file:data", |s| s.ack = Ack::Replicated, &["store.ack", "no replicas"]);
        assert_refused("redis://h", |s| s.ack = Ack::Replicated, &[]);
    }

    #[test]
    fn certificates_are_for_tls_and_are_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let there = || Some(file.path().to_owned());
        assert_refused("redis://h", |s| s.ca_file = there(), &["store.ca_file", "rediss://"]);
        assert_refused("rediss-cluster://h", |s| s.ca_file = there(), &[]);
        assert_refused("rediss://h", |s| s.ca_file = Some("/does/not/exist".into()), &["store.ca_file", "cannot read"]);
        assert_refused("rediss://h", |s| s.cert_file = there(), &["store.cert_file", "store.key_file"]);
        assert_refused("rediss://h", |s| s.key_file = there(), &["store.cert_file", "store.key_file"]);
        assert_refused("rediss://h", |s| (s.cert_file, s.key_file) = (there(), there()), &[]);
    }

    #[test]
    fn a_password_stands_in_one_place() {
        assert_refused("redis://u:p@h", |s| s.password = text("x"), &["store.url", "store.password"]);
        assert_refused("redis://u@h", |_| {}, &["without a password", "store.password"]);
        assert_refused("redis://u@h", |s| s.password = text("x"), &[]);
        let gone = |s: &mut Store| s.password = Secret::parse("file:/does/not/exist").ok();
        assert_refused("redis://u@h", gone, &["store.password", "cannot read"]);
    }

    #[test]
    fn credentials_of_sentinels_need_sentinels() {
        assert_refused(
            "redis://h",
            |s| s.sentinel_password = text("x"),
            &["store.sentinel_password", "redis-sentinel"],
        );
        let named = |s: &mut Store| s.sentinel_username = Some("u".into());
        assert_refused("redis-sentinel://h?master=m", named, &["store.sentinel_username", "store.sentinel_password"]);
        assert_refused("redis-sentinel://h?master=m", |s| s.sentinel_password = text("x"), &[]);
    }
}
