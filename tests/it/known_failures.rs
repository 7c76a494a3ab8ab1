//! Failures that other systems are known for, where no promise's own module has the symptom. All of
//! them, with their tests, stand in `docs/known-failures.md`.

use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::json;

use crate::support::{SseClient, Stage, Store, events_of, terminal_of};

/// Known failure 5: an id is used again while the earlier producer still writes.
#[rstest]
#[tokio::test]
async fn a_session_that_is_used_again_has_nothing_of_a_run_that_was_still_writing(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut early = stage.run_in("s").await;
    early.upstream.event("early").await;
    early.caller.arrives("data: early\n\n").await;
    assert_eq!(stage.sidecar.delete("/_sidestream/v1/sessions/s").send().await.status, 204);
    let mut late = stage.run_in("s").await;
    // Where its connection is not closed yet, it goes on writing.
    for n in 0..50 {
        let text = format!("data: early {n}\n\n");
        if early.upstream.try_write(&text).await.is_err() {
            break;
        }
        late.upstream.event(n).await;
    }
    early.upstream.closed_by_the_sidecar().await;
    late.upstream.end().await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let all = device.collect_until_terminal(&late.id).await;
    assert!(all.iter().all(|entry| entry["run"] == late.id), "{all:?}");
    assert_eq!(terminal_of(&all, &late.id)["state"], "completed");
}

/// Known failure 14: Stop works on the tab that started the run, and not on the one that resumed it.
#[rstest]
#[tokio::test]
async fn a_tab_that_has_only_resumed_a_run_stops_it(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("1").await;
    // The tab that asked is gone; another resumes the run in its own dialect, and has nothing else.
    drop(run.caller);
    let path = format!("/_sidestream/v1/sessions/s/runs/{}", run.id);
    let mut tab = SseClient::new(stage.sidecar.get(format!("{path}/stream")).send().await);
    assert_eq!(tab.next().await.unwrap().data, "1");
    let stopped = stage.sidecar.post(format!("{path}/cancel")).send().await.json().await;
    assert_eq!((&stopped["outcome"], &stopped["upstream"]), (&json!("cancelled"), &json!("closed")), "{stopped}");
    run.upstream.closed_by_the_sidecar().await;
    assert_eq!(terminal_of(&stage.sidecar.entries("s").await, &run.id)["state"], "cancelled");
}

/// Known failure 29: whoever polls adds 50 to 100 ms to every event. Here each event is sent when the one
/// before has arrived, so that one who polls makes every single one wait for the whole interval.
#[rstest]
#[case::of_the_same_instance(Store::Embedded)]
#[case::of_another_instance(Store::Redis)]
#[tokio::test]
async fn an_event_does_not_wait_for_a_poll(#[case] store: Store) {
    const EVENTS: usize = 100;
    let mut stage = Stage::on(store).await;
    let other = match store {
        Store::Redis => Some(stage.another_sidecar().await),
        Store::Embedded => None,
    };
    let mut run = stage.run_in("s").await;
    let mut device = other.as_ref().unwrap_or(&stage.sidecar).connect().await;
    device.attach("s").await;
    assert_eq!(device.entry().await["state"], "started");
    let mut took = Vec::new();
    for n in 0..EVENTS {
        let sent = Instant::now();
        run.upstream.event(n).await;
        assert_eq!(device.entry().await["json"], n);
        took.push(sent.elapsed());
    }
    run.upstream.end().await;
    let all = stage.sidecar.entries("s").await;
    assert_eq!(events_of(&all, &run.id, "").len(), EVENTS);
    // The machine may be busy: a quarter of them is enough to show that nobody polls.
    took.sort_unstable();
    assert!(took[EVENTS / 4] < Duration::from_millis(25), "{took:?}");
}
