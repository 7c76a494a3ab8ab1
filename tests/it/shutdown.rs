//! Leaving: told to, in good order; not told to, without losing what was written.

use rstest::rstest;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{End, SseClient, Stage, Store, WebSocket, events_of, terminal_of, until};

const QUICK: &str = "[shutdown]\naccept_for = \"100ms\"\nspread = \"200ms\"\nrun_deadline = \"1s\"";

#[rstest]
#[tokio::test]
async fn sigterm_tells_the_clients_ends_the_runs_and_exits_with_0(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::with(store, QUICK).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("1").await;
    run.caller.arrives("data: 1\n\n").await;
    let (mut device, mut idle) = (stage.sidecar.connect().await, stage.sidecar.connect().await);
    device.attach("s").await;
    stage.sidecar.process().signal("TERM");
    for socket in [&mut device, &mut idle] {
        let goaway = socket.collect_until(|message| message.kind() == "goaway").await.pop().unwrap();
        assert_eq!(goaway["reason"], "shutdown");
        assert!(goaway["reconnect_after_ms"].as_u64().is_some(), "{goaway}");
        assert_eq!(socket.closed().await, Some(1012));
    }
    // It has not ended within its deadline.
    assert_eq!(run.caller.whole().await, ("data: 1\n\n".into(), End::Aborted));
    run.upstream.closed_by_the_sidecar().await;
    let status = stage.sidecar.process().end().await;
    assert_eq!(status.code(), Some(0), "{}", stage.sidecar.log());
    let sidecar = stage.sidecar.restart().await;
    let entries = sidecar.entries("s").await;
    let terminal = terminal_of(&entries, &run.id);
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("interrupted"), &json!("shutdown")));
    assert_eq!(events_of(&entries, &run.id, "").len(), 1);
}

#[tokio::test]
async fn readers_over_sse_are_let_go_so_that_they_come_back_elsewhere() {
    let mut stage = Stage::with(Store::Embedded, QUICK).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("1").await;
    let session = SseClient::new(stage.sidecar.get("/_sidestream/v1/sessions/s/events").send().await);
    let mut dialect = SseClient::new(stage.sidecar.get("/_sidestream/v1/sessions/s/runs/active/stream").send().await);
    assert_eq!(dialect.next().await.unwrap().data, "1");
    stage.sidecar.process().signal("TERM");
    // A session's stream may end anywhere; that of a run only well if the run has ended well.
    assert_eq!(session.rest().await.1, End::Clean);
    assert_eq!(dialect.rest().await, (Vec::new(), End::Aborted));
    assert_eq!(stage.sidecar.process().end().await.code(), Some(0));
}

#[rstest]
#[tokio::test]
async fn a_run_that_ends_within_the_deadline_is_completed_and_then_the_process_leaves(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage =
        Stage::with(store, "[shutdown]\naccept_for = \"0s\"\nspread = \"0s\"\nrun_deadline = \"60s\"").await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("1").await;
    run.caller.arrives("data: 1\n\n").await;
    stage.sidecar.process().signal("TERM");
    until("the drain", async || (stage.sidecar.health("/readyz").await.status == 503).then_some(())).await;
    run.upstream.event("2").await;
    run.caller.arrives("data: 2\n\n").await;
    run.upstream.end().await;
    assert_eq!(run.caller.whole().await.1, End::Clean);
    assert_eq!(stage.sidecar.process().end().await.code(), Some(0));
    let sidecar = stage.sidecar.restart().await;
    assert_eq!(terminal_of(&sidecar.entries("s").await, &run.id)["state"], "completed");
}

/// The symptom: the drain saw no active run, and interrupted the one that began a moment later.
#[tokio::test]
async fn a_request_that_the_agent_still_thinks_about_becomes_a_run_that_may_end_within_the_deadline() {
    let mut stage =
        Stage::with(Store::Embedded, "[shutdown]\naccept_for = \"0s\"\nspread = \"0s\"\nrun_deadline = \"60s\"").await;
    let (ask, port) = (stage.sidecar.post("/chat"), stage.sidecar.port());
    let (caller, mut upstream) = tokio::join!(ask.send(), async {
        let mut upstream = stage.agent.asked().await;
        stage.sidecar.process().signal("TERM");
        until("the end of the listener", async || TcpStream::connect(("127.0.0.1", port)).await.is_err().then_some(()))
            .await;
        upstream.sse().await;
        upstream
    });
    upstream.event("1").await;
    upstream.end().await;
    assert_eq!(caller.whole().await, ("data: 1\n\n".into(), End::Clean));
    assert_eq!(stage.sidecar.process().end().await.code(), Some(0));
}

