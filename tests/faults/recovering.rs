//! Known failure 26: recovering clients each scan one stream that all share, and none catches up.
//!
//! Everybody was away, and so was the store; much was written meanwhile; all come back in the same
//! moment. `FAULTS_SCALE=full` makes it 2,000 clients.

use std::time::{Duration, Instant};

use redis::cmd;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::deployed::{Deployed, Deployment, log_key};
use crate::subscriber::{Subscriber, Told};
use crate::support::{Ask, Sidecar, until};
use crate::verdict;

/// How many come back at once, to how many sessions, and how many entries each has missed.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    clients: usize,
    sessions: usize,
    missed: usize,
}

/// Within which time all of them know everything.
const CAUGHT_UP: Duration = Duration::from_secs(30);

/// What the sidecars may need for it, each, above what they had before; bytes.
const MEMORY: u64 = 256 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_back_in_one_moment_catches_up() {
    comes_back(Crowd { clients: 200, sessions: 10, missed: 200 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "2,000 clients: scripts/faults --crowd"]
async fn two_thousand_clients_that_come_back_in_one_moment_catch_up() {
    comes_back(Crowd { clients: 2_000, sessions: 50, missed: 500 }).await;
}

async fn comes_back(crowd: Crowd) {
    let store = Deployment::Network.start(Duration::ZERO).await;
    let mut sidecars = Vec::new();
    for _ in 0..2 {
        // Nothing is asked of the upstream: clients write. What is kept in memory is less than what was missed.
        let sidecar = Sidecar::of("http://127.0.0.1:9").store(store.url()).config("[limits]\nring_bytes = \"16KiB\"");
        sidecars.push(sidecar.start().await);
    }
    let sessions: Vec<String> = (0..crowd.sessions).map(|i| format!("session-{i}")).collect();
    write(&sidecars[0], &sessions, 20).await;
    let (told, hears) = watch::channel(Told::Read);
    let clients: Vec<Subscriber> = (0..crowd.clients)
        .map(|i| {
            let (own, other) = (&sidecars[i / crowd.sessions % 2], &sidecars[(i / crowd.sessions + 1) % 2]);
            Subscriber::start(sessions[i % crowd.sessions].clone(), [own.url(), other.url()], hears.clone())
        })
        .collect();
    all_know(&clients, 20).await;

    told.send_replace(Told::Leave);
    store.network().cut();
    sleep(Duration::from_secs(1)).await;
    store.network().heal();
    for sidecar in &sidecars {
        until("the store", async || (sidecar.health("/readyz").await.status == 200).then_some(())).await;
    }
    write(&sidecars[0], &sessions, crowd.missed).await;
    let before: Vec<u64> = sidecars.iter_mut().map(|sidecar| sidecar.process().peak_memory()).collect();
    let pages = reads(&store).await;

    let begun = Instant::now();
    told.send_replace(Told::Read);
    all_know(&clients, 20 + crowd.missed).await;
    let caught_up = begun.elapsed();
    // They are not only at the end of the past.
    write(&sidecars[1], &sessions, 1).await;
    all_know(&clients, 21 + crowd.missed).await;

    let pages = reads(&store).await - pages;
    let grown = sidecars.iter_mut().zip(before).map(|(sidecar, before)| sidecar.process().peak_memory() - before).max();
    let grown = grown.unwrap();
    told.send_replace(Told::Stop);
    println!(
        "{crowd:?}: caught up after {caught_up:?}; {pages} reads of the store; {} MiB more in a sidecar",
        grown >> 20
    );
    for client in &clients {
        let log = store.log(&client.session).await;
        let ledger = client.ledger();
        assert_eq!(ledger.wrong, Vec::<String>::new());
        assert_eq!(ledger.view, log.iter().map(verdict::entry).collect::<Vec<_>>(), "{}", log_key(&client.session));
    }
    assert!(caught_up < CAUGHT_UP, "{caught_up:?}");
    assert!(grown < MEMORY, "{} MiB", grown >> 20);
    // Fewer than one for two clients: they share what they read.
    assert!(pages < crowd.clients as u64 / 2, "{pages} reads");
}

/// So many events in every session.
async fn write(sidecar: &Sidecar, sessions: &[String], events: usize) {
    let line = format!("{{\"data\":\"{}\"}}\n", "token ".repeat(20));
    for session in sessions {
        let path = format!("/_sidestream/v1/sessions/{session}/events");
        let ask = Ask::new(http::Method::POST, &sidecar.url(), path);
        let ask = ask.header("content-type", "application/x-ndjson").body(line.repeat(events));
        let answer = ask.send().await;
        let status = answer.status;
        assert_eq!(status, 200, "{}", answer.json().await);
    }
}

async fn all_know(clients: &[Subscriber], entries: usize) {
    until("everybody to know everything", async || {
        clients.iter().all(|client| client.ledger().view.len() == entries).then_some(())
    })
    .await;
}

/// How often the log was read: by its script, or directly.
async fn reads(store: &Deployed) -> u64 {
    let info: String = cmd("INFO").arg("commandstats").query_async(&mut store.server(0).client().await).await.unwrap();
    let calls = |line: &str| line.split_once("calls=")?.1.split_once(',')?.0.parse::<u64>().ok();
    info.lines().filter(|line| line.starts_with("cmdstat_xrange:")).filter_map(calls).sum()
}
