//! A run never hangs: whatever happens to its owner, its store or the lists that name it, it gets its one
//! terminal, in time, and nobody ends a run whose owner lives.
//!
//! What is promised within seconds is measured by the time that the terminal's own offset bears.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use rstest::rstest;
use serde_json::json;
use tokio::time::sleep;

use crate::support::{
    Message, RedisServer, RedisServerOptions, Run, ScriptedAgent, Sidecar, SidecarOptions, Stage, Store, WebSocket,
    events_of, terminal_of, until, within,
};

/// How soon the death of an owner is in the log where another instance lives.
const AFTER_DEATH: Duration = Duration::from_secs(5);

/// How soon after a restart, where none does.
const AFTER_RESTART: Duration = Duration::from_secs(2);

/// How soon an instance that learns that it was declared dead has let go of its runs.
const LETTING_GO: Duration = Duration::from_secs(1);

/// Longer than a lease, and than anybody waits for a store before looking for another connection.
const OUTAGE: Duration = Duration::from_secs(5);

/// How long after an outage of the store somebody may still be on its way back.
const LATE: Duration = Duration::from_secs(3);

/// How long the paused owner is away.
const PAUSE: Duration = Duration::from_secs(20);

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Fails where the entry came more than `limit` after `from`.
fn assert_within(limit: Duration, from_ms: u64, entry: &Message) {
    let took = Duration::from_millis(entry.offset().ms.saturating_sub(from_ms));
    assert!(took <= limit, "{took:?} until {entry}");
}

/// The terminal that a takeover wrote for a run with two events of five bytes each.
fn assert_taken_over(terminal: &Message, started: &Message, reason: &str) {
    assert_eq!((&terminal["state"], &terminal["reason"]), (&json!("interrupted"), &json!(reason)));
    assert_eq!((&terminal["events"], &terminal["bytes"]), (&json!(2), &json!(10)), "{terminal}");
    assert_eq!(terminal["duration_ms"], terminal.offset().ms - started.offset().ms, "{terminal}");
}

/// A run with two events of five bytes that `device`, which is attached, has seen.
async fn begun(stage: &mut Stage, session: &str) -> Run {
    let mut run = stage.run_in(session).await;
    run.upstream.write("data: 10001\n\ndata: 10002\n\n").await;
    run.caller.arrives("data: 10001\n\ndata: 10002\n\n").await;
    run
}

/// Every device sees the one terminal of the run, and the log has no other.
async fn ended_once(sidecar: &Sidecar, devices: &mut [WebSocket], run: &Run) -> Message {
    for device in &mut *devices {
        let seen = device.collect_until_terminal(&run.id).await;
        assert_eq!(events_of(&seen, &run.id, "").len(), 2);
    }
    let all = sidecar.entries(&run.session).await;
    let terminal = terminal_of(&all, &run.id).clone();
    assert_taken_over(&terminal, &all[0], terminal["reason"].as_str().unwrap());
    terminal
}

async fn attached(sidecars: &[&Sidecar], session: &str) -> Vec<WebSocket> {
    let mut devices = Vec::new();
    for sidecar in sidecars {
        let mut device = sidecar.connect().await;
        device.attach(session).await;
        devices.push(device);
    }
    devices
}

#[tokio::test]
async fn the_death_of_an_owner_is_on_every_device_within_five_seconds_and_once() {
    let mut stage = Stage::on(Store::Redis).await;
    let (second, third) = (stage.another_sidecar().await, stage.another_sidecar().await);
    let mut run = begun(&mut stage, "s").await;
    let mut devices = attached(&[&second, &second, &third], "s").await;
    let died = now_ms();
    stage.sidecar.process().kill();
    let terminal = ended_once(&second, &mut devices, &run).await;
    assert_eq!(terminal["reason"], "owner_lost");
    assert_within(AFTER_DEATH, died, &terminal);
    run.upstream.closed_by_the_sidecar().await;
}

#[tokio::test]
async fn many_runs_of_a_dead_owner_end_within_five_seconds() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let mut runs = Vec::new();
    for n in 0..60 {
        runs.push(begun(&mut stage, &format!("s{}", n % 50)).await);
    }
    let died = now_ms();
    stage.sidecar.process().kill();
    for run in &runs {
        let terminal = until("a terminal", async || {
            let all = other.entries(&run.session).await;
            all.iter()
                .any(|entry| entry.is_terminal() && entry["run"] == run.id)
                .then(|| terminal_of(&all, &run.id).clone())
        });
        assert_within(AFTER_DEATH, died, &terminal.await);
    }
}

