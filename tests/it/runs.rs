//! A run has exactly one terminal, the right one, and soon; the upstream is read to its end whoever
//! is there; the direct caller's body ends as the upstream's did.

use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::json;

use crate::support::{End, Message, Run, Stage, Store, WebSocket, events_of, terminal_of, within};

/// How soon the end of an upstream connection is in the log.
const SOON: Duration = Duration::from_secs(1);

/// A device that has seen a run begin and its first event.
async fn watched(stage: &mut Stage) -> (Run, WebSocket) {
    let mut run = stage.run().await;
    run.upstream.event("1").await;
    run.caller.arrives("data: 1\n\n").await;
    let mut device = stage.sidecar.connect().await;
    device.attach(&run.session).await;
    assert_eq!(device.entry().await["state"], "started");
    assert_eq!(device.entry().await["json"], 1);
    (run, device)
}

/// The terminal of the run, which is the last entry of its session.
async fn terminal(stage: &Stage, device: &mut WebSocket, run: &str) -> Message {
    let live = device.collect_until_terminal(run).await;
    let all = stage.sidecar.entries(all_of(&live)).await;
    let terminal = terminal_of(&all, run).clone();
    assert_eq!(all.last(), Some(&terminal), "something follows the terminal");
    terminal
}

fn all_of(live: &[Message]) -> &str {
    live[0].session().unwrap()
}

#[rstest]
#[tokio::test]
async fn a_stream_that_ends_is_completed(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let (run, mut device) = watched(&mut stage).await;
    run.upstream.end().await;
    let ended = Instant::now();
    let terminal = terminal(&stage, &mut device, &run.id).await;
    assert!(ended.elapsed() < SOON, "{:?}", ended.elapsed());
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("completed"), &json!("end")));
    assert_eq!(terminal["upstream_status"], json!(200));
    assert_eq!(terminal["events"], 1);
    assert_eq!(run.caller.whole().await, ("data: 1\n\n".into(), End::Clean));
}

/// Known failure 21, among others: clients that hang because the agent died after its headers.
#[rstest]
#[case::is_reset(true)]
#[case::lacks_its_http_end(false)]
#[tokio::test]
async fn a_stream_that_breaks_off_has_failed_within_a_second(
    #[case] reset: bool,
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let (mut run, mut device) = watched(&mut stage).await;
    run.upstream.write("data: never whol").await;
    let broken = Instant::now();
    if reset {
        run.upstream.reset()
    } else {
        run.upstream.close()
    }
    let terminal = terminal(&stage, &mut device, &run.id).await;
    assert!(broken.elapsed() < SOON, "{:?}", broken.elapsed());
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("failed"), &json!("upstream_reset")));
    let (body, end) = run.caller.whole().await;
    assert_eq!((&body[..], end), (&b"data: 1\n\n"[..], End::Aborted), "no partial event, no polite end");
}

#[tokio::test]
async fn an_agent_that_dies_right_after_its_headers_fails_its_run() {
    let mut stage = Stage::on(Store::Embedded).await;
    let run = stage.run().await;
    let mut device = stage.sidecar.connect().await;
    device.attach(&run.session).await;
    run.upstream.close();
    assert_eq!(terminal(&stage, &mut device, &run.id).await["state"], "failed");
    assert_eq!(run.caller.whole().await, ("".into(), End::Aborted));
}

#[tokio::test]
async fn an_answer_shorter_than_its_content_length_has_failed() {
    let mut stage = Stage::on(Store::Embedded).await;
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 100\r\n\r\n";
        upstream.raw(format!("{head}data: 1\n\n")).await;
        upstream
    };
    let (caller, upstream) = tokio::join!(stage.sidecar.post("/chat").send(), upstream);
    let run = Run::new(caller, upstream);
    let mut device = stage.sidecar.connect().await;
    device.attach(&run.session).await;
    run.upstream.close();
    assert_eq!(terminal(&stage, &mut device, &run.id).await["state"], "failed");
    assert_eq!(run.caller.whole().await.1, End::Aborted);
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_completed() {
    let mut stage = Stage::on(Store::Embedded).await;
    let upstream = async {
        let mut upstream = stage.agent.asked().await;
        // HTTP/1.0 has no other end (RFC 9112 §6.3).
        upstream.raw("HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n").await;
        upstream
    };
    let (caller, upstream) = tokio::join!(stage.sidecar.post("/chat").send(), upstream);
    let run = Run::new(caller, upstream);
    let mut device = stage.sidecar.connect().await;
    device.attach(&run.session).await;
    run.upstream.close();
    assert_eq!(terminal(&stage, &mut device, &run.id).await["state"], "completed");
    assert_eq!(run.caller.whole().await, ("data: 1\n\n".into(), End::Clean));
}

