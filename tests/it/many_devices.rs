//! All devices of a session see the same, at the same time, on every transport.

use rstest::rstest;
use serde_json::json;

use crate::support::{End, Message, SseClient, Stage, Store};

/// Known failure 8: only the first tab gets live events.
#[rstest]
#[tokio::test]
async fn every_device_gets_every_event_before_the_next_one_is_sent(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut devices = Vec::new();
    let mut first = stage.sidecar.connect().await;
    first.attach("s").await;
    devices.push(first);
    let mut run = stage.run_in("s").await;
    let path = format!("/_sidestream/v1/sessions/s/runs/{}/stream", run.id);
    let mut dialects = Vec::new();
    for n in 0..10 {
        // One more device comes between any two events.
        let mut device = stage.sidecar.connect().await;
        device.attach_after("s", "end").await;
        devices.push(device);
        run.upstream.event(n).await;
        run.caller.arrives(&format!("data: {n}\n\n")).await;
        for device in &mut devices {
            while device.entry().await["json"] != n {}
        }
        for dialect in &mut dialects {
            let event = SseClient::next(dialect).await.unwrap();
            assert_eq!(event.data, n.to_string());
        }
        let mut dialect = SseClient::new(stage.sidecar.get(&path).send().await);
        for m in 0..=n {
            assert_eq!(dialect.next().await.unwrap().data, m.to_string());
        }
        dialects.push(dialect);
    }
    run.upstream.end().await;
    for device in &mut devices {
        assert_eq!(device.entry().await["state"], "completed");
    }
    for dialect in dialects {
        assert_eq!(dialect.rest().await, (Vec::new(), End::Clean));
    }
}

#[rstest]
#[tokio::test]
async fn two_devices_see_the_identical_sequence(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let (mut one, mut two) = (stage.sidecar.connect().await, stage.sidecar.connect_to("/chat").await);
    one.attach("s").await;
    two.attach("s").await;
    let mut runs = vec![stage.run_in("s").await, stage.run_in("s").await];
    for n in 0..200 {
        runs[n % 2].upstream.event(n).await;
    }
    for run in runs {
        run.upstream.end().await;
    }
    let mut both = Vec::new();
    for device in [&mut one, &mut two] {
        let mut ended = 0;
        let all = device.collect_until(|message| {
            ended += usize::from(message.is_terminal());
            ended == 2
        });
        let all = all.await;
        both.push(all.iter().filter(|message| message.is_entry()).map(Message::entry).collect::<Vec<_>>());
    }
    assert_eq!(both[0], both[1]);
    assert_eq!(both[0].len(), 204);
}

/// Known failure 33: the session is addressable by its id alone.
#[rstest]
#[tokio::test]
async fn a_second_device_needs_nothing_but_the_sessions_id(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run().await;
    run.upstream.event("1").await;
    run.caller.arrives("data: 1\n\n").await;
    let described = stage.sidecar.get(format!("/_sidestream/v1/sessions/{}", run.session)).send().await.json().await;
    assert_eq!(described["session"], json!(run.session));
    assert_eq!((&described["entries"], &described["runs"][0]["run"]), (&json!(2), &json!(run.id)));
    let path = format!("/_sidestream/v1/sessions/{}/runs/active/stream", run.session);
    let answer = stage.sidecar.get(&path).send().await;
    assert_eq!(answer.header("sidestream-run"), run.id);
    let mut reader = SseClient::new(answer);
    assert_eq!(reader.next().await.unwrap().data, "1");
    run.upstream.event("2").await;
    assert_eq!(reader.next().await.unwrap().data, "2");
    run.upstream.end().await;
    assert_eq!(reader.next().await, Err(End::Clean));
    assert_eq!(stage.sidecar.get(&path).send().await.status, 204, "no run is active");
}

#[rstest]
#[tokio::test]
async fn a_session_is_followed_over_sse_as_over_websocket(#[values(Store::Embedded, Store::Redis)] store: Store) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("1").await;
    run.caller.arrives("data: 1\n\n").await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let mut reader = SseClient::new(stage.sidecar.get("/_sidestream/v1/sessions/s/events").send().await);
    for _ in 0..2 {
        assert_eq!(reader.message().await.unwrap().1.entry(), device.entry().await.entry());
    }
    assert_eq!(reader.message().await.unwrap().0.name, "sidestream.live");
    run.upstream.event("2").await;
    let (event, message) = reader.message().await.unwrap();
    assert_eq!(message.entry(), device.entry().await.entry());
    assert_eq!(event.id, message.offset().to_string());
    run.upstream.end().await;
    assert_eq!(reader.message().await.unwrap().1["state"], "completed");
}
