//! The faults: what is done to which deployment, step by step. Data; `scene` does it.

use std::time::Duration;

use crate::deployed::Deployment;
use crate::deployed::Deployment::{Cluster, Network, OldSentinel, Sentinel, Single};

/// One row of the table.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// In words, for whoever reads the table.
    pub(crate) what: &'static str,
    pub(crate) deployment: Deployment,
    /// How much the clocks of primaries are ahead of those of their replicas.
    pub(crate) clock_ahead: Duration,
    /// `store.ack`.
    pub(crate) ack: &'static str,
    pub(crate) steps: &'static [Step],
    /// Whether it is over within seconds, so that it may be played with the other tests.
    pub(crate) quick: bool,
}

/// What is done, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Lets time pass, in milliseconds.
    Wait(u64),
    /// Streams of the kind that ends in the fault end now, and others begin.
    Turn,
    /// `kill -9` of the primary of the first session.
    Kill,
    /// Starts again what was killed, with its data.
    Restart,
    /// SIGSTOP of the primary of the first session.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// The network between sidecars and Redis closes and refuses connections.
    Cut,
    /// The network swallows everything.
    Hole,
    /// The network is whole.
    Heal,
    /// The network delays everything, in milliseconds each way.
    Delay(u64),
    /// An administrator's command at the primary.
    Command(&'static [&'static str]),
    /// The same so often, a second apart.
    EverySecond(u32, &'static [&'static str]),
    /// `maxmemory` below what is in use.
    Fill,
    /// `kill -9` of the second sidecar.
    KillSidecar,
    /// A Sentinel, or the replica of the first session's slot, is told to fail over; all agree afterwards.
    FailOver,
    /// Waits until the servers have promoted somebody by themselves.
    Promoted,
    /// From now on replicas of the first session's primary get nothing.
    Withhold,
    /// The slots of half of the sessions move to another primary.
    MoveSlots,
    /// The primary serves the sidecars and nobody else: Sentinels and replicas take it for dead.
    Isolate,
    /// It is what it was, for everybody.
    Rejoin,
    /// `kill -9` of the replica of the first session's primary.
    KillReplica,
    /// Waits until the deployment is whole.
    Settle,
}

impl Fault {
    /// Whether the store stays as it is: then the runs of a sidecar that dies end within seconds. Otherwise the
    /// others first make sure that it is not the store that was away.
    pub(crate) fn spares_the_store(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Turn | Wait(_) | KillSidecar))
    }

    /// Whether there is a server that answers at every moment: then subscribers never wait for long.
    pub(crate) fn leaves_a_server(&self) -> bool {
        self.steps.iter().all(|step| match step {
            Turn | Wait(_) | Delay(_) | EverySecond(..) | KillSidecar | MoveSlots | Settle => true,
            // Of these the replica is started again.
            KillReplica | Restart => self.steps.iter().any(|step| matches!(step, KillReplica)),
            Command(words) => words[0] == "FLUSHALL",
            _ => false,
        })
    }
}

use Step::*;

const STILL: Duration = Duration::ZERO;
const SECONDS: u64 = 1_000;