#[rstest]
#[tokio::test]
async fn a_stream_whose_last_event_is_an_error_has_failed(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let (mut run, mut device) = watched(&mut stage).await;
    run.upstream.write("event: error\ndata: overloaded\n\n").await;
    run.upstream.end().await;
    let terminal = terminal(&stage, &mut device, &run.id).await;
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("failed"), &json!("error_event")));
    let whole = run.caller.whole().await;
    assert_eq!(whole, ("data: 1\n\nevent: error\ndata: overloaded\n\n".into(), End::Clean));
}

#[tokio::test]
async fn an_error_event_that_is_not_the_last_fails_nothing() {
    let mut stage = Stage::on(Store::Embedded).await;
    let (mut run, mut device) = watched(&mut stage).await;
    run.upstream.write("event: error\ndata: a tool failed\n\ndata: 2\n\n").await;
    run.upstream.end().await;
    assert_eq!(terminal(&stage, &mut device, &run.id).await["state"], "completed");
}

#[rstest]
#[tokio::test]
async fn an_unterminated_tail_is_kept_on_the_terminal_and_reaches_the_caller(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let (mut run, mut device) = watched(&mut stage).await;
    run.upstream.write("data: half\n").await;
    run.upstream.end().await;
    let terminal = terminal(&stage, &mut device, &run.id).await;
    assert_eq!((&terminal["state"], &terminal["events"]), (&json!("completed"), &json!(1)));
    assert_eq!((&terminal["tail"], &terminal["tail_bytes"]), (&json!("data: half\n"), &json!(11)));
    assert_eq!(run.caller.whole().await, ("data: 1\n\ndata: half\n".into(), End::Clean));
}

#[rstest]
#[tokio::test]
async fn the_upstream_is_read_to_its_end_though_its_caller_has_left(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let (mut run, mut device) = watched(&mut stage).await;
    drop(run.caller);
    for n in 2..=50 {
        run.upstream.event(n).await;
        assert_eq!(device.entry().await["json"], n);
    }
    run.upstream.end().await;
    assert_eq!(terminal(&stage, &mut device, &run.id).await["state"], "completed");
}

#[tokio::test]
async fn a_run_that_nobody_has_watched_is_whole_in_the_log() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.run().await;
    drop(run.caller);
    for n in 1..=20 {
        run.upstream.event(n).await;
    }
    run.upstream.end().await;
    let mut device = stage.sidecar.connect().await;
    device.attach(&run.session).await;
    let entries = device.collect_until_terminal(&run.id).await;
    assert_eq!(events_of(&entries, &run.id, "").len(), 20);
}

/// Known failure 22. By the times of the entries: silence is noticed when it is due, and soon.
#[rstest]
#[tokio::test]
async fn an_upstream_that_falls_silent_is_stalled_then_failed(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let route = "[[route]]\nmatch = \"* /*\"\nstall = \"300ms\"\nstall_limit = \"600ms\"";
    let (stall, stall_limit) = (300, 600);
    let soon = u64::try_from(SOON.as_millis()).unwrap();
    // What was heard gets its time when it is stored, a moment later.
    let due = |from: &Message, to: &Message, after: u64| {
        let took = to.offset().ms - from.offset().ms;
        assert!((after - after / 3..after + soon).contains(&took), "{took} ms from {from} to {to}");
    };
    let mut stage = Stage::with(store, route).await;
    let (mut run, mut device) = watched(&mut stage).await;
    assert_eq!(device.entry().await["state"], "stalled");
    run.upstream.event("2").await;
    assert_eq!(device.entry().await["state"], "resumed");
    let last = device.entry().await;
    assert_eq!(last["json"], 2);
    let stalled = device.entry().await;
    assert_eq!((&stalled["state"], &stalled["silent_ms"]), (&json!("stalled"), &json!(300)));
    due(&last, &stalled, stall);
    let terminal = terminal(&stage, &mut device, &run.id).await;
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("failed"), &json!("stalled")));
    due(&last, &terminal, stall_limit);
    run.upstream.closed_by_the_sidecar().await;
    assert_eq!(run.caller.whole().await.1, End::Aborted);
}

