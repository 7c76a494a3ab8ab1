//! A slow reader costs nothing: it lags, gets everything later, and nobody else notices.

use rstest::rstest;

use crate::support::{Message, SseClient, Stage, Store, terminal_of};

/// So many events of so many bytes: more than sockets buffer, less than a session may hold.
const EVENTS: usize = 600;
const EVENT_BYTES: usize = 40_000;

/// Known failure 28.
#[rstest]
#[tokio::test]
async fn a_reader_that_stops_reading_gets_everything_later_and_slows_nobody(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let mut run = stage.run_in("s").await;
    drop(run.caller);
    let (mut slow, mut fast) = (stage.sidecar.connect().await, stage.sidecar.connect().await);
    slow.attach("s").await;
    fast.attach("s").await;
    let slow_sse = stage.sidecar.get("/_sidestream/v1/sessions/s/events").send().await;
    let before = stage.sidecar.process().peak_memory();
    let pad = "x".repeat(EVENT_BYTES);
    for n in 0..EVENTS {
        run.upstream.event(format!("{{\"n\":{n},\"pad\":\"{pad}\"}}")).await;
        // Nobody waits for the slow ones: the next event is sent when the fast one has this one.
        while fast.entry().await["json"]["n"] != n {}
    }
    run.upstream.end().await;
    terminal_of(&fast.collect_until_terminal(&run.id).await, &run.id);
    let grown = stage.sidecar.process().peak_memory() - before;
    let lag = (EVENTS * EVENT_BYTES) as u64;
    // Two readers lag by `lag` each. The run's owner keeps its newest 8 MiB, should the store lose them; the embedded
    // store keeps pages of its own in the same memory.
    assert!(
        store == Store::Embedded || grown < (8 << 20) + lag / 2,
        "{} MB for readers that lag by {} MB each",
        grown >> 20,
        lag >> 20
    );

    let all = slow.collect_until_terminal(&run.id).await;
    assert_eq!(all.len(), EVENTS + 2);
    assert!((0..EVENTS).all(|n| all[n + 1]["json"]["n"] == n));

    let mut reader = SseClient::new(slow_sse);
    let mut n = 0;
    loop {
        let (event, message) = reader.message().await.unwrap();
        if event.name == "message" {
            n += 1;
            assert_eq!(message.offset().seq, n);
        }
        if Message::is_terminal(&message) {
            break;
        }
    }
    assert_eq!(n as usize, EVENTS + 2);
}

#[tokio::test]
async fn a_direct_caller_that_does_not_read_is_cut_off_and_its_run_goes_on() {
    let mut stage = Stage::with(Store::Embedded, "[limits]\ncaller_buffer = \"1MiB\"").await;
    let mut run = stage.run_in("s").await;
    let mut device = stage.sidecar.connect().await;
    device.attach("s").await;
    let pad = "x".repeat(EVENT_BYTES);
    for n in 0..EVENTS {
        run.upstream.event(format!("{{\"n\":{n},\"pad\":\"{pad}\"}}")).await;
        while device.entry().await["json"]["n"] != n {}
    }
    run.upstream.end().await;
    assert_eq!(device.collect_until_terminal(&run.id).await[0]["state"], "completed");
    let (body, end) = run.caller.whole().await;
    assert_eq!(end, crate::support::End::Aborted, "never a polite end of half an answer");
    assert!(body.len() < EVENTS * EVENT_BYTES);
}
