//! A store that goes back in time: a replica is promoted that lacks a tail, or the server comes back
//! empty. What living owners sent in the last minute is in the log again, each run has exactly one
//! terminal, no reader holds a history that the log does not have, and the direct caller notices nothing.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::writers::post;
use crate::support::{
    End, FaultProxy, Message, RedisServer, RedisServerOptions, Run, ScriptedAgent, Sidecar, WebSocket, events_of,
    terminal_of, until,
};

/// Longer than a subscriber takes to hear of anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A primary with replicas, an agent, and a sidecar that reaches one of the servers over a network
/// which can lead it to another.
struct Deployment {
    sidecar: Sidecar,
    agent: ScriptedAgent,
    network: FaultProxy,
    /// The primary, then the replicas.
    servers: Vec<RedisServer>,
}

impl Deployment {
    async fn with_replicas(count: usize) -> Self {
        let primary = RedisServerOptions::default().directive("repl-diskless-sync-delay 0").start();
        let replica = |_| RedisServerOptions::default().directive(format!("replicaof 127.0.0.1 {}", primary.port()));
        let mut servers: Vec<_> = (0..count).map(replica).map(RedisServerOptions::start).collect();
        servers.insert(0, primary);
        let network = FaultProxy::to(servers[0].port()).await;
        let agent = ScriptedAgent::start().await;
        let sidecar = Sidecar::of(agent.url()).store(network.url()).start().await;
        Deployment { sidecar, agent, network, servers }
    }

    async fn run(&mut self, session: &str) -> Run {
        let upstream = async {
            let mut upstream = self.agent.asked().await;
            upstream.sse().await;
            upstream
        };
        let ask = self.sidecar.post("/chat").header("sidestream-session", session);
        let (caller, upstream) = tokio::join!(ask.send(), upstream);
        Run::new(caller, upstream)
    }

    async fn subscriber(&self, session: &str) -> Subscriber {
        Subscriber::at(&self.sidecar, session).await
    }

    /// From now on a replica gets nothing more: promoted, it lacks what comes now.
    async fn cut_off(&self, replica: usize) {
        until("the replica to have everything", async || {
            let has = offset(&self.servers[replica], "slave_repl_offset").await;
            let linked = info(&self.servers[replica]).await.contains("master_link_status:up");
            (linked && has == offset(&self.servers[0], "master_repl_offset").await).then_some(())
        })
        .await;
        let mut client = self.servers[replica].client().await;
        let _: () = redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).query_async(&mut client).await.unwrap();
    }

    /// The sidecar finds this server where the other was.
    fn fail_over_to(&self, replica: usize) {
        self.network.retarget(self.servers[replica].port());
    }

    /// The log, once it has a terminal of each of these runs.
    async fn ended(&self, session: &str, runs: &[&str]) -> Vec<Message> {
        until("the terminals", async || {
            let path = format!("/_sidestream/v1/sessions/{session}/events?after=start&limit=1000");
            let answer = self.sidecar.get(path).header("accept", "application/json").send().await;
            if answer.status != 200 {
                return None;
            }
            let all = self.sidecar.entries(session).await;
            let has = |run: &str| all.iter().any(|entry| entry.is_terminal() && entry["run"] == run);
            runs.iter().all(|run| has(run)).then_some(all)
        })
        .await
    }
}

async fn info(server: &RedisServer) -> String {
    redis::cmd("INFO").arg("replication").query_async(&mut server.client().await).await.unwrap()
}

async fn offset(server: &RedisServer, name: &str) -> u64 {
    let info = info(server).await;
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map_or(0, |number| number.trim().parse().unwrap())
}

/// A device that keeps what it is sent, and lets go of what a gap tells it to.
struct Subscriber {
    socket: WebSocket,
    view: Vec<Message>,
    gaps: usize,
}

impl Subscriber {
    async fn at(sidecar: &Sidecar, session: &str) -> Self {
        let mut socket = sidecar.connect().await;
        socket.attach(session).await;
        Subscriber { socket, view: Vec::new(), gaps: 0 }
    }