#[tokio::test]
async fn a_run_above_its_longest_duration_is_cancelled() {
    let mut stage = Stage::with(Store::Embedded, "[limits]\nrun_duration = \"1s\"").await;
    let mut run = stage.run().await;
    let mut device = stage.sidecar.connect().await;
    device.attach(&run.session).await;
    let terminal = terminal(&stage, &mut device, &run.id).await;
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("cancelled"), &json!("duration")));
    run.upstream.closed_by_the_sidecar().await;
    assert_eq!(run.caller.whole().await.1, End::Aborted);
}

#[rstest]
#[tokio::test]
async fn a_run_can_be_found_by_its_id_alone(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let (run, mut device) = watched(&mut stage).await;
    let path = format!("/_sidestream/v1/runs/{}", run.id);
    let found = stage.sidecar.get(&path).send().await.json().await;
    assert_eq!((&found["session"], &found["state"]), (&json!(run.session), &json!("active")));
    assert_eq!(found["started"], run.caller.header("sidestream-offset"));
    run.upstream.end().await;
    let terminal = terminal(&stage, &mut device, &run.id).await;
    let found = stage.sidecar.get(&path).send().await.json().await;
    assert_eq!((&found["state"], &found["ended"]), (&json!("completed"), &terminal["offset"]));
}

#[tokio::test]
async fn many_runs_of_one_session_keep_their_own_order_and_terminals() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut device = stage.sidecar.connect().await;
    device.attach("together").await;
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(stage.run_in("together").await);
    }
    for n in 0..20 {
        for (i, run) in runs.iter_mut().enumerate() {
            run.upstream.event(format!("[{i},{n}]")).await;
        }
    }
    let mut ids = Vec::new();
    for run in runs {
        run.upstream.end().await;
        ids.push(run.id);
    }
    let mut ended = 0;
    let all = device.collect_until(|message| {
        ended += usize::from(message.is_terminal());
        ended == 5
    });
    let all = within("five runs", all).await;
    for (i, id) in ids.iter().enumerate() {
        let data: Vec<String> = events_of(&all, id, "").into_iter().map(|event| event.data).collect();
        assert_eq!(data, (0..20).map(|n| format!("[{i},{n}]")).collect::<Vec<_>>());
        assert_eq!(terminal_of(&all, id)["state"], "completed");
    }
}

#[rstest]
#[tokio::test]
async fn a_caller_that_leaves_before_the_answer_begins_finds_it_in_its_session(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let ask = tokio::spawn(stage.sidecar.post("/chat").header("sidestream-session", "early").send());
    let mut upstream = stage.agent.asked().await;
    ask.abort();
    assert!(ask.await.unwrap_err().is_cancelled());
    let mut device = stage.sidecar.connect().await;
    device.attach_with("early", json!({"create": true})).await;
    upstream.sse().await;
    upstream.event("kept").await;
    upstream.end().await;
    let started = device.entry().await;
    let entries = device.collect_until_terminal(started["run"].as_str().unwrap()).await;
    assert_eq!((entries.len(), &entries[1]["state"]), (2, &json!("completed")));
}

/// Nobody knows the session of such a request: it is the legacy backend's business, as ever.
#[tokio::test]
async fn a_caller_without_a_session_that_leaves_before_the_answer_begins_closes_its_request() {
    let mut stage = Stage::on(Store::Embedded).await;
    let ask = tokio::spawn(stage.sidecar.post("/chat").send());
    let mut upstream = stage.agent.asked().await;
    ask.abort();
    upstream.closed_by_the_sidecar().await;
}
