//! Clients that try again by themselves, and say so: a repeat is no second run.

use rstest::rstest;

use crate::support::{Answer, Ask, End, Sidecar, Stage, Store, until};

/// What an OpenAI SDK sends, for the n-th time.
fn tries(sidecar: &Sidecar, n: u32, body: &'static str) -> Ask {
    sidecar.post("/v1/chat/completions").header("x-stainless-retry-count", n).body(body)
}

const BODY: &str = r#"{"model":"m","messages":[],"stream":true}"#;

async fn text_of(answer: Answer) -> (String, End) {
    let (body, end) = answer.whole().await;
    (String::from_utf8(body.to_vec()).unwrap(), end)
}

async fn is(stage: &Stage, run: &str, state: &str) {
    until("the run's end", async || {
        let run = stage.sidecar.get(format!("/_sidestream/v1/runs/{run}")).send().await.json().await;
        (run["state"] == state).then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn a_client_that_gave_up_before_the_answer_began_finds_its_run_when_it_tries_again(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let first = tokio::spawn(tries(&stage.sidecar, 0, BODY).send());
    let mut upstream = stage.agent.asked().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let again = tokio::spawn(tries(&stage.sidecar, 1, BODY).send());
    // It waits with the first for the upstream's head.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    upstream.sse().await;
    upstream.event(1).await;
    upstream.end().await;
    assert_eq!(text_of(again.await.unwrap()).await, ("data: 1\n\n".into(), End::Clean));
    assert_eq!(stage.agent.count(), 1);
}

#[rstest]
#[tokio::test]
async fn a_repeat_joins_what_runs_and_gets_what_has_been_completed(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.answered(tries(&stage.sidecar, 0, BODY)).await;
    run.upstream.event(1).await;
    let joined = tries(&stage.sidecar, 1, BODY).send().await;
    assert_eq!(joined.header("sidestream-run"), run.id);
    run.upstream.end().await;
    assert_eq!(text_of(joined).await, ("data: 1\n\n".into(), End::Clean));
    is(&stage, &run.id, "completed").await;
    let replayed = tries(&stage.sidecar, 2, BODY).send().await;
    assert_eq!(replayed.header("sidestream-run"), run.id);
    assert_eq!(text_of(replayed).await, ("data: 1\n\n".into(), End::Clean));
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn a_repeat_never_gets_a_run_that_failed() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.answered(tries(&stage.sidecar, 0, BODY)).await;
    run.upstream.event(1).await;
    run.upstream.reset();
    assert_eq!(run.caller.whole().await.1, End::Aborted);
    is(&stage, &run.id, "failed").await;
    let again = stage.answered(tries(&stage.sidecar, 1, BODY)).await;
    assert_ne!(again.id, run.id);
    let third = tries(&stage.sidecar, 2, BODY).send().await;
    assert_eq!(third.header("sidestream-run"), again.id, "and what it began is found in its turn");
}

#[tokio::test]
async fn an_answer_that_is_an_error_is_mended_by_the_next_try() {
    let mut stage = Stage::on(Store::Embedded).await;
    let (answer, ()) = tokio::join!(tries(&stage.sidecar, 0, BODY).send(), async {
        stage.agent.asked().await.raw("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
    });
    assert_eq!(answer.status, 500);
    stage.answered(tries(&stage.sidecar, 1, BODY)).await;
    assert_eq!(stage.agent.count(), 2);
}

#[tokio::test]
async fn what_is_asked_anew_or_by_another_or_otherwise_is_no_repeat() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut runs = vec![stage.answered(tries(&stage.sidecar, 0, BODY)).await];
    runs.push(stage.answered(tries(&stage.sidecar, 0, BODY)).await);
    runs.push(stage.answered(tries(&stage.sidecar, 1, "{}")).await);
    runs.push(stage.answered(tries(&stage.sidecar, 1, BODY).header("authorization", "Bearer other")).await);
    let ids: std::collections::HashSet<&str> = runs.iter().map(|run| run.id.as_str()).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(tries(&stage.sidecar, 1, BODY).send().await.header("sidestream-run"), runs[1].id, "the newest");
}

#[tokio::test]
async fn a_route_may_forward_whatever_repeats() {
    let config = "[[route]]\nmatch = \"POST /v1/chat/completions\"\nrepeats = \"forward\"";
    let mut stage = Stage::with(Store::Embedded, config).await;
    let first = stage.answered(tries(&stage.sidecar, 0, BODY)).await;
    let again = stage.answered(tries(&stage.sidecar, 1, BODY)).await;
    assert_ne!(first.id, again.id);
    let keyed = |stage: &Stage| tries(&stage.sidecar, 0, BODY).header("idempotency-key", "k");
    let (one, two) = (stage.answered(keyed(&stage)).await, stage.answered(keyed(&stage)).await);
    assert_ne!(one.id, two.id);
}

#[rstest]
#[tokio::test]
async fn a_repeat_of_another_caller_never_gets_a_run_whatever_its_credential_is_called(
    #[values("x-api-key", "api-key", "cookie", "x-goog-api-key", "x-forwarded-for")] name: &'static str,
) {
    let mut stage = Stage::on(Store::Embedded).await;
    let of = |sidecar: &Sidecar, n: u32, who: &'static str| tries(sidecar, n, BODY).header(name, who);
    let mut first = stage.answered(of(&stage.sidecar, 0, "a=1")).await;
    first.upstream.event(1).await;
    first.upstream.end().await;
    is(&stage, &first.id, "completed").await;
    let own = of(&stage.sidecar, 1, "a=1").header("traceparent", "00-1-2-01").send().await;
    assert_eq!(own.header("sidestream-run"), first.id, "a try has a trace of its own");
    let other = stage.answered(of(&stage.sidecar, 1, "a=2")).await;
    assert_ne!(other.id, first.id);
    let nobody = stage.answered(tries(&stage.sidecar, 1, BODY)).await;
    assert_ne!(nobody.id, first.id);
}

#[rstest]
#[tokio::test]
async fn a_repeat_of_a_run_that_was_erased_is_forwarded(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut first = stage.answered(tries(&stage.sidecar, 0, BODY)).await;
    first.upstream.event(1).await;
    first.upstream.end().await;
    is(&stage, &first.id, "completed").await;
    let erased = stage.sidecar.delete(format!("/_sidestream/v1/sessions/{}", first.session)).send().await;
    assert!(erased.status.is_success());
    let again = stage.answered(tries(&stage.sidecar, 1, BODY)).await;
    assert_ne!(again.id, first.id);
}