/// Every fault that is played.
pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        quick: true,
        ..single("none", "Nothing fails: what the rest is compared with.", &[Wait(2 * SECONDS), Turn])
    },
    Fault {
        quick: true,
        ..single(
            "redis-killed",
            "`kill -9` of Redis; started again after 5 s with its data (`appendonly yes`).",
            &[Kill, Wait(SECONDS), Turn, Wait(4 * SECONDS), Restart],
        )
    },
    single(
        "redis-killed-30s",
        "The same, started again after 30 s.",
        &[Kill, Wait(2 * SECONDS), Turn, Wait(28 * SECONDS), Restart],
    ),
    single("redis-frozen", "SIGSTOP of Redis for 10 s.", &[Freeze, Wait(2 * SECONDS), Turn, Wait(8 * SECONDS), Thaw]),
    network(
        "network-cut-1s",
        "The connections between sidecars and Redis are closed and refused for 1 s.",
        &[Cut, Wait(500), Turn, Wait(500), Heal],
    ),
    network("network-cut-30s", "The same for 30 s.", &[Cut, Wait(2 * SECONDS), Turn, Wait(28 * SECONDS), Heal]),
    network(
        "network-hole-10s",
        "The network between sidecars and Redis swallows everything for 10 s; nothing is refused.",
        &[Hole, Wait(2 * SECONDS), Turn, Wait(8 * SECONDS), Heal],
    ),
    network(
        "network-slow",
        "50 ms each way between sidecars and Redis for 10 s.",
        &[Delay(50), Wait(2 * SECONDS), Turn, Wait(8 * SECONDS), Delay(0)],
    ),
    single(
        "pubsub-killed",
        "`CLIENT KILL TYPE pubsub` every second, 10 times.",
        &[
            EverySecond(5, &["CLIENT", "KILL", "TYPE", "pubsub"]),
            Turn,
            EverySecond(5, &["CLIENT", "KILL", "TYPE", "pubsub"]),
        ],
    ),
    single(
        "scripts-flushed",
        "`SCRIPT FLUSH` every second, 10 times.",
        &[EverySecond(5, &["SCRIPT", "FLUSH"]), Turn, EverySecond(5, &["SCRIPT", "FLUSH"])],
    ),
    Fault {
        quick: true,
        ..single(
            "flushed",
            "`FLUSHALL`: everything is gone.",
            &[Command(&["FLUSHALL"]), Wait(2 * SECONDS), Turn, Wait(3 * SECONDS)],
        )
    },
    single(
        "memory-full",
        "`maxmemory` below what is in use for 10 s (`noeviction`).",
        &[Fill, Wait(2 * SECONDS), Turn, Wait(8 * SECONDS), Command(&["CONFIG", "SET", "maxmemory", "0"])],
    ),
    single(
        "access-revoked",
        "The sidecars' user may do nothing for 10 s, and its connections are closed.",
        &[
            Command(&["ACL", "SETUSER", "side", "off"]),
            Command(&["CLIENT", "KILL", "USER", "side"]),
            Wait(2 * SECONDS),
            Turn,
            Wait(8 * SECONDS),
            Command(&["ACL", "SETUSER", "side", "on"]),
        ],
    ),
    Fault {
        quick: true,
        ..single(
            "sidecar-killed",
            "`kill -9` of one sidecar: its runs are interrupted, its subscribers go to the other.",
            &[Turn, KillSidecar, Wait(6 * SECONDS)],
        )
    },
    sentinel("sentinel-failover", "`SENTINEL FAILOVER`.", &[FailOver, Turn, Wait(2 * SECONDS), Settle]),
    sentinel(
        "sentinel-primary-killed",
        "`kill -9` of the primary; the Sentinels promote a replica; the old one comes back as a replica.",
        &[Kill, Wait(SECONDS), Turn, Promoted, Restart, Settle],
    ),
    sentinel(
        "sentinel-primary-frozen",
        "SIGSTOP of the primary until the Sentinels have promoted a replica and 3 s longer.",
        &[Freeze, Wait(SECONDS), Turn, Promoted, Wait(3 * SECONDS), Thaw, Settle],
    ),
    Fault {
        quick: true,
        ..sentinel(
            "sentinel-tail-lost",
            "The primary is killed 2 s after its replicas got their last byte: what is promoted lacks 2 s.",
            &[Withhold, Wait(SECONDS), Turn, Wait(SECONDS), Kill, Promoted, Restart, Settle],
        )
    },
    Fault {
        clock_ahead: Duration::from_secs(10),
        ..sentinel(
            "sentinel-tail-lost-clock-behind",
            "As `sentinel-tail-lost`, and the clock of what is promoted is 10 s behind.",
            &[Withhold, Wait(SECONDS), Turn, Wait(SECONDS), Kill, Promoted, Restart, Settle],
        )
    },
    sentinel(
        "sentinel-tail-lost-deaf",
        "As `sentinel-tail-lost`, while subscriptions are cut every second and have to be rebuilt.",
        &[
            Withhold,
            EverySecond(1, &["CLIENT", "KILL", "TYPE", "pubsub"]),
            Turn,
            EverySecond(1, &["CLIENT", "KILL", "TYPE", "pubsub"]),
            Kill,
            Promoted,
            EverySecond(3, &["CLIENT", "KILL", "TYPE", "pubsub"]),
            Restart,
            Settle,
        ],
    ),
    sentinel(
        "sentinel-partition",
        "Sentinels and replicas cannot reach the primary, the sidecars can; 3 s after the promotion it is reached again.",
        &[Isolate, Wait(500), Turn, Promoted, Wait(3 * SECONDS), Rejoin, Settle],
    ),
    sentinel(
        "sentinel-tail-lost-with-its-owner",
        "The tail is lost, and so is one of the sidecars that wrote it.",
        &[
            Withhold,
            Wait(SECONDS),
            Turn,
            Wait(SECONDS),
            KillSidecar,
            Kill,
            Promoted,
            Restart,
            Settle,
            Wait(6 * SECONDS),
        ],
    ),
    Fault {
        ack: "replicated",
        ..sentinel(
            "sentinel-tail-lost-replicated",
            "As `sentinel-tail-lost`, with `store.ack = \"replicated\"`: nobody has seen what no replica had.",
            &[Withhold, Wait(SECONDS), Turn, Wait(SECONDS), Kill, Promoted, Restart, Settle],
        )
    },
    Fault {
        ack: "replicated",
        ..sentinel(
            "sentinel-partition-replicated",
            "As `sentinel-partition`, with `store.ack = \"replicated\"`.",
            &[Isolate, Wait(500), Turn, Promoted, Wait(3 * SECONDS), Rejoin, Settle],
        )
    },
    Fault {
        ack: "replicated",
        ..sentinel(
            "sentinel-tail-lost-with-its-owner-replicated",
            "As `sentinel-tail-lost-with-its-owner`, with `store.ack = \"replicated\"`.",
            &[
                Withhold,
                Wait(SECONDS),
                Turn,
                Wait(SECONDS),
                KillSidecar,
                Kill,
                Promoted,
                Restart,
                Settle,
                Wait(6 * SECONDS),
            ],
        )
    },
    Fault {
        deployment: OldSentinel,
        ..sentinel(
            "redis-6.2-failover",
            "`SENTINEL FAILOVER`, all of Redis 6.2.",
            &[FailOver, Turn, Wait(2 * SECONDS), Settle],
        )
    },
    Fault {
        deployment: OldSentinel,
        ..sentinel(
            "redis-6.2-tail-lost",
            "As `sentinel-tail-lost`, all of Redis 6.2.",
            &[Withhold, Wait(SECONDS), Turn, Wait(SECONDS), Kill, Promoted, Restart, Settle],
        )
    },
    cluster("cluster-failover", "`CLUSTER FAILOVER` at a replica.", &[FailOver, Turn, Wait(2 * SECONDS), Settle]),
    cluster(
        "cluster-primary-killed",
        "`kill -9` of a primary; its replica is promoted; the old one comes back as a replica.",
        &[Kill, Wait(SECONDS), Turn, Promoted, Restart, Settle],
    ),
    cluster(
        "cluster-tail-lost",
        "A primary is killed 2 s after its replica got its last byte.",
        &[Withhold, Wait(SECONDS), Turn, Wait(SECONDS), Kill, Promoted, Restart, Settle],
    ),
    Fault {
        ack: "replicated",
        ..cluster(
            "cluster-tail-lost-replicated",
            "As `cluster-tail-lost`, with `store.ack = \"replicated\"`.",
            &[Withhold, Wait(SECONDS), Turn, Wait(SECONDS), Kill, Promoted, Restart, Settle],
        )
    },
    Fault {
        clock_ahead: Duration::from_secs(10),
        ..cluster(
            "cluster-tail-lost-clock-behind",
            "As `cluster-tail-lost`, and the clock of what is promoted is 10 s behind.",
            &[Withhold, Wait(SECONDS), Turn, Wait(SECONDS), Kill, Promoted, Restart, Settle],
        )
    },
    cluster(
        "cluster-primary-frozen",
        "SIGSTOP of a primary until its replica is promoted and 3 s longer.",
        &[Freeze, Wait(SECONDS), Turn, Promoted, Wait(3 * SECONDS), Thaw, Settle],
    ),
    cluster(
        "cluster-slots-moved",
        "The slots of half of the sessions move to other primaries, key by key, one after the other.",
        &[Turn, MoveSlots, Settle],
    ),
    cluster(
        "cluster-flaps",
        "`CLUSTER FAILOVER` there and back, three times.",
        &[
            FailOver,
            Wait(SECONDS),
            FailOver,
            Turn,
            FailOver,
            Wait(SECONDS),
            FailOver,
            FailOver,
            Wait(500),
            FailOver,
            Settle,
        ],
    ),
    cluster(
        "cluster-replica-killed",
        "`kill -9` of a replica, for 5 s.",
        &[KillReplica, Wait(2 * SECONDS), Turn, Wait(3 * SECONDS), Restart, Settle],
    ),
];

const fn single(name: &'static str, what: &'static str, steps: &'static [Step]) -> Fault {
    Fault { name, what, deployment: Single, clock_ahead: STILL, ack: "memory", steps, quick: false }
}

const fn network(name: &'static str, what: &'static str, steps: &'static [Step]) -> Fault {
    Fault { deployment: Network, ..single(name, what, steps) }
}

const fn sentinel(name: &'static str, what: &'static str, steps: &'static [Step]) -> Fault {
    Fault { deployment: Sentinel, ..single(name, what, steps) }
}

const fn cluster(name: &'static str, what: &'static str, steps: &'static [Step]) -> Fault {
    Fault { deployment: Cluster, ..single(name, what, steps) }
}
