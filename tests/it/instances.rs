//! Several sidecars on one Redis: any of them serves any session.

use serde_json::json;

use crate::support::{End, SseClient, Stage, Store, events_of, terminal_of, until};

#[tokio::test]
async fn a_run_of_one_instance_is_followed_live_through_the_other() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let mut early = other.connect().await;
    early.attach("s").await;
    let mut run = stage.run_in("s").await;
    let mut late = None;
    let path = format!("/_sidestream/v1/sessions/s/runs/{}/stream", run.id);
    let mut dialect = SseClient::new(other.get(&path).send().await);
    for n in 0..20 {
        run.upstream.event(n).await;
        while early.entry().await["json"] != n {}
        assert_eq!(dialect.next().await.unwrap().data, n.to_string());
        if n == 10 {
            let mut device = other.connect().await;
            let attached = device.attach("s").await;
            assert_eq!(attached["runs"][0]["run"], run.id);
            late = Some(device);
        }
    }
    run.upstream.end().await;
    assert_eq!(early.collect_until_terminal(&run.id).await[0]["state"], "completed");
    let all = late.unwrap().collect_until_terminal(&run.id).await;
    assert_eq!(events_of(&all, &run.id, "").len(), 20);
    assert_eq!(dialect.next().await, Err(End::Clean));
    let found = other.get(format!("/_sidestream/v1/runs/{}", run.id)).send().await.json().await;
    assert_eq!((&found["session"], &found["state"]), (&json!("s"), &json!("completed")));
}

#[tokio::test]
async fn a_reader_goes_on_at_another_instance_where_it_was() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let mut run = stage.run_in("s").await;
    let mut read = Vec::new();
    let mut position = "start".to_owned();
    for n in 0..10 {
        let sidecar = if n % 2 == 0 { &stage.sidecar } else { &other };
        let mut device = sidecar.connect().await;
        device.attach_after("s", position.clone()).await;
        run.upstream.event(n).await;
        read.extend(device.collect_until(|message| message["json"] == n).await);
        position = device.position("s");
    }
    assert_eq!(events_of(&read, &run.id, "").len(), 10);
}

/// Known failure 13: what clients send is lost when several instances serve the same session.
#[tokio::test]
async fn what_was_asked_through_either_instance_is_in_the_one_session() {
    let route = "[[route]]\nmatch = \"POST /chat\"\nsession = [\"json:/thread\"]\ninput = \"json:/message\"";
    let mut stage = Stage::with(Store::Redis, route).await;
    let other = crate::support::Sidecar::of(stage.agent.url()).store(stage.store.url()).config(route).start().await;
    let mut device = other.connect().await;
    device.attach("t").await;
    let mut runs = Vec::new();
    for n in 0..6 {
        let sidecar = if n % 2 == 0 { &stage.sidecar } else { &other };
        let ask = sidecar.post("/chat").body(format!(r#"{{"thread":"t","message":"question {n}"}}"#));
        runs.push(stage.answered(ask).await);
    }
    for run in runs {
        run.upstream.end().await;
    }
    let mut ended = 0;
    let all = device.collect_until(|message| {
        ended += usize::from(message.is_terminal());
        ended == 6
    });
    let all = all.await;
    let questions: Vec<String> = all
        .iter()
        .filter(|message| message.kind() == "input")
        .map(|input| input["json"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(questions, (0..6).map(|n| format!("question {n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn runs_of_an_instance_that_was_killed_are_interrupted_for_readers_elsewhere() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let mut device = other.connect().await;
    device.attach("s").await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("1").await;
    assert_eq!(device.entry().await["state"], "started");
    assert_eq!(device.entry().await["json"], 1);
    stage.sidecar.process().kill();
    let terminal = device.entry().await;
    assert_eq!((&terminal["state"], &terminal["run"]), (&json!("interrupted"), &json!(run.id)));
    let path = format!("/_sidestream/v1/sessions/s/runs/{}/stream", run.id);
    let (events, end) = SseClient::new(other.get(path).send().await).rest().await;
    assert_eq!((events.len(), end), (1, End::Aborted));
    run.upstream.closed_by_the_sidecar().await;
    terminal_of(&other.entries("s").await, &run.id);
}

#[tokio::test]
async fn a_frozen_instance_that_wakes_up_writes_nothing_more_to_the_run_it_lost() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let mut run = stage.run_in("s").await;
    run.upstream.event("1").await;
    run.caller.arrives("data: 1\n\n").await;
    stage.sidecar.process().signal("STOP");
    let mut device = other.connect().await;
    device.attach("s").await;
    assert_eq!(device.collect_until_terminal(&run.id).await.last().unwrap()["state"], "interrupted");
    run.upstream.event("2").await;
    stage.sidecar.process().signal("CONT");
    // It learns that it was declared dead, and starts over: new runs are its own again.
    until("a new run of the instance that woke up", async || {
        let found = stage.sidecar.health("/readyz").await;
        (found.status == 200).then_some(())
    })
    .await;
    let mut next = stage.run_in("s").await;
    next.upstream.event("3").await;
    next.upstream.end().await;
    device.collect_until_terminal(&next.id).await;
    let all = other.entries("s").await;
    assert_eq!(terminal_of(&all, &run.id)["state"], "interrupted");
    assert_eq!(events_of(&all, &run.id, "").len(), 1, "{all:?}");
}
