//! A closed connection is only ever a disconnect, except on routes where it is the only cancel that
//! the client has.

use std::time::Duration;

use rstest::rstest;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Ask, End, Run, Sidecar, SseClient, Stage, Store, terminal_of, until};

/// A route whose runs end with their callers, after `grace`.
fn cancels(grace: &str) -> String {
    format!("[[route]]\nmatch = \"POST /chat\"\nids = \"on\"\non_disconnect = \"cancel\"\ngrace = \"{grace}\"\n")
}

/// A run whose caller has had one event, and the id that came with it.
async fn begun(stage: &mut Stage, ask: Ask) -> (Run, String) {
    let mut run = stage.answered(ask).await;
    run.upstream.event(1).await;
    while !run.caller.arrived().ends_with(b"\n\n") {
        run.caller.more().await.unwrap();
    }
    let arrived = String::from_utf8(run.caller.arrived().to_vec()).unwrap();
    let id = arrived.lines().find_map(|line| line.strip_prefix("id: ")).unwrap_or_default().to_owned();
    (run, id)
}

/// The state and the reason of a run's terminal.
async fn ended(sidecar: &Sidecar, run: &str, session: &str) -> (String, String) {
    let mut device = sidecar.connect().await;
    device.attach_after(session, "start").await;
    device.collect_until_terminal(run).await;
    let all = sidecar.entries(session).await;
    let terminal = terminal_of(&all, run);
    (terminal["state"].as_str().unwrap().to_owned(), terminal["reason"].as_str().unwrap().to_owned())
}

fn cancelled() -> (String, String) {
    ("cancelled".into(), "disconnect".into())
}

/// Known failure 16, the other way round: where closing the connection is how a client stops, the agent
/// must not keep generating.
#[rstest]
#[tokio::test]
async fn a_caller_that_leaves_a_silent_run_cancels_it_where_the_route_says_so(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::with(store, &cancels("0s")).await;
    let ask = stage.sidecar.post("/chat");
    let Run { session, id, caller, mut upstream } = begun(&mut stage, ask).await.0;
    drop(caller);
    upstream.closed_by_the_sidecar().await;
    assert_eq!(ended(&stage.sidecar, &id, &session).await, cancelled());
    let all = stage.sidecar.entries(&session).await;
    assert_eq!(all[0]["ends_with_callers"], true, "devices can say so");
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_nothing_where_the_route_does_not_say_so() {
    let mut stage = Stage::with(Store::Embedded, "[[route]]\nmatch = \"POST /chat\"\nids = \"on\"").await;
    let ask = stage.sidecar.post("/chat");
    let Run { session, id, caller, mut upstream } = begun(&mut stage, ask).await.0;
    drop(caller);
    upstream.event(2).await;
    upstream.end().await;
    assert_eq!(ended(&stage.sidecar, &id, &session).await, ("completed".into(), "end".into()));
}

#[tokio::test]
async fn a_subscriber_of_the_session_is_no_caller() {
    let mut stage = Stage::with(Store::Embedded, &cancels("0s")).await;
    let ask = stage.sidecar.post("/chat");
    let Run { session, id, caller, mut upstream } = begun(&mut stage, ask).await.0;
    let mut device = stage.sidecar.connect().await;
    device.attach(&session).await;
    drop(caller);
    upstream.closed_by_the_sidecar().await;
    let seen = device.collect_until_terminal(&id).await;
    assert_eq!(seen.last().unwrap()["reason"], "disconnect");
}

/// How a caller comes back.
#[derive(Clone, Copy, Debug)]
enum Back {
    WithId,
    WithKey,
}

#[rstest]
#[tokio::test]
async fn who_comes_back_within_the_grace_keeps_the_run_until_it_leaves_as_well(
    #[values(Back::WithId, Back::WithKey)] back: Back,
    #[values(false, true)] elsewhere: bool,
) {
    let mut stage = Stage::with(Store::Redis, &cancels("3s")).await;
    let other = Sidecar::of(stage.agent.url()).store(stage.store.url()).config(&cancels("3s")).start().await;
    let ask = stage.sidecar.post("/chat").header("idempotency-key", "k");
    let (Run { session, id, caller, mut upstream }, last) = begun(&mut stage, ask).await;
    drop(caller);
    let sidecar = if elsewhere { &other } else { &stage.sidecar };
    let again = match back {
        Back::WithId => sidecar.post("/chat").header("last-event-id", last),
        Back::WithKey => sidecar.post("/chat").header("idempotency-key", "k"),
    };
    let mut again = SseClient::new(again.send().await);
    tokio::time::sleep(Duration::from_secs(4)).await;
    upstream.event(2).await;
    while again.next().await.unwrap().data != "2" {}
    drop(again);
    upstream.closed_by_the_sidecar().await;
    assert_eq!(ended(&other, &id, &session).await, cancelled());
    assert_eq!(stage.agent.count(), 1);
}

#[tokio::test]
async fn a_caller_that_is_cut_off_for_being_slow_cancels_nothing() {
    let config = format!("{}[limits]\ncaller_buffer = \"64KiB\"", cancels("0s"));
    let mut stage = Stage::with(Store::Embedded, &config).await;
    let ask = stage.sidecar.post("/chat");
    let (mut run, _) = begun(&mut stage, ask).await;
    // More than the sockets take: nobody reads it.
    let block = "x".repeat(100_000);
    for _ in 0..200 {
        run.upstream.event(&block).await;
    }
    run.upstream.end().await;
    assert_eq!(ended(&stage.sidecar, &run.id, &run.session).await, ("completed".into(), "end".into()));
    assert_eq!(run.caller.whole().await.1, End::Aborted);
}

#[tokio::test]
async fn a_shutdown_interrupts_and_does_not_cancel() {
    let config = format!("{}[shutdown]\naccept_for = \"0s\"\nrun_deadline = \"1s\"\nspread = \"0s\"", cancels("0s"));
    let mut stage = Stage::with(Store::Redis, &config).await;
    let other = stage.another_sidecar().await;
    let ask = stage.sidecar.post("/chat");
    let (run, _) = begun(&mut stage, ask).await;
    stage.sidecar.process().signal("TERM");
    // Until then callers may still come and go as they like.
    let port = stage.sidecar.port();
    until("the listener's end", async || TcpStream::connect(("127.0.0.1", port)).await.is_err().then_some(())).await;
    drop(run.caller);
    assert_eq!(ended(&other, &run.id, &run.session).await, ("interrupted".into(), "shutdown".into()));
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_answer_begins_closes_the_call() {
    let mut stage = Stage::with(Store::Embedded, &cancels("1h")).await;
    let ask = stage.sidecar.post("/chat").header("sidestream-session", "s");
    let first = tokio::spawn(ask.send());
    let mut upstream = stage.agent.asked().await;
    first.abort();
    upstream.closed_by_the_sidecar().await;
    let bounds = stage.sidecar.get("/_sidestream/v1/sessions/s").send().await;
    assert_eq!(bounds.json().await["status"], json!(404), "there was no run");
}
