//! Clients that try again by themselves, and say so: a repeat is no second run.

use rstest::rstest;

use crate::support::{Answer, Ask, Asked, End, Sidecar, Stage, Store, until};

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

/// A request whose caller leaves before its answer begins, and the next try, which waits with it for the head.
async fn left(stage: &mut Stage, ask: impl Fn(&Sidecar, u32) -> Ask) -> (Answer, Asked) {
    let first = tokio::spawn(ask(&stage.sidecar, 0).send());
    let mut upstream = stage.agent.asked().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    // The SDKs wait half a second at least before they try again.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let again = tokio::spawn(ask(&stage.sidecar, 1).send());
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    upstream.sse().await;
    upstream.event(1).await;
    (again.await.unwrap(), upstream)
}

#[rstest]
#[tokio::test]
async fn a_client_that_gave_up_before_the_answer_began_finds_its_run_when_it_tries_again(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let (again, upstream) = left(&mut stage, |sidecar, n| tries(sidecar, n, BODY)).await;
    let run = again.header("sidestream-run").to_owned();
    let joined = tries(&stage.sidecar, 2, BODY).send().await;
    assert_eq!(joined.header("sidestream-run"), run);
    upstream.end().await;
    assert_eq!(text_of(again).await, ("data: 1\n\n".into(), End::Clean));
    assert_eq!(text_of(joined).await, ("data: 1\n\n".into(), End::Clean));
    is(&stage, &run, "completed").await;
    let replayed = tries(&stage.sidecar, 3, BODY).send().await;
    assert_eq!(replayed.header("sidestream-run"), run);
    assert_eq!(text_of(replayed).await, ("data: 1\n\n".into(), End::Clean));
    assert_eq!(stage.agent.count(), 1);
}

/// Several answers to one question, of which one failed: the next try for it wants another one.
#[rstest]
#[tokio::test]
async fn a_repeat_never_gets_a_run_whose_caller_was_answered(
    #[values(Store::Embedded, Store::Redis)] store: Store,
    #[values(false, true)] ended: bool,
) {
    let mut stage = Stage::on(store).await;
    let mut one = stage.answered(tries(&stage.sidecar, 0, BODY)).await;
    one.upstream.event(1).await;
    if ended {
        one.upstream.end().await;
        is(&stage, &one.id, "completed").await;
    }
    let again = stage.answered(tries(&stage.sidecar, 1, BODY)).await;
    assert_ne!(again.id, one.id);
    assert_eq!(stage.agent.count(), 2);
}

#[tokio::test]
async fn a_repeat_never_gets_a_run_that_failed() {
    let mut stage = Stage::on(Store::Embedded).await;
    let (joined, upstream) = left(&mut stage, |sidecar, n| tries(sidecar, n, BODY)).await;
    let run = joined.header("sidestream-run").to_owned();
    upstream.reset();
    assert_eq!(joined.whole().await.1, End::Aborted);
    is(&stage, &run, "failed").await;
    let again = stage.answered(tries(&stage.sidecar, 2, BODY)).await;
    assert_ne!(again.id, run);
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
async fn what_is_asked_anew_or_otherwise_is_no_repeat() {
    let mut stage = Stage::on(Store::Embedded).await;
    let (first, _upstream) = left(&mut stage, |sidecar, n| tries(sidecar, n, BODY)).await;
    let other = stage.answered(tries(&stage.sidecar, 1, "{}")).await;
    assert_ne!(other.id, first.header("sidestream-run"));
    let anew = stage.answered(tries(&stage.sidecar, 0, BODY)).await;
    assert_ne!(anew.id, first.header("sidestream-run"));
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
    #[values("authorization", "x-api-key", "api-key", "cookie", "x-forwarded-for")] name: &'static str,
) {
    let mut stage = Stage::on(Store::Embedded).await;
    let of = |sidecar: &Sidecar, n: u32, who: &'static str| {
        // A try has a trace of its own.
        tries(sidecar, n, BODY).header(name, who).header("traceparent", format!("00-{n}"))
    };
    let (first, _upstream) = left(&mut stage, |sidecar, n| of(sidecar, n, "a=1")).await;
    let first = first.header("sidestream-run");
    assert_eq!(of(&stage.sidecar, 2, "a=1").send().await.header("sidestream-run"), first);
    let other = stage.answered(of(&stage.sidecar, 1, "a=2")).await;
    assert_ne!(other.id, first);
    let nobody = stage.answered(tries(&stage.sidecar, 1, BODY)).await;
    assert_ne!(nobody.id, first);
}

#[rstest]
#[tokio::test]
async fn a_repeat_of_a_run_that_was_erased_is_forwarded(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let (joined, upstream) = left(&mut stage, |sidecar, n| tries(sidecar, n, BODY)).await;
    let run = joined.header("sidestream-run").to_owned();
    let erased = format!("/_sidestream/v1/sessions/{}", joined.header("sidestream-session"));
    upstream.end().await;
    is(&stage, &run, "completed").await;
    let erased = stage.sidecar.delete(erased).send().await;
    assert!(erased.status.is_success());
    let again = stage.answered(tries(&stage.sidecar, 2, BODY)).await;
    assert_ne!(again.id, run);
}