#[rstest]
#[tokio::test]
async fn an_owner_that_was_alone_has_its_runs_ended_two_seconds_after_it_is_back(
    #[values(Store::Embedded, Store::Redis)] store: Store,
) {
    let mut stage = Stage::on(store).await;
    let run = begun(&mut stage, "s").await;
    stage.sidecar.process().kill();
    if store == Store::Redis {
        let mut redis = stage.store.redis().client().await;
        until("the end of the lease", async || leases(&mut redis).await.is_empty().then_some(())).await;
    }
    let sidecar = stage.sidecar.restart().await;
    let back = now_ms();
    let mut devices = attached(&[&sidecar, &sidecar], "s").await;
    let terminal = ended_once(&sidecar, &mut devices, &run).await;
    assert_eq!(terminal["reason"], if store == Store::Redis { "owner_lost" } else { "restart" });
    assert_within(AFTER_RESTART, back, &terminal);
}

/// Whoever comes back before its own lease has run out is the other instance that lives.
#[tokio::test]
async fn an_owner_that_is_restarted_at_once_has_its_runs_ended_within_five_seconds_of_its_death() {
    let mut stage = Stage::on(Store::Redis).await;
    let run = begun(&mut stage, "s").await;
    let died = now_ms();
    stage.sidecar.process().kill();
    let sidecar = stage.sidecar.restart().await;
    let mut devices = attached(&[&sidecar], "s").await;
    assert_within(AFTER_DEATH, died, &ended_once(&sidecar, &mut devices, &run).await);
}

#[tokio::test]
async fn an_owner_that_was_paused_for_twenty_seconds_writes_nothing_and_lets_go_of_its_runs_within_a_second() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let (mut silent, mut talking) = (begun(&mut stage, "silent").await, begun(&mut stage, "talking").await);
    let mut of_silent = attached(&[&other, &other], "silent").await;
    let mut of_talking = attached(&[&other, &other], "talking").await;
    let paused = now_ms();
    stage.sidecar.process().signal("STOP");
    sleep(PAUSE).await;
    talking.upstream.event("late").await;
    stage.sidecar.process().signal("CONT");
    until("the end of its first life", async || {
        stage.sidecar.log().contains("declared this instance dead").then_some(())
    })
    .await;
    let told = Instant::now();
    for run in [&mut silent, &mut talking] {
        run.upstream.closed_by_the_sidecar().await;
    }
    assert!(told.elapsed() < LETTING_GO, "{:?}", told.elapsed());
    for (run, devices) in [(&silent, &mut of_silent), (&talking, &mut of_talking)] {
        let terminal = ended_once(&other, devices, run).await;
        assert_within(AFTER_DEATH, paused, &terminal);
    }
    // It goes on under a new id, and what it had does not come after all.
    let next = begun(&mut stage, "silent").await;
    next.upstream.end().await;
    for device in &mut of_silent {
        device.collect_until_terminal(&next.id).await;
    }
    let all = other.entries("silent").await;
    assert_eq!((terminal_of(&all, &silent.id)["state"].clone(), all.len()), (json!("interrupted"), 8));
    assert_eq!(terminal_of(&all, &next.id)["state"], "completed");
    assert_eq!(other.entries("talking").await.len(), 4);
}

/// The owner hears nothing any more; who takes its run over does what it was asked to.
#[tokio::test]
async fn a_cancel_of_a_run_whose_owner_is_gone_is_done_by_who_takes_it_over_and_says_who_asked() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let run = begun(&mut stage, "s").await;
    let mut phone = other.connect_to("/_sidestream/v1/ws?client=phone").await;
    phone.attach("s").await;
    stage.sidecar.process().kill();
    let ack = phone.ask(json!({"type": "cancel", "session": "s", "run": run.id})).await;
    assert_eq!((&ack["outcome"], &ack["upstream"]), (&json!("cancelled"), &json!("unknown")), "{ack}");
    let all = other.entries("s").await;
    let terminal = terminal_of(&all, &run.id);
    assert_eq!((&terminal["state"], &terminal["by"]["client"]), (&json!("cancelled"), &json!("phone")), "{terminal}");
    assert_eq!(
        (&terminal["reason"], &terminal["events"], &terminal["bytes"]),
        (&json!("owner_lost"), &json!(2), &json!(10))
    );
    assert_eq!(terminal["duration_ms"], terminal.offset().ms - all[0].offset().ms);
}

