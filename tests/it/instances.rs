//! Several sidecars on one Redis: any of them serves any session.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    End, RedisServer, RedisServerOptions, Run, ScriptedAgent, Sidecar, SseClient, Stage, Store, events_of, terminal_of,
    until,
};

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

/// Two sidecars on one Redis, the first of which can be kept from pushing.
struct Muted {
    writer: Sidecar,
    reader: Sidecar,
    agent: ScriptedAgent,
    redis: redis::aio::MultiplexedConnection,
    _server: RedisServer,
}

impl Muted {
    async fn start() -> Self {
        let user = "user writer on >secret allkeys allchannels +@all";
        let server = RedisServerOptions::default().directive(user).start();
        let agent = ScriptedAgent::start().await;
        let writer = Sidecar::of(agent.url()).store(server.url_as("writer:secret")).start().await;
        let reader = Sidecar::of(agent.url()).store(server.url()).start().await;
        Muted { writer, reader, agent, redis: server.client().await, _server: server }
    }

    /// From now on what the writer pushes is lost, and it does not know.
    async fn mute(&mut self) {
        let mute = redis::cmd("ACL").arg("SETUSER").arg("writer").arg("resetchannels").to_owned();
        mute.exec_async(&mut self.redis).await.unwrap();
    }

    async fn run(&mut self) -> Run {
        let ask = self.writer.post("/chat").header("sidestream-session", "s");
        let (caller, upstream) = tokio::join!(ask.send(), async {
            let mut upstream = self.agent.asked().await;
            upstream.sse().await;
            upstream
        });
        Run::new(caller, upstream)
    }
}

/// Known failure 1.
#[tokio::test]
async fn a_terminal_whose_push_was_lost_reaches_its_readers_within_five_seconds() {
    let mut muted = Muted::start().await;
    let mut run = muted.run().await;
    run.upstream.event(1).await;
    let mut device = muted.reader.connect().await;
    device.attach("s").await;
    while device.entry().await["json"] != 1 {}
    muted.mute().await;
    run.upstream.event(2).await;
    run.upstream.end().await;
    run.caller.whole().await;
    let lost = Instant::now();
    assert_eq!(device.entry().await["json"], 2);
    assert_eq!(device.entry().await["state"], "completed");
    assert!(lost.elapsed() < Duration::from_secs(5), "{:?}", lost.elapsed());
}

#[tokio::test]
async fn a_session_whose_first_push_was_lost_is_found_though_somebody_waits_for_it() {
    let mut muted = Muted::start().await;
    let mut early = muted.reader.connect().await;
    early.attach("s").await;
    muted.mute().await;
    let mut run = muted.run().await;
    let mut late = muted.reader.connect().await;
    late.attach_after("s", "start").await;
    assert_eq!(late.entry().await["run"], run.id);
    assert_eq!(early.entry().await["run"], run.id);
    run.upstream.event(1).await;
    let path = format!("/_sidestream/v1/sessions/s/runs/{}/stream", run.id);
    let mut dialect = SseClient::new(muted.reader.get(path).send().await);
    assert_eq!(dialect.next().await.unwrap().data, "1");
}

/// Known failure 13: what clients send is lost when several instances serve the same session.
#[tokio::test]
async fn what_was_asked_through_either_instance_is_in_the_one_session() {
    let route = "[[route]]\nmatch = \"POST /chat\"\nsession = [\"json:/thread\"]\ninput = \"json:/message\"";
    let mut stage = Stage::with(Store::Redis, route).await;
    let other = Sidecar::of(stage.agent.url()).store(stage.store.url()).config(route).start().await;
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
    until("the end of its first life", async || {
        stage.sidecar.log().contains("declared this instance dead").then_some(())
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