    /// Reads until its view has so many entries.
    async fn has(&mut self, count: usize) {
        let reading = async {
            while self.view.len() < count {
                self.step().await;
            }
        };
        if timeout(PATIENCE, reading).await.is_err() {
            panic!("it has not {count} entries: {:#?}", self.view);
        }
    }

    /// Reads until its view is the log.
    async fn agrees_with(&mut self, log: &[Message]) {
        let agreeing = async {
            while self.view.last().map(Message::offset) != log.last().map(Message::offset) {
                self.step().await;
            }
        };
        if timeout(PATIENCE, agreeing).await.is_err() {
            panic!("the view stays another: {:#?}\nthe log: {log:#?}", self.view);
        }
        let plain = |entries: &[Message]| entries.iter().map(Message::entry).collect::<Vec<_>>();
        assert_eq!(plain(&self.view), plain(log));
    }

    async fn step(&mut self) {
        let message = self.socket.next().await;
        if message.kind() == "gap" {
            assert_eq!(message["reason"], "rolled_back", "{message}");
            let to = message["to"].as_str().unwrap().parse().unwrap();
            self.view.retain(|entry| entry.offset() <= to);
            self.gaps += 1;
        } else if message.is_entry() {
            self.view.push(message);
        }
    }
}

fn data_of(log: &[Message], run: &Run) -> Vec<String> {
    events_of(log, &run.id, "").into_iter().map(|event| event.data).collect()
}

async fn say(run: &mut Run, data: &[&str]) {
    for data in data {
        run.upstream.event(data).await;
        run.caller.arrives(&format!("data: {data}\n\n")).await;
    }
}

/// Ends the run; its caller has everything, and hears a clean end.
async fn end(run: Run, data: &[&str]) {
    run.upstream.end().await;
    let (body, end) = run.caller.whole().await;
    let expected: String = data.iter().map(|data| format!("data: {data}\n\n")).collect();
    assert_eq!((std::str::from_utf8(&body).unwrap(), end), (&*expected, End::Clean));
}

#[tokio::test]
async fn a_failover_that_loses_a_tail_is_announced_and_what_was_lost_is_in_the_log_again() {
    let mut stage = Deployment::with_replicas(1).await;
    let (mut first, mut subscriber) = (stage.run("s").await, stage.subscriber("s").await);
    say(&mut first, &["a", "b"]).await;
    stage.cut_off(1).await;
    say(&mut first, &["c", "d"]).await;
    // Of this one even the opening is lost.
    let mut second = stage.run("s").await;
    say(&mut second, &["x", "y"]).await;
    say(&mut first, &["e"]).await;
    subscriber.has(9).await;
    stage.fail_over_to(1);
    say(&mut second, &["z"]).await;
    say(&mut first, &["f"]).await;
    let runs = [first.id.clone(), second.id.clone()];
    let (expected_of_first, expected_of_second) = (["a", "b", "c", "d", "e", "f"], ["x", "y", "z"]);
    let (first_id, second_id) = (&*runs[0], &*runs[1]);
    end(first, &expected_of_first).await;
    end(second, &expected_of_second).await;
    let log = stage.ended("s", &[first_id, second_id]).await;
    let data = |run: &str| events_of(&log, run, "").into_iter().map(|event| event.data).collect::<Vec<_>>();
    assert_eq!(data(first_id), expected_of_first);
    assert_eq!(data(second_id), expected_of_second);
    for run in [first_id, second_id] {
        assert_eq!(terminal_of(&log, run)["state"], "completed");
    }
    assert_eq!(log.len(), 2 + 6 + 3 + 2, "{log:?}");
    subscriber.agrees_with(&log).await;
    assert!(subscriber.gaps > 0, "it was told");
}

