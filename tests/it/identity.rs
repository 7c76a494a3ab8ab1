//! Which session a request belongs to.

use rstest::rstest;

use crate::support::{Stage, Store};

const RULES: &str = r#"
[[route]]
match = "POST /rules/{session}/*"
session = ["header:x-thread", "query:thread", "cookie:thread", "json:/body/thread", "path:/rules/{session}/*"]
"#;

#[rstest]
#[case::header("header-1", "/rules/path-1/chat?thread=query-1", &[("x-thread", "header-1"), ("cookie", "thread=cookie-1")])]
#[case::query("query-1", "/rules/path-1/chat?a=b&thread=query-1", &[("cookie", "thread=cookie-1")])]
#[case::cookie("cookie-1", "/rules/path-1/chat", &[("cookie", "a=b; thread=cookie-1")])]
#[case::json("json-1", "/rules/path-1/chat", &[("x-body", r#"{"body":{"thread":"json-1"}}"#)])]
#[case::path("path-1", "/rules/path-1/chat", &[])]
#[tokio::test]
async fn a_session_is_found_by_the_first_rule_that_yields_one(
    #[case] expected: &str,
    #[case] path: &str,
    #[case] headers: &[(&str, &str)],
) {
    let mut stage = Stage::with(Store::Embedded, RULES).await;
    let mut ask = stage.sidecar.post(path);
    for (name, value) in headers {
        ask = if *name == "x-body" { ask.body((*value).to_owned()) } else { ask.header(name, value) };
    }
    let run = stage.answered(ask).await;
    assert_eq!(run.session, expected);
    assert_eq!(run.upstream.path, path, "the request itself is unchanged");
}

#[tokio::test]
async fn the_clients_own_word_comes_before_every_rule() {
    let mut stage = Stage::with(Store::Embedded, RULES).await;
    let ask = stage.sidecar.post("/rules/path-1/chat").header("sidestream-session", "mine");
    let ask = ask.header("x-thread", "theirs").header("sidestream-source", "me").header("sidestream-run", "forged");
    let run = stage.answered(ask).await;
    assert_eq!(run.session, "mine");
    assert_eq!(run.upstream.header("sidestream-source"), None, "our own headers are not forwarded");
    assert_eq!(run.upstream.header("sidestream-run"), Some(&*run.id), "but the agent is told what is so");
}

#[tokio::test]
async fn a_value_that_is_no_id_becomes_the_same_digest_every_time() {
    let mut stage = Stage::with(Store::Embedded, RULES).await;
    let first = stage.answered(stage.sidecar.post("/rules/x/chat").header("x-thread", "chat 42/ä")).await;
    let second = stage.answered(stage.sidecar.post("/rules/x/chat").header("x-thread", "chat 42/ä")).await;
    assert_eq!((first.session.len(), first.session.starts_with('~')), (44, true), "{}", first.session);
    assert_eq!(first.session, second.session);
    // Whoever was told it may read it.
    let mut device = stage.sidecar.connect().await;
    device.attach(&first.session).await;
    assert_eq!(device.entry().await["run"], first.id);
    assert_eq!(device.entry().await["run"], second.id);
}

#[tokio::test]
async fn a_client_cannot_write_to_a_session_by_naming_its_digest() {
    let mut stage = Stage::with(Store::Embedded, RULES).await;
    let run = stage.answered(stage.sidecar.post("/rules/x/chat").header("x-thread", "chat 42")).await;
    let refused = stage.sidecar.post("/rules/x/chat").header("sidestream-session", &run.session).send().await;
    assert_eq!(refused.problem().await, (400, "bad_request".into()));
    assert_eq!(stage.agent.count(), 1, "the upstream was not asked");
}

#[tokio::test]
async fn without_a_rule_every_request_is_its_own_session() {
    let mut stage = Stage::on(Store::Embedded).await;
    let (one, two) = (stage.run().await, stage.run().await);
    assert_ne!(one.session, two.session);
}

#[tokio::test]
async fn a_body_too_large_for_its_rule_is_forwarded_whole_and_the_answer_says_so() {
    let route = "[[route]]\nmatch = \"POST /chat\"\nsession = [\"json:/thread\"]";
    let config = format!("[server]\nidentity_body_limit = \"1KiB\"\n{route}");
    let mut stage = Stage::with(Store::Embedded, &config).await;
    let body = format!(r#"{{"pad":"{}","thread":"json-1"}}"#, "x".repeat(10_000));
    let run = stage.answered(stage.sidecar.post("/chat").body(body.clone())).await;
    assert_eq!(run.upstream.body, body.as_bytes());
    assert_eq!((run.caller.header("sidestream-session-rule"), run.session.len()), ("none", 32));
    let run = stage.answered(stage.sidecar.post("/chat").body(r#"{"thread":"json-1"}"#)).await;
    assert_eq!(run.session, "json-1");
}