#[tokio::test]
async fn what_waited_for_a_run_of_a_dead_owner_starts_elsewhere() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let run = begun(&mut stage, "s").await;
    let mut phone = other.connect_to("/chat").await;
    phone.attach("s").await;
    let queued = phone.ask(json!({"type": "send", "session": "s", "body": 2, "on_busy": "queue"})).await;
    assert_eq!(queued["outcome"], "queued", "{queued}");
    stage.sidecar.process().kill();
    let mut upstream = stage.agent.asked().await;
    upstream.sse().await;
    upstream.end().await;
    let all = phone.collect_until_terminal(queued["run"].as_str().unwrap()).await;
    assert_eq!(terminal_of(&all, &run.id)["state"], "interrupted");
    assert_eq!(all.last().unwrap()["state"], "completed");
}

/// How a store is away.
#[derive(Clone, Copy, Debug)]
enum Outage {
    Frozen,
    Restarted,
}

/// The symptom: a Redis that was away made the living take each other's runs. One instance dies in the
/// outage: once its run is taken over, the others were judged as well.
#[rstest]
#[tokio::test]
async fn a_store_that_was_away_makes_nobody_take_the_runs_of_the_living(
    #[values(Outage::Frozen, Outage::Restarted)] outage: Outage,
) {
    let mut scene = Scene::start().await;
    let mut device = scene.sidecars[0].connect().await;
    device.attach("dies").await;
    scene.begin(outage);
    scene.sidecars[2].process().kill();
    let meanwhile = scene.options.clone().start_unready().await;
    sleep(OUTAGE).await;
    scene.end(outage);
    let afterwards = scene.options.clone().start().await;
    let seen = device.collect_until_terminal(&scene.runs[2].id).await;
    assert_eq!(seen.last().unwrap()["state"], "interrupted");
    scene.the_others_go_on(&[meanwhile, afterwards]).await;
}

/// An instance may need a while after an outage: its machine had the same trouble. Who went through it, or
/// has begun in it, waits longer for the others than who has not.
#[rstest]
#[tokio::test]
async fn who_is_late_after_an_outage_of_the_store_keeps_its_runs(
    #[values(Outage::Frozen, Outage::Restarted)] outage: Outage,
) {
    let mut scene = Scene::start().await;
    let mut device = scene.sidecars[0].connect().await;
    device.attach("dies").await;
    scene.sidecars[1].process().signal("STOP");
    scene.begin(outage);
    scene.sidecars[2].process().kill();
    let meanwhile = scene.options.clone().start_unready().await;
    sleep(OUTAGE).await;
    scene.end(outage);
    sleep(LATE).await;
    scene.sidecars[1].process().signal("CONT");
    let seen = device.collect_until_terminal(&scene.runs[2].id).await;
    assert_eq!(seen.last().unwrap()["state"], "interrupted");
    scene.the_others_go_on(&[meanwhile]).await;
}

/// Three sidecars with a run each, on a Redis that keeps what it has acknowledged.
struct Scene {
    // Fields are dropped in this order: the sidecars before what they need.
    sidecars: Vec<Sidecar>,
    runs: Vec<Run>,
    options: SidecarOptions,
    _agent: ScriptedAgent,
    server: RedisServer,
}

impl Scene {
    async fn start() -> Self {
        let server = RedisServerOptions::default().directive("appendonly yes").start();
        let mut agent = ScriptedAgent::start().await;
        let options = Sidecar::of(agent.url()).store(server.url());
        let (mut sidecars, mut runs) = (Vec::new(), Vec::new());
        for session in ["first", "second", "dies"] {
            let sidecar = options.clone().start().await;
            let ask = sidecar.post("/chat").header("sidestream-session", session);
            let (caller, upstream) = tokio::join!(ask.send(), async {
                let mut upstream = agent.asked().await;
                upstream.sse().await;
                upstream.write("data: 10001\n\ndata: 10002\n\n").await;
                upstream
            });
            let mut run = Run::new(caller, upstream);
            run.caller.arrives("data: 10001\n\ndata: 10002\n\n").await;
            sidecars.push(sidecar);
            runs.push(run);
        }
        Scene { sidecars, runs, options, _agent: agent, server }
    }

    fn begin(&mut self, outage: Outage) {
        match outage {
            Outage::Frozen => self.server.freeze(),
            Outage::Restarted => self.server.kill(),
        }
    }

    fn end(&mut self, outage: Outage) {
        match outage {
            Outage::Frozen => self.server.thaw(),
            Outage::Restarted => self.server.restart(),
        }
    }

    /// The runs of the two that live go on to their ends, for readers at `new` ones.
    async fn the_others_go_on(mut self, new: &[Sidecar]) {
        for mut run in self.runs.drain(..2) {
            let mut devices = attached(&new.iter().collect::<Vec<_>>(), &run.session).await;
            run.upstream.event("10003").await;
            run.upstream.end().await;
            for device in &mut devices {
                let seen = device.collect_until_terminal(&run.id).await;
                assert_eq!(seen.last().unwrap()["state"], "completed", "{}", run.session);
                assert_eq!(events_of(&seen, &run.id, "").len(), 3);
            }
            terminal_of(&new[0].entries(&run.session).await, &run.id);
        }
        for sidecar in self.sidecars[..2].iter().chain(new) {
            assert!(!sidecar.log().contains("declared this instance dead"));
        }
    }
}