/// Runs of two instances in one session, and subscribers at both.
#[tokio::test]
async fn what_several_instances_have_lost_in_one_session_each_of_them_sends_again() {
    let mut stage = Deployment::with_replicas(1).await;
    let other = Sidecar::of(stage.agent.url()).store(stage.network.url()).start().await;
    let mut here = stage.run("s").await;
    let first = std::mem::replace(&mut stage.sidecar, other);
    let mut there = stage.run("s").await;
    let mut subscribers = [Subscriber::at(&first, "s").await, stage.subscriber("s").await];
    say(&mut here, &["a"]).await;
    say(&mut there, &["x"]).await;
    stage.cut_off(1).await;
    say(&mut here, &["b"]).await;
    say(&mut there, &["y"]).await;
    say(&mut here, &["c"]).await;
    for subscriber in &mut subscribers {
        subscriber.has(7).await;
    }
    stage.fail_over_to(1);
    // The one says something; the other has said all that it has to say.
    let (here_id, there_id) = (here.id.clone(), there.id.clone());
    say(&mut here, &["d"]).await;
    end(here, &["a", "b", "c", "d"]).await;
    end(there, &["x", "y"]).await;
    let log = stage.ended("s", &[&here_id, &there_id]).await;
    let data = |run: &str| events_of(&log, run, "").into_iter().map(|event| event.data).collect::<Vec<_>>();
    assert_eq!(data(&here_id), ["a", "b", "c", "d"]);
    assert_eq!(data(&there_id), ["x", "y"]);
    assert_eq!(log.len(), 10, "{log:?}");
    for run in [&here_id, &there_id] {
        assert_eq!(terminal_of(&log, run)["state"], "completed");
    }
    for subscriber in &mut subscribers {
        subscriber.agrees_with(&log).await;
    }
}

#[tokio::test]
async fn a_run_whose_terminal_a_failover_has_lost_gets_it_again() {
    let mut stage = Deployment::with_replicas(1).await;
    let (mut run, mut subscriber) = (stage.run("s").await, stage.subscriber("s").await);
    say(&mut run, &["a"]).await;
    stage.cut_off(1).await;
    say(&mut run, &["b"]).await;
    let id = run.id.clone();
    end(run, &["a", "b"]).await;
    let before = stage.ended("s", &[&id]).await;
    subscriber.agrees_with(&before).await;
    stage.fail_over_to(1);
    let log = stage.ended("s", &[&id]).await;
    let without_place = |entries: &[Message]| {
        let field = |entry: &Message, name: &str| entry[name].clone();
        let fields = ["type", "run", "state", "text", "json", "reason", "events", "duration_ms"];
        entries.iter().map(|entry| fields.map(|name| field(entry, name))).collect::<Vec<_>>()
    };
    assert_eq!(without_place(&log), without_place(&before));
    assert_ne!(log.last().unwrap().offset(), before.last().unwrap().offset());
    subscriber.agrees_with(&log).await;
}

#[tokio::test]
async fn a_store_that_goes_back_twice_is_told_twice() {
    let mut stage = Deployment::with_replicas(2).await;
    let (mut run, mut subscriber) = (stage.run("s").await, stage.subscriber("s").await);
    say(&mut run, &["a"]).await;
    stage.cut_off(2).await;
    say(&mut run, &["b", "c"]).await;
    stage.cut_off(1).await;
    say(&mut run, &["d"]).await;
    stage.fail_over_to(1);
    say(&mut run, &["e"]).await;
    stage.fail_over_to(2);
    say(&mut run, &["f"]).await;
    let (id, expected) = (run.id.clone(), ["a", "b", "c", "d", "e", "f"]);
    end(run, &expected).await;
    let log = stage.ended("s", &[&id]).await;
    let data: Vec<String> = events_of(&log, &id, "").into_iter().map(|event| event.data).collect();
    assert_eq!(data, expected);
    assert_eq!(log.len(), 8);
    subscriber.agrees_with(&log).await;
}

