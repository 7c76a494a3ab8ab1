//! Two sidecars, agents, callers and subscribers on one store, and a fault that happens to them.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use redis::cmd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::agents::{Act, Agents};
use crate::caller::{Begun, Call};
use crate::deployed::{Deployed, log_key};
use crate::fault::{Fault, Step};
use crate::row::Row;
use crate::scale::Scale;
use crate::subscriber::{Subscriber, Told};
use crate::support::{ClusterFailover, Sidecar, Towards, until, within};
use crate::verdict;

/// How long after the end of everything a reader may need to know all of it.
const CATCHING_UP: Duration = Duration::from_secs(60);

/// A slot that moves is between two nodes for this long, and each of its keys after the one before.
const SLOT_PAUSE: Duration = Duration::from_millis(20);

const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Everything that is on the stage.
pub(crate) struct Scene {
    // Fields are dropped in this order: the sidecars before what they need.
    pub(crate) sidecars: Vec<Sidecar>,
    pub(crate) agents: Agents,
    pub(crate) store: Deployed,
    pub(crate) subscribers: Vec<Subscriber>,
    pub(crate) sessions: Vec<String>,
    told: watch::Sender<Told>,
    /// A server that was killed or frozen, for its return.
    down: Option<usize>,
    /// The primary before anything happened to it.
    first: usize,
    /// When the second sidecar was killed.
    pub(crate) sidecar_killed: Option<Instant>,
}

/// Plays a fault and says what came of it.
pub(crate) async fn play(fault: &Fault, scale: Scale) -> Row {
    let mut scene = Scene::start(fault, scale).await;
    // Of ten runs one begins in the fault, and two end in it.
    let (early, late) = (scale.runs * 7 / 10, scale.runs * 9 / 10);
    let long = scene.runs("long", 0..early);
    let short = scene.runs("short", early..late);
    let mut begun = Vec::new();
    for run in long.into_iter().chain(short) {
        begun.push(run.await.unwrap());
    }
    sleep(scale.calm).await;
    let mut begins = Vec::new();
    for step in fault.steps {
        if let Step::Turn = step {
            // Kept as soon as the store can.
            begins = scene.runs("late", late..scale.runs);
        }
        scene.step(*step).await;
    }
    for run in begins {
        begun.push(within("a run that is kept", run).await.unwrap());
    }
    sleep(scale.calm).await;
    scene.agents.begin(Act::After);
    let logs = scene.everybody_knows_everything(&begun).await;
    scene.told.send_replace(Told::Stop);
    verdict::of(fault, &mut scene, begun, &logs).await
}

impl Scene {
    async fn start(fault: &Fault, scale: Scale) -> Self {
        let store = fault.deployment.start(fault.clock_ahead).await;
        let agents = Agents::start(scale.pace).await;
        let mut sidecars = Vec::new();
        // As it is by default: the rest of the harness lets direct callers wait longer.
        let config = format!("[store]\neager_after = \"250ms\"\nack = \"{}\"", fault.ack);
        for _ in 0..2 {
            let sidecar = Sidecar::of(agents.url()).store(store.url()).config(&config);
            sidecars.push(sidecar.start().await);
        }
        let sessions: Vec<String> = (0..scale.sessions).map(|i| format!("session-{i}")).collect();
        let first = store.primary_of(&sessions[0]).await;
        let (told, hears) = watch::channel(Told::Read);
        let urls = [sidecars[0].url(), sidecars[1].url()];
        let subscribers = (0..scale.subscribers).map(|i| {
            let [a, b] = urls.clone();
            let urls = if (i / scale.sessions).is_multiple_of(2) { [a, b] } else { [b, a] };
            Subscriber::start(sessions[i % scale.sessions].clone(), urls, hears.clone())
        });
        let subscribers = subscribers.collect();
        let (down, sidecar_killed) = (None, None);
        Scene { sidecars, agents, store, subscribers, sessions, told, down, first, sidecar_killed }
    }