/// The lists of the store, as operators see them.
async fn leases(redis: &mut MultiplexedConnection) -> Vec<String> {
    keys(redis, "ss:{inst}:alive:*").await
}

async fn keys(redis: &mut MultiplexedConnection, pattern: &str) -> Vec<String> {
    redis::cmd("KEYS").arg(pattern).query_async(redis).await.unwrap()
}

/// Loses the lists of all instances, and which instances there are.
async fn lose_the_lists(redis: &mut MultiplexedConnection) {
    let mut lost = keys(redis, "ss:{inst}:runs:*").await;
    lost.push("ss:{inst}:all".into());
    let deleted: usize = redis::cmd("DEL").arg(&lost).query_async(redis).await.unwrap();
    assert_eq!(deleted, lost.len());
}

#[tokio::test]
async fn a_run_of_a_dead_owner_that_nobody_lists_is_ended_when_somebody_attaches() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let run = begun(&mut stage, "s").await;
    let mut redis = stage.store.redis().client().await;
    stage.sidecar.process().kill();
    lose_the_lists(&mut redis).await;
    until("the end of its lease", async || (leases(&mut redis).await.len() == 1).then_some(())).await;
    let mut devices = attached(&[&other, &other], "s").await;
    ended_once(&other, &mut devices, &run).await;
    until("the end of the list", async || keys(&mut redis, "ss:{inst}:runs:*").await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_run_that_nobody_lists_is_ended_for_those_who_are_attached_when_the_store_comes_back() {
    let mut server = RedisServerOptions::default().directive("appendonly yes").start();
    let mut agent = ScriptedAgent::start().await;
    let options = Sidecar::of(agent.url()).store(server.url());
    let (mut owner, other) = (options.clone().start().await, options.start().await);
    let ask = owner.post("/chat").header("sidestream-session", "s");
    let (caller, mut upstream) = tokio::join!(ask.send(), async {
        let mut upstream = agent.asked().await;
        upstream.sse().await;
        upstream
    });
    upstream.write("data: 10001\n\ndata: 10002\n\n").await;
    let run = Run::new(caller, upstream);
    let mut devices = attached(&[&other], "s").await;
    while devices[0].entry().await["json"] != 10002 {}
    owner.process().kill();
    lose_the_lists(&mut server.client().await).await;
    server.restart();
    let terminal = devices[0].collect_until_terminal(&run.id).await.pop().unwrap();
    assert_eq!(terminal["reason"], "owner_lost");
}

#[tokio::test]
async fn a_run_of_a_living_owner_that_nobody_lists_is_listed_again_and_goes_on() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let mut run = begun(&mut stage, "s").await;
    let mut redis = stage.store.redis().client().await;
    let listed = keys(&mut redis, "ss:{inst}:runs:*").await;
    lose_the_lists(&mut redis).await;
    let mut devices = attached(&[&other], "s").await;
    until("its list", async || (keys(&mut redis, "ss:{inst}:runs:*").await == listed).then_some(())).await;
    run.upstream.event("10003").await;
    run.upstream.end().await;
    let seen = devices[0].collect_until_terminal(&run.id).await;
    assert_eq!((events_of(&seen, &run.id, "").len(), &seen.last().unwrap()["state"]), (3, &json!("completed")));
    until("the end of the list", async || keys(&mut redis, "ss:{inst}:runs:*").await.is_empty().then_some(())).await;
}

/// Attaching waits for nothing that is done for the runs.
#[tokio::test]
async fn devices_that_attach_together_are_answered_while_the_run_is_looked_after() {
    let mut stage = Stage::on(Store::Redis).await;
    let other = stage.another_sidecar().await;
    let run = begun(&mut stage, "s").await;
    let mut redis = stage.store.redis().client().await;
    let enlistings = async |redis: &mut MultiplexedConnection| -> usize {
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(redis).await.unwrap();
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_sismember:calls="));
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
    };
    let mut devices = Vec::new();
    for _ in 0..20 {
        let mut device = other.connect().await;
        within("an attach", device.attach("s")).await;
        devices.push(device);
    }
    until("a look at the list", async || (enlistings(&mut redis).await > 0).then_some(())).await;
    assert!(enlistings(&mut redis).await <= 2, "one look is enough for all");
    run.upstream.end().await;
    for device in &mut devices {
        device.collect_until_terminal(&run.id).await;
    }
}
