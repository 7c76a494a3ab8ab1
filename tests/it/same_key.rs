//! No second run: requests with an equal `Idempotency-Key` are one request, whoever repeats it, when
//! and through which instance. The upstream is called once.

use rstest::rstest;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Answer, Ask, End, Run, Sidecar, SseClient, Stage, Store, events_of, terminal_of, until, within};

/// A request with this key.
fn keyed(sidecar: &Sidecar, key: &str) -> Ask {
    sidecar.post("/chat").header("idempotency-key", key).body(r#"{"q":1}"#)
}

/// The data of all events of a body, and how it ended.
async fn data_of(answer: Answer) -> (Vec<String>, End) {
    let (events, end) = SseClient::new(answer).rest().await;
    (events.into_iter().map(|event| event.data).collect(), end)
}

/// A run that ended after one event, asked for with the key `k`.
async fn ended(stage: &mut Stage) -> Run {
    let mut run = stage.answered(keyed(&stage.sidecar, "k")).await;
    run.upstream.event(1).await;
    let Run { session, id, caller, mut upstream } = run;
    upstream.raw("0\r\n\r\n").await;
    let (data, end) = data_of(caller).await;
    assert_eq!((data, end), (vec!["1".to_owned()], End::Clean));
    Run { session, id, caller: keyed(&stage.sidecar, "k").send().await, upstream }
}

/// Known failure 7: a phone that resumes re-sends its POST, and there are two runs.
#[rstest]
#[tokio::test]
async fn a_post_that_is_sent_again_joins_the_run_of_the_first(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.answered(keyed(&stage.sidecar, "k")).await;
    run.upstream.event(1).await;
    run.caller.arrives("data: 1\n\n").await;
    let again = keyed(&stage.sidecar, "k").send().await;
    assert_eq!((again.header("sidestream-run"), again.header("sidestream-session")), (&*run.id, &*run.session));
    run.upstream.event(2).await;
    run.upstream.end().await;
    for answer in [run.caller, again] {
        let (data, end) = data_of(answer).await;
        assert_eq!((data.last().map(String::as_str), end), (Some("2"), End::Clean));
    }
    assert_eq!(stage.agent.count(), 1);
    let all = stage.sidecar.entries(&run.session).await;
    assert_eq!(events_of(&all, &run.id, "").len(), 2);
}

#[rstest]
#[tokio::test]
async fn a_post_that_is_sent_again_after_the_end_gets_the_same_answer(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let ask = keyed(&stage.sidecar, "k").header("origin", "https://app.example");
    let (caller, upstream) = tokio::join!(ask.send(), async {
        let mut upstream = stage.agent.asked().await;
        let head = "HTTP/1.1 201 Created\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\
                    access-control-allow-origin: https://app.example\r\nx-vercel-ai-ui-message-stream: v1\r\n\
                    set-cookie: a=1\r\n\r\n";
        upstream.raw(head).await;
        upstream.event(1).await;
        upstream.raw("0\r\n\r\n").await;
        upstream
    });
    let run = caller.header("sidestream-run").to_owned();
    assert_eq!(upstream.header("idempotency-key"), Some("k"), "the upstream may know what to do with it");
    caller.whole().await;
    let again = keyed(&stage.sidecar, "k").header("origin", "https://app.example").send().await;
    assert_eq!((again.status.as_u16(), again.header("sidestream-run")), (201, &*run));
    assert_eq!(again.header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(again.header("x-vercel-ai-ui-message-stream"), "v1");
    assert_eq!(again.header("access-control-allow-origin"), "https://app.example");
    assert!(again.headers.get("set-cookie").is_none());
    assert_eq!(again.whole().await, ("data: 1\n\n".into(), End::Clean));
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn of_many_posts_at_the_same_moment_through_two_instances_one_reaches_the_upstream() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let asking: Vec<_> =
        (0..16).map(|n| tokio::spawn(keyed(if n % 2 == 0 { &stage.sidecar } else { &other }, "k").send())).collect();
    let mut upstream = stage.agent.asked().await;
    upstream.sse().await;
    upstream.event(1).await;
    upstream.end().await;
    let mut runs = std::collections::HashSet::new();
    for answer in asking {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        runs.insert((answer.header("sidestream-session").to_owned(), answer.header("sidestream-run").to_owned()));
        assert_eq!(data_of(answer).await, (vec!["1".into()], End::Clean));
    }
    assert_eq!((runs.len(), stage.agent.count()), (1, 1));
}

#[rstest]
#[tokio::test]
async fn a_caller_that_left_before_the_answer_began_finds_its_run(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let first = tokio::spawn(keyed(&stage.sidecar, "k").send());
    let mut upstream = stage.agent.asked().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let again = tokio::spawn(keyed(&stage.sidecar, "k").send());
    upstream.sse().await;
    upstream.event(1).await;
    upstream.end().await;
    assert_eq!(data_of(again.await.unwrap()).await, (vec!["1".into()], End::Clean));
    assert_eq!(stage.agent.count(), 1);
}

#[rstest]
#[tokio::test]
async fn the_same_key_with_another_body_is_a_conflict(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let other = |stage: &Stage| stage.sidecar.post("/chat").header("idempotency-key", "k").body(r#"{"q":2}"#);
    let first = tokio::spawn(keyed(&stage.sidecar, "k").send());
    let mut upstream = stage.agent.asked().await;
    let conflict = (409, "conflict".to_owned());
    assert_eq!(other(&stage).send().await.problem().await, conflict, "before the answer has begun");
    upstream.sse().await;
    let first = first.await.unwrap();
    assert_eq!(other(&stage).send().await.problem().await, conflict, "while it runs");
    upstream.end().await;
    data_of(first).await;
    assert_eq!(other(&stage).send().await.problem().await, conflict, "after its end");
    let named = keyed(&stage.sidecar, "k").header("sidestream-session", "mine").send().await;
    assert_eq!(named.problem().await, conflict, "in a session that the first was not in");
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn the_same_key_of_another_caller_or_on_another_path_is_another_key() {
    let mut stage = Stage::on(Store::Embedded).await;
    let ask = |stage: &Stage, path: &str, who: &str| {
        stage.sidecar.post(path).header("idempotency-key", "k").header("authorization", format!("Bearer {who}"))
    };
    let mut runs = Vec::new();
    for (path, who) in [("/chat", "a"), ("/chat", "b"), ("/other", "a")] {
        let run = stage.answered(ask(&stage, path, who)).await;
        run.upstream.end().await;
        runs.push((run.session, run.id));
        data_of(run.caller).await;
    }
    assert_eq!(stage.agent.count(), 3);
    assert!(runs.iter().all(|(session, _)| session.starts_with('~')), "derived, and not to be named by others");
    runs.sort();
    runs.dedup_by_key(|(session, _)| session.clone());
    assert_eq!(runs.len(), 3);
}

#[rstest]
#[tokio::test]
async fn an_answer_that_is_no_stream_leaves_the_key_free(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    for n in 0..2 {
        let (answer, ()) = tokio::join!(keyed(&stage.sidecar, "k").send(), async {
            let mut upstream = stage.agent.asked().await;
            upstream.raw("HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops").await;
        });
        assert_eq!(answer.status, 500, "attempt {n}");
    }
    let (answer, ()) = tokio::join!(keyed(&stage.sidecar, "k").send(), async {
        stage.agent.asked().await.json("{}").await;
    });
    assert_eq!(answer.json().await, json!({}));
    // What went wrong before does not keep it from being a run, once.
    let run = stage.answered(keyed(&stage.sidecar, "k")).await;
    run.upstream.end().await;
    assert_eq!(keyed(&stage.sidecar, "k").send().await.header("sidestream-run"), run.id);
    assert_eq!(stage.agent.count(), 4);
}

#[tokio::test]
async fn who_waits_for_a_first_request_that_is_no_stream_is_forwarded_with_its_body() {
    let mut stage = Stage::on(Store::Embedded).await;
    let first = tokio::spawn(keyed(&stage.sidecar, "k").send());
    let upstream = stage.agent.asked().await;
    let second = tokio::spawn(keyed(&stage.sidecar, "k").send());
    upstream.json(r#"{"first":true}"#).await;
    assert_eq!(first.await.unwrap().json().await, json!({"first": true}));
    let mut upstream = stage.agent.asked().await;
    assert_eq!(upstream.body, br#"{"q":1}"#);
    upstream.sse().await;
    upstream.end().await;
    assert_eq!(data_of(second.await.unwrap()).await, (vec![], End::Clean));
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_leaves_the_key_free() {
    let mut stage = Stage::on(Store::Embedded).await;
    let port = crate::support::free_port();
    let cut_off = Sidecar::of(format!("http://127.0.0.1:{port}")).start().await;
    for _ in 0..2 {
        assert_eq!(keyed(&cut_off, "k").send().await.problem().await.1, "upstream_unreachable");
    }
    let (answer, ()) = tokio::join!(keyed(&stage.sidecar, "k").send(), async {
        stage.agent.asked().await.close();
    });
    assert_eq!(answer.problem().await.1, "upstream_reset");
    stage.answered(keyed(&stage.sidecar, "k")).await;
}

#[tokio::test]
async fn a_run_that_failed_is_not_begun_again() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.answered(keyed(&stage.sidecar, "k")).await;
    run.upstream.event(1).await;
    run.upstream.reset();
    assert_eq!(run.caller.whole().await.1, End::Aborted);
    let again = keyed(&stage.sidecar, "k").send().await;
    assert_eq!(again.header("sidestream-run"), run.id);
    assert_eq!(data_of(again).await, (vec!["1".into()], End::Aborted));
    assert_eq!(stage.agent.count(), 1);
}

#[rstest]
#[tokio::test]
async fn a_key_outlives_its_ttl_while_its_run_is_active(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::with(store, "[store]\nttl = \"1s\"").await;
    let mut run = stage.answered(keyed(&stage.sidecar, "k")).await;
    let begun = std::time::Instant::now();
    let mut n = 0;
    // The session lives by what is written to it.
    while begun.elapsed() < std::time::Duration::from_millis(2500) {
        n += 1;
        run.upstream.event(n).await;
        run.caller.arrives(&format!("data: {n}\n\n")).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(keyed(&stage.sidecar, "k").send().await.header("sidestream-run"), run.id);
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn a_run_that_is_no_longer_kept_is_gone_and_not_begun_again() {
    let mut stage = Stage::on(Store::Embedded).await;
    let run = ended(&mut stage).await;
    let path = format!("/_sidestream/v1/sessions/{}", run.session);
    let erased = Ask::new(http::Method::DELETE, &stage.sidecar.url(), path).send().await;
    assert_eq!(erased.status, 204);
    assert_eq!(keyed(&stage.sidecar, "k").send().await.problem().await, (410, "gone".into()));
    assert_eq!(stage.agent.count(), 1);
}

/// A POST whose body comes as the test sends it.
async fn half_sent(sidecar: &Sidecar, body: &str, of: usize) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", sidecar.port())).await.unwrap();
    let head = format!("POST /chat HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\ncontent-length: {of}\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn who_repeats_a_request_that_is_still_being_sent_waits_for_its_end() {
    let mut stage = Stage::on(Store::Embedded).await;
    let body = r#"{"q":1}"#;
    let mut first = half_sent(&stage.sidecar, &body[..3], body.len()).await;
    // It is on its way: the upstream has been connected to.
    until("the first claim", async || stage.agent.connections().gt(&0).then_some(())).await;
    let again = tokio::spawn(keyed(&stage.sidecar, "k").send());
    first.write_all(&body.as_bytes()[3..]).await.unwrap();
    let mut upstream = stage.agent.asked().await;
    upstream.sse().await;
    upstream.end().await;
    assert_eq!(data_of(again.await.unwrap()).await, (vec![], End::Clean));
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn a_request_that_broke_off_before_its_end_leaves_the_key_free() {
    let mut stage = Stage::on(Store::Embedded).await;
    let first = half_sent(&stage.sidecar, "{", 7).await;
    until("the first claim", async || stage.agent.connections().gt(&0).then_some(())).await;
    drop(first);
    stage.answered(keyed(&stage.sidecar, "k")).await;
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn a_body_above_the_limit_joins_as_any_other() {
    let mut stage = Stage::with(Store::Embedded, "[server]\nidentity_body_limit = \"1KiB\"").await;
    let large = || "x".repeat(100_000);
    let ask = |stage: &Stage, body: String| stage.sidecar.post("/chat").header("idempotency-key", "k").body(body);
    let run = stage.answered(ask(&stage, large())).await;
    assert_eq!(ask(&stage, large()).send().await.header("sidestream-run"), run.id);
    assert_eq!(ask(&stage, large() + "x").send().await.problem().await.1, "conflict");
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn a_run_whose_owner_was_killed_is_interrupted_and_not_begun_again() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let mut run = stage.answered(keyed(&stage.sidecar, "k")).await;
    run.upstream.event(1).await;
    run.caller.arrives("data: 1\n\n").await;
    stage.sidecar.process().kill();
    let again = keyed(&other, "k").send().await;
    assert_eq!(again.header("sidestream-run"), run.id);
    assert_eq!(data_of(again).await, (vec!["1".into()], End::Aborted));
    assert_eq!(terminal_of(&other.entries(&run.session).await, &run.id)["state"], "interrupted");
    assert_eq!(stage.agent.count(), 1);
}

#[rstest]
#[tokio::test]
async fn a_call_whose_claimant_was_killed_before_the_answer_is_not_made_again(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let asking = tokio::spawn(keyed(&stage.sidecar, "k").send());
    let upstream = stage.agent.asked().await;
    stage.sidecar.process().kill();
    within("the end of the first", asking).await.unwrap_err();
    drop(upstream);
    let sidecar = stage.sidecar.restart().await;
    for _ in 0..2 {
        assert_eq!(keyed(&sidecar, "k").send().await.problem().await, (410, "gone".into()));
    }
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn with_the_store_away_a_key_does_not_keep_a_request_from_the_upstream() {
    let mut stage = Stage::on(Store::Redis).await;
    stage.store.redis().kill();
    until("the store to be missed", async || stage.sidecar.misses_store().await).await;
    let (answer, mut upstream) = tokio::join!(keyed(&stage.sidecar, "k").send(), async {
        let mut upstream = stage.agent.asked().await;
        upstream.sse().await;
        upstream
    });
    assert_eq!(answer.header("sidestream-durable"), "no");
    upstream.event(1).await;
    upstream.end().await;
    assert_eq!(answer.whole().await, ("data: 1\n\n".into(), End::Clean));
}

#[tokio::test]
async fn a_sub_agents_run_names_its_parent() {
    let mut stage = Stage::on(Store::Embedded).await;
    let parent = stage.run_in("s").await;
    let ask = stage.sidecar.post("/agent").header("sidestream-session", "s");
    let child = stage.answered(ask.header("sidestream-parent-run", &parent.id)).await;
    assert_eq!(child.upstream.header("sidestream-parent-run"), None, "it is ours, and not passed on");
    let all = stage.sidecar.entries("s").await;
    let begun = all.iter().find(|entry| entry["run"] == child.id && entry["state"] == "started").unwrap();
    assert_eq!(begun["parent"], parent.id);
    let wrong = stage.sidecar.post("/agent").header("sidestream-parent-run", "not an id");
    assert_eq!(wrong.send().await.problem().await, (400, "bad_request".into()));
    assert_eq!(stage.agent.count(), 2);
}
