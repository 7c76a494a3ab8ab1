//! How the process leaves: a value that is handed to everything that has to know. Phases only go
//! forward: serving, draining (no new work; what runs may end), closing (stop now).
//!
//! This module decides nothing about deadlines; `app` does, from `[shutdown]` of the configuration.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// How far the process has gone in leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    Serving,
    /// Somebody asked it to leave: take on nothing new, let end what runs.
    Draining,
    /// The time is over: stop at the next possible point.
    Closing,
}

/// The one value through which everything learns that it has to leave. Clones are the same.
#[derive(Clone, Debug)]
pub struct Shutdown {
    phase: watch::Sender<Phase>,
    hasty: Arc<AtomicBool>,
    tracker: TaskTracker,
}

impl Shutdown {
    /// Serving.
    pub fn new() -> Self {
        Shutdown {
            phase: watch::Sender::new(Phase::Serving),
            hasty: Arc::new(AtomicBool::new(false)),
            tracker: TaskTracker::new(),
        }
    }

    /// Begins the drain; nothing happens where it has begun. `true`: this call began it.
    pub fn begin(&self) -> bool {
        self.advance(Phase::Draining)
    }

    /// Whether a person waits at a terminal (SIGINT): then nothing is waited for that is only there
    /// for load balancers and for clients to spread out.
    pub fn is_hasty(&self) -> bool {
        self.hasty.load(Ordering::Acquire)
    }

    /// Ends the drain: what still runs has to stop. Goes through `Draining` where nothing began it.
    /// `true`: this call ended it.
    pub fn close(&self) -> bool {
        self.advance(Phase::Closing)
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Returns once the drain has begun.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns once it is time to stop.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    /// Tasks that the process waits for before it exits are spawned on it. It has no bound of its
    /// own: whoever spawns is bounded by `limits`.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// From now on SIGTERM and SIGINT begin the drain, and a second one ends the process at once
    /// with the exit code 128 + the signal's number.
    ///
    /// # Errors
    /// Where the handlers cannot be installed.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn install_signals(&self) -> io::Result<()> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        // Not on the tracker: it must outlive everything that may hang.
        tokio::spawn(async move { shutdown.obey(terminate, interrupt).await });
        Ok(())
    }

    async fn obey(&self, mut terminate: Signal, mut interrupt: Signal) {
        let mut asked = false;
        loop {
            let (name, number) = tokio::select! {
                Some(()) = terminate.recv() => ("SIGTERM", 15),
                Some(()) = interrupt.recv() => ("SIGINT", 2),
                else => return,
            };
            if asked {
                tracing::warn!(signal = name, "second signal: leaving at once");
                exit_now(128 + number);
            }
            asked = true;
            self.hasty.store(name == "SIGINT", Ordering::Release);
            tracing::info!(signal = name, "draining; a second signal ends the process at once");
            self.begin();
        }
    }

    fn advance(&self, to: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let forward = *phase < to;
            if forward {
                *phase = to;
            }
            forward
        })
    }

    async fn reached(&self, wanted: Phase) {
        // An error would mean that the sender is gone, but it is held here.
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= wanted).await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown::new()
    }
}

#[expect(clippy::disallowed_methods, reason = "the operator asked twice: nothing may hold the process any more")]
fn exit_now(code: i32) -> ! {
    std::process::exit(code)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_the_drain_hears_of_it_even_if_it_comes_late() {
        let shutdown = Shutdown::new();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.draining().await }
        });
        assert!(shutdown.begin());
        waiting.await.unwrap();
        shutdown.draining().await;
        assert_eq!(shutdown.phase(), Phase::Draining);
    }

    #[tokio::test]
    async fn phases_only_go_forward() {
        let shutdown = Shutdown::new();
        assert!(shutdown.close());
        assert!(!shutdown.begin() && !shutdown.close());
        assert_eq!(shutdown.phase(), Phase::Closing);
        shutdown.draining().await;
        shutdown.closing().await;
    }

    /// Set in the child process in which a test runs itself again.
    const CHILD: &str = "SHUTDOWN_TEST_CHILD";

    #[tokio::test]
    async fn one_signal_begins_the_drain_and_the_second_ends_the_process_at_once() {
        if std::env::var_os(CHILD).is_some() {
            let shutdown = Shutdown::new();
            shutdown.install_signals().unwrap();
            println!("\nserving");
            shutdown.draining().await;
            println!("\ndraining");
            shutdown.closing().await;
            unreachable!("nobody closes");
        }
        for (name, code) in [("TERM", 143), ("INT", 130)] {
            let mut child = child("one_signal_begins_the_drain_and_the_second_ends_the_process_at_once");
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
            assert!(lines.any(|line| line == "serving"));
            kill(&child, name);
            assert!(lines.any(|line| line == "draining"));
            kill(&child, name);
            assert_eq!(child.wait().unwrap().code(), Some(code));
        }
    }

    fn child(test: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("shutdown::tests::{test}"), "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn kill(child: &Child, signal: &str) {
        let killed = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap();
        assert!(killed.success());
    }
}