/// However the server loses everything: also what is silent, and what has ended, is there again.
#[rstest::rstest]
#[tokio::test]
async fn after_a_store_came_back_empty_every_run_of_the_last_minute_is_in_it_again(
    #[values(true, false)] flushed: bool,
) {
    let mut stage = Deployment::with_replicas(0).await;
    let mut silent = stage.run("s").await;
    say(&mut silent, &["a"]).await;
    let mut ended = stage.run("s").await;
    say(&mut ended, &["x", "y"]).await;
    let (silent_id, ended_id) = (silent.id.clone(), ended.id.clone());
    end(ended, &["x", "y"]).await;
    let mut subscriber = stage.subscriber("s").await;
    subscriber.has(6).await;
    match flushed {
        true => {
            let mut client = stage.servers[0].client().await;
            let _: () = redis::cmd("FLUSHALL").query_async(&mut client).await.unwrap();
        }
        false => stage.servers[0].restart(),
    }
    let log = until("both runs", async || {
        let path = "/_sidestream/v1/sessions/s/events?after=start&limit=1000";
        let answer = stage.sidecar.get(path).header("accept", "application/json").send().await;
        if answer.status != 200 {
            return None;
        }
        Some(stage.sidecar.entries("s").await).filter(|all| all.len() == 6)
    })
    .await;
    assert_eq!(data_of(&log, &silent), ["a"]);
    assert_eq!(terminal_of(&log, &ended_id)["state"], "completed");
    say(&mut silent, &["b"]).await;
    end(silent, &["a", "b"]).await;
    let log = stage.ended("s", &[&silent_id, &ended_id]).await;
    assert_eq!(log.len(), 8, "{log:?}");
    subscriber.agrees_with(&log).await;
}

#[tokio::test]
async fn what_is_cancelled_stays_cancelled_though_the_store_lost_the_flag_and_the_terminal() {
    let mut stage = Deployment::with_replicas(1).await;
    let (mut run, mut device) = (stage.run("s").await, stage.sidecar.connect().await);
    say(&mut run, &["a"]).await;
    stage.cut_off(1).await;
    let cancel = json!({"type": "cancel", "session": "s", "run": run.id});
    assert_eq!(device.ask(cancel).await.kind(), "ack");
    run.upstream.closed_by_the_sidecar().await;
    stage.fail_over_to(1);
    let log = stage.ended("s", &[&run.id]).await;
    assert_eq!(terminal_of(&log, &run.id)["state"], "cancelled");
    assert_eq!(data_of(&log, &run), ["a"]);
}

#[tokio::test]
async fn what_devices_have_published_is_there_again_after_a_failover_that_lost_it() {
    let mut stage = Deployment::with_replicas(1).await;
    let (run, mut subscriber) = (stage.run("s").await, stage.subscriber("s").await);
    let mut device = stage.sidecar.connect().await;
    let mut publish = async |n: u64| {
        let publish = json!({"type": "publish", "session": "s", "data": n});
        assert_eq!(device.ask(publish).await.kind(), "ack");
    };
    publish(1).await;
    stage.cut_off(1).await;
    publish(2).await;
    publish(3).await;
    subscriber.has(4).await;
    stage.fail_over_to(1);
    let id = run.id.clone();
    end(run, &[]).await;
    let log = until("what was published", async || {
        let log = stage.ended("s", &[&id]).await;
        (log.len() == 5).then_some(log)
    })
    .await;
    let published = log.iter().filter(|entry| entry.kind() == "event").map(|entry| entry["json"].clone());
    assert_eq!(published.collect::<Vec<_>>(), [json!(1), json!(2), json!(3)]);
    subscriber.agrees_with(&log).await;
}

/// Nobody but the sidecar has the lines that it has taken from an agent that numbers nothing.
#[tokio::test]
async fn what_an_agent_has_written_is_there_again_in_its_order_after_a_failover_that_lost_it() {
    let stage = Deployment::with_replicas(1).await;
    let mut lines = post(&stage.sidecar, "application/jsonl").upload().await;
    let mut subscriber = stage.subscriber("s").await;
    for n in 0..4 {
        lines.write(format!("{{\"json\":{n}}}\n")).await;
        subscriber.has(n + 1).await;
        if n == 1 {
            stage.cut_off(1).await;
        }
    }
    stage.fail_over_to(1);
    lines.write("{\"json\":4}\n").await;
    let said = lines.end().await;
    assert_eq!(said.status, 200, "{said:?}");
    let log = stage.sidecar.entries("s").await;
    let numbers: Vec<_> = log.iter().map(|entry| entry["json"].clone()).collect();
    assert_eq!(numbers, (0..5).map(|n| json!(n)).collect::<Vec<_>>());
    subscriber.agrees_with(&log).await;
}
