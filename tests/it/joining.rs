//! Where history and live meet: a reader that comes, goes and comes back at any moment misses
//! nothing and gets nothing twice. Every client of these tests checks that by itself, message by
//! message.

use futures_util::future::join_all;
use rstest::rstest;
use serde_json::json;

use crate::support::{Event, Message, RunningStore, Stage, Store, WebSocket, events_of, terminal_of, until};

/// Data of so many events.
fn numbers(events: &[Event]) -> Vec<u32> {
    events.iter().map(|event| event.data.parse().unwrap()).collect()
}

fn assert_whole(entries: &[Message], run: &str, events: u32) {
    assert_eq!(numbers(&events_of(entries, run, "")), (0..events).collect::<Vec<_>>());
    terminal_of(entries, run);
}

/// Known failures 2 and 27: who attaches between "subscribe" and "read" loses what lies between.
#[rstest]
#[tokio::test]
async fn readers_that_attach_at_any_moment_of_a_fast_run_see_all_of_it(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    const EVENTS: u32 = 3_000;
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("fast").await;
    drop(run.caller);
    let sidecar = &stage.sidecar;
    let upstream = async {
        for n in 0..EVENTS {
            run.upstream.event(n).await;
            if n % 50 == 0 {
                // Lets the readers come while it goes on.
                tokio::task::yield_now().await;
            }
        }
        run.upstream.end().await;
    };
    let readers = join_all((0..24).map(|i| {
        let id = run.id.clone();
        async move {
            let mut device = sidecar.connect().await;
            // Each comes when the log has reached another length.
            until("the run's progress", async || {
                let described = sidecar.get("/_sidestream/v1/sessions/fast").send().await.json().await;
                (described["entries"].as_u64()? >= i * 120).then_some(())
            })
            .await;
            device.attach("fast").await;
            device.collect_until_terminal(&id).await
        }
    }));
    let (all, ()) = tokio::join!(readers, upstream);
    for entries in all {
        assert_whole(&entries, &run.id, EVENTS);
    }
}

/// Known failure 3: live events arrive while history is replayed.
#[rstest]
#[tokio::test]
async fn events_that_come_during_a_long_replay_come_after_it_and_once(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    const HISTORY: u32 = 6_000;
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("long").await;
    drop(run.caller);
    // More than what is kept in memory, so that it is read in pages.
    for batch in 0..HISTORY / 100 {
        let text: String = (batch * 100..batch * 100 + 100).map(|n| format!("data: {n}\n\n")).collect();
        run.upstream.write(text).await;
    }
    let mut first = stage.sidecar.connect().await;
    first.attach("long").await;
    first.collect_until(|message| message["json"] == HISTORY - 1).await;
    let mut device = stage.sidecar.connect().await;
    device.attach("long").await;
    let upstream = async {
        for n in HISTORY..HISTORY + 500 {
            run.upstream.event(n).await;
        }
        run.upstream.end().await;
    };
    let (all, ()) = tokio::join!(device.collect_until(Message::is_terminal), upstream);
    let entries: Vec<Message> = all.iter().filter(|message| message.is_entry()).cloned().collect();
    assert_whole(&entries, &run.id, HISTORY + 500);
    assert_eq!(all.iter().filter(|message| message.kind() == "live").count(), 1);
    let live = all.iter().position(|message| message.kind() == "live").unwrap();
    assert!(all[..live].iter().all(|message| message["replay"] == true));
    assert!(all[live..].iter().all(|message| message["replay"].is_null()));
}

/// Known failure 4: two tabs, a double click.
#[rstest]
#[tokio::test]
async fn resuming_twice_at_once_gives_both_the_exact_rest(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    for n in 0..100 {
        run.upstream.event(n).await;
    }
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    device.collect_until(|message| message["json"] == 49).await;
    let position = device.position("s");
    drop(device);
    let sidecar = &stage.sidecar;
    let tabs = join_all((0..6).map(|_| async {
        let mut tab = sidecar.connect().await;
        tab.attach_after("s", position.clone()).await;
        tab.collect_until_terminal(&run.id).await
    }));
    let (tabs, ()) = tokio::join!(tabs, run.upstream.end());
    for entries in tabs {
        assert_eq!(numbers(&events_of(&entries, &run.id, "")), (50..100).collect::<Vec<_>>());
    }
    assert_eq!(stage.agent.count(), 1, "a resume never asks the upstream");
}