#[tokio::test]
async fn without_anything_to_wait_for_it_leaves_at_once() {
    let mut stage = Stage::with(Store::Embedded, "[shutdown]\nspread = \"60s\"\nrun_deadline = \"60s\"").await;
    stage.sidecar.process().signal("INT");
    assert_eq!(stage.sidecar.process().end().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let mut stage = Stage::with(Store::Embedded, "[shutdown]\nrun_deadline = \"60s\"").await;
    let _run = stage.run().await;
    stage.sidecar.process().signal("TERM");
    until("the drain", async || (stage.sidecar.health("/readyz").await.status == 503).then_some(())).await;
    stage.sidecar.process().signal("TERM");
    assert_eq!(stage.sidecar.process().end().await.code(), Some(143));
}

#[tokio::test]
async fn an_operator_begins_the_drain_over_http() {
    let mut stage = Stage::with(Store::Embedded, QUICK).await;
    let mut device = stage.sidecar.connect().await;
    let ask = crate::support::Ask::post(&stage.sidecar.admin_url(), "/drain").send().await;
    assert_eq!(ask.status, 202);
    device.expect("goaway").await;
    assert_eq!(device.closed().await, Some(1012));
    assert_eq!(stage.sidecar.process().end().await.code(), Some(0));
}

/// Known failure 30: everybody comes back in the same second.
#[tokio::test]
async fn clients_are_told_to_go_and_to_come_back_at_different_times() {
    let stage = Stage::with(Store::Embedded, "[shutdown]\nspread = \"2s\"").await;
    let mut sockets: Vec<WebSocket> = Vec::new();
    for _ in 0..12 {
        sockets.push(stage.sidecar.connect().await);
    }
    let mut stage = stage;
    stage.sidecar.process().signal("TERM");
    let mut delays = Vec::new();
    for socket in &mut sockets {
        delays.push(socket.expect("goaway").await["reconnect_after_ms"].as_u64().unwrap());
    }
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 6 && *delays.last().unwrap() <= 2_000, "{delays:?}");
}

#[rstest]
#[tokio::test]
async fn after_a_kill_the_log_is_there_and_its_active_runs_are_interrupted(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut done = stage.run_in("done").await;
    done.upstream.event("1").await;
    done.upstream.end().await;
    done.caller.whole().await;
    let mut run = stage.run_in("s").await;
    for n in 0..50 {
        run.upstream.event(n).await;
        run.caller.arrives(&format!("data: {n}\n\n")).await;
    }
    let before = stage.sidecar.entries("s").await;
    let position = before[20].offset().to_string();
    stage.sidecar.process().kill();
    assert_eq!(run.caller.whole().await.1, End::Aborted);
    let sidecar = stage.sidecar.restart().await;
    assert_eq!(terminal_of(&sidecar.entries("done").await, &done.id)["state"], "completed");
    // What a caller had received was in the log.
    let mut device = sidecar.connect().await;
    device.attach_after("s", position).await;
    let rest = device.collect_until_terminal(&run.id).await;
    assert_eq!(rest.last().unwrap()["state"], "interrupted");
    assert_eq!(rest[..rest.len() - 1], before_as_replay(&before[21..]), "the same entries as before");
    let path = format!("/_sidestream/v1/sessions/s/runs/{}/stream", run.id);
    let (events, end) = SseClient::new(sidecar.get(path).send().await).rest().await;
    assert_eq!((events.len(), end), (50, End::Aborted));
}

/// The entries as a reader gets them in its replay.
fn before_as_replay(entries: &[crate::support::Message]) -> Vec<crate::support::Message> {
    entries.iter().map(|entry| entry.as_replay()).collect()
}