    /// Begins runs, half of them through each sidecar; of every other the caller stays.
    fn runs(&self, kind: &'static str, numbers: Range<usize>) -> Vec<JoinHandle<Begun>> {
        let call = |number: usize| {
            // Who comes while one sidecar is being killed goes to the other.
            let sidecar = if kind == "late" { 0 } else { number % 2 };
            let session = self.sessions[number / 2 % self.sessions.len()].clone();
            let url = self.sidecars[sidecar].url();
            Call { sidecar, url, session, kind, number, stays: (number / 2).is_multiple_of(2) }
        };
        numbers.map(|number| tokio::spawn(call(number).begin())).collect()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => sleep(Duration::from_millis(ms)).await,
            Step::Turn => self.agents.begin(Act::During),
            Step::Kill => {
                self.down = Some(self.first);
                self.store.server_mut(self.first).kill();
            }
            Step::Restart => {
                let down = self.down.take().expect("something is down");
                self.store.server_mut(down).restart();
            }
            Step::Freeze => {
                self.down = Some(self.first);
                self.store.server(self.first).freeze();
            }
            Step::Thaw => {
                let down = self.down.take().expect("something is frozen");
                self.store.server(down).thaw();
            }
            Step::Cut => self.store.network().cut(),
            Step::Hole => self.store.network().freeze(),
            Step::Heal => self.store.network().heal(),
            Step::Delay(ms) => {
                for towards in [Towards::Server, Towards::Client] {
                    self.store.network().delay(towards, Duration::from_millis(ms));
                }
            }
            Step::Command(words) => self.command(words).await,
            Step::EverySecond(times, words) => {
                for _ in 0..times {
                    self.command(words).await;
                    sleep(Duration::from_secs(1)).await;
                }
            }
            Step::Fill => self.fill().await,
            Step::KillSidecar => {
                self.sidecar_killed = Some(Instant::now());
                self.sidecars[1].process().kill();
            }
            Step::FailOver => self.fail_over().await,
            Step::Promoted => self.promoted().await,
            Step::Withhold => self.store.server(self.first).withhold_from_replicas().await,
            // The administrator's user is also that of replicas and Sentinels.
            Step::Isolate => self.at_the_first(&["ACL", "SETUSER", "default", "-@all", "+acl", "+client"]).await,
            Step::Rejoin => self.at_the_first(&["ACL", "SETUSER", "default", "+@all"]).await,
            Step::MoveSlots => self.move_slots().await,
            Step::KillReplica => {
                let session = log_key(&self.sessions[0]);
                let cluster = self.store.cluster();
                let replica = cluster.replica_of(cluster.slot_of(&session).await).await;
                cluster.node_mut(replica).kill();
                self.down = Some(replica);
            }
            Step::Settle => self.store.settled().await,
        }
    }

    async fn command(&self, words: &[&str]) {
        let primary = self.store.primary_of(&self.sessions[0]).await;
        let mut client = self.store.server(primary).client().await;
        cmd(words[0]).arg(&words[1..]).query_async::<redis::Value>(&mut client).await.unwrap();
    }

    async fn at_the_first(&self, words: &[&str]) {
        let mut client = self.store.server(self.first).client().await;
        cmd(words[0]).arg(&words[1..]).query_async::<redis::Value>(&mut client).await.unwrap();
        // What is connected already keeps its streams of replication.
        let kill = ["KILL", "TYPE", "replica"];
        cmd("CLIENT").arg(&kill).query_async::<u64>(&mut client).await.unwrap();
    }

    /// `maxmemory` below what is in use.
    async fn fill(&self) {
        let mut client = self.store.server(self.first).client().await;
        let info: String = cmd("INFO").arg("memory").query_async(&mut client).await.unwrap();
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        let limit = used.trim().parse::<u64>().unwrap() / 2;
        self.command(&["CONFIG", "SET", "maxmemory", &limit.to_string()]).await;
    }

    async fn fail_over(&mut self) {
        match &mut self.store {
            Deployed::Sentinel(redis) => drop(redis.fail_over().await),
            Deployed::Cluster(redis) => {
                let slot = redis.slot_of(&log_key(&self.sessions[0])).await;
                redis.fail_over(slot, ClusterFailover::Coordinated).await;
            }
            Deployed::Single(_) | Deployed::Network(..) => panic!("nobody to fail over to"),
        }
    }

    async fn promoted(&mut self) {
        let old = self.first;
        match &mut self.store {
            Deployed::Sentinel(redis) => drop(redis.another_than(old).await),
            Deployed::Cluster(redis) => {
                let slot = redis.slot_of(&log_key(&self.sessions[0])).await;
                until("a promotion", async || (redis.primary_of(slot).await != old).then_some(())).await;
            }
            Deployed::Single(_) | Deployed::Network(..) => panic!("nobody to promote"),
        }
    }

    async fn move_slots(&mut self) {
        let sessions = self.sessions.clone();
        let cluster = self.store.cluster();
        for session in sessions.iter().step_by(2) {
            let slot = cluster.slot_of(&log_key(session)).await;
            let from = cluster.primary_of(slot).await;
            let to = (from + 1) % 3;
            cluster.begin_migration(slot, to).await;
            sleep(SLOT_PAUSE).await;
            cluster.move_keys_slowly(slot, from, to, SLOT_PAUSE).await;
            cluster.end_migration(slot, from, to).await;
        }
    }

    /// Waits until all runs have ended in the log and every subscriber is at its tail; the logs.
    async fn everybody_knows_everything(&self, begun: &[Begun]) -> HashMap<String, Vec<crate::deployed::Stored>> {
        let deadline = Instant::now() + CATCHING_UP;
        loop {
            let mut logs = HashMap::new();
            for session in &self.sessions {
                logs.insert(session.clone(), self.store.log(session).await);
            }
            let at_tail = |subscriber: &Subscriber| {
                let tail = logs[&subscriber.session].last().map(|(offset, _)| *offset);
                subscriber.ledger().at == tail.unwrap_or_default()
            };
            let ended = begun.iter().all(|run| verdict::terminals(&logs[&run.session], &run.run).count() > 0);
            // What does not come in time is for the verdict to say.
            if ended && self.subscribers.iter().all(at_tail) || Instant::now() > deadline {
                return logs;
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}