/// Known failure 18: an intermediary cuts every connection after a total time.
#[rstest]
#[tokio::test]
async fn nothing_is_lost_over_twenty_cuts(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    let mut read = Vec::new();
    let mut position = "start".to_owned();
    for cut in 0..20u32 {
        let mut device = stage.sidecar.connect().await;
        device.attach_after("s", position.clone()).await;
        for n in cut * 10..cut * 10 + 10 {
            run.upstream.event(n).await;
        }
        // Cut somewhere, with more under way.
        let last = cut * 10 + cut % 10;
        read.extend(device.collect_until(|message| message["json"] == last).await);
        position = device.position("s");
    }
    run.upstream.end().await;
    let mut device = stage.sidecar.connect().await;
    device.attach_after("s", position).await;
    read.extend(device.collect_until_terminal(&run.id).await);
    assert_whole(&read, &run.id, 200);
}

/// Known failure 1: the terminal is lost on its way, and the reader spins for ever.
#[rstest]
#[tokio::test]
async fn a_reader_whose_connection_is_cut_before_the_terminal_learns_it_when_it_returns(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("0").await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    device.collect_until(|message| message["json"] == 0).await;
    let position = device.position("s");
    drop(device);
    run.upstream.end().await;
    run.caller.whole().await;
    let mut device = stage.sidecar.connect().await;
    device.attach_after("s", position).await;
    let rest = device.collect_until_terminal(&run.id).await;
    assert_eq!((rest.len(), &rest[0]["state"]), (1, &json!("completed")));
}

/// Known failures 1 and 24: pushes are lost between the store and its readers.
#[tokio::test]
async fn readers_lose_nothing_when_the_stores_push_connections_are_cut() {
    const EVENTS: u32 = 400;
    let mut stage = Stage::on(Store::Redis).await;
    let RunningStore::Redis(server) = &stage.store else { unreachable!("it was asked for") };
    let mut redis = server.client().await;
    let mut run = stage.run_in("s").await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let reader = device.collect_until_terminal(&run.id);
    let upstream = async {
        for n in 0..EVENTS {
            if n % 100 == 50 || n == EVENTS - 1 {
                let kill = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").to_owned();
                let _: i64 = kill.query_async(&mut redis).await.unwrap();
            }
            run.upstream.event(n).await;
        }
        // The last cut comes right before the terminal.
        run.upstream.end().await;
    };
    let (entries, ()) = tokio::join!(reader, upstream);
    assert_whole(&entries, &run.id, EVENTS);
}

/// Known failure 10: ids change between live and replay, so clients cannot deduplicate.
#[rstest]
#[tokio::test]
async fn an_entry_is_the_same_live_and_replayed_on_every_transport(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut live = stage.sidecar.connect().await;
    live.attach("s").await;
    let mut run = stage.run_in("s").await;
    run.upstream.write("event: a\nid: 7\ndata: {\"x\": 1.0}\n\ndata: [DONE]\n\n").await;
    run.upstream.end().await;
    let live = live.collect_until_terminal(&run.id).await;
    let mut late = stage.sidecar.connect().await;
    late.attach("s").await;
    let entries = |list: &[Message]| list.iter().map(Message::entry).collect::<Vec<_>>();
    assert_eq!(entries(&late.collect_until_live().await), entries(&live));
    assert_eq!(entries(&stage.sidecar.entries("s").await), entries(&live));
}

#[tokio::test]
async fn a_reader_that_detaches_and_attaches_again_goes_on_where_it_was() {
    let mut stage = Stage::on(Store::Embedded).await;
    let mut run = stage.run_in("s").await;
    let mut device: WebSocket = stage.sidecar.connect().await;
    device.attach("s").await;
    let mut read = Vec::new();
    for round in 0..10u32 {
        for n in round * 3..round * 3 + 3 {
            run.upstream.event(n).await;
        }
        read.extend(device.collect_until(|message| message["json"] == round * 3 + 1).await);
        device.ask(json!({"type": "detach", "session": "s"})).await;
        // What was on its way when it detached.
        read.extend(device.set_aside());
        device.attach_after("s", device.position("s")).await;
    }
    run.upstream.end().await;
    read.extend(device.collect_until_terminal(&run.id).await);
    assert_whole(&read, &run.id, 30);
}
