//! Opening a run, and finding a run again.

use redis::Cmd;

use super::RedisLog;
use super::append::{answer_of, closed, flags, offset};
use super::fields::{Batch, Clock, NONE, RunField, now_ms, unexpected, word};
use super::link::Lane;
use super::slots::Slot;
use crate::log::{OnBusy, OpenRun, Opened, RunInfo, Unavailable, Waiting};
use crate::session::{RunId, SessionId};

impl RedisLog {
    pub(super) async fn do_open_run(&self, open: OpenRun) -> Result<Opened, Unavailable> {
        let OpenRun { session, run, owner, nonce, records, parent, key, route, on_busy, subject } = open;
        debug_assert!(!records.is_empty(), "a run has a started entry");
        let keys = self.keys.session(&session);
        let batch = Batch::of(&records, self.options.push_payload_limit);
        let lua = &self.servers.scripts().open;
        let opening = self.session_script::<Vec<String>>(&keys, lua, batch.weight(), |command| {
            command.arg(run.as_str()).arg(owner.as_str()).arg(word(&nonce));
            command.arg(parent.as_ref().map_or(NONE, RunId::as_str)).arg(word(&route));
            command.arg(key.as_deref().map_or_else(|| NONE.to_owned(), word));
            match &on_busy {
                OnBusy::Parallel => command.arg(&["parallel", "0", "0", NONE, ""]),
                OnBusy::Again => command.arg(&["again", "0", "0", NONE, ""]),
                OnBusy::Waited => command.arg(&["waited", "0", "0", NONE, ""]),
                OnBusy::Reject => command.arg(&["reject", "0", "0", NONE, ""]),
                OnBusy::Queue(Waiting { item, client, limits }) => {
                    command.arg("queue").arg(limits.depth).arg(limits.bytes);
                    command.arg(client.as_deref().map_or_else(|| NONE.to_owned(), word)).arg(&item[..])
                }
            };
            batch.add_to(command, &records);
        });
        let binding = async {
            match &subject {
                Some(subject) => self.do_bind(&session, subject).await,
                None => Ok(true),
            }
        };
        // Before the run is visible, its session can be found. On one connection requests keep their order.
        let (found, answer, bound) = match self.servers.is_sharded() {
            true => (self.find_by(&run, &session).await, opening.await, Ok(false)),
            false => tokio::join!(self.find_by(&run, &session), opening, binding),
        };
        found?;
        let answer = answer?;
        if let Some(subject) = subject.as_ref().filter(|_| !matches!(bound, Ok(true))) {
            // It came before the session was there.
            self.do_bind(&session, subject).await?;
        }
        match answer_of(&answer)[..] {
            ["stored", first, last, prev, published, cancel] => {
                let started = self.heard(offset(last)?);
                self.stored(&session, &keys, prev, offset(first)?, published, records, 0)?;
                Ok(Opened::Open { started, flags: flags(cancel) })
            }
            ["opened", started, cancel] => {
                Ok(Opened::Open { started: self.heard(offset(started)?), flags: flags(cancel) })
            }
            ["queued", position] => {
                Ok(Opened::Queued { position: position.parse().map_err(|_| unexpected("the open script"))? })
            }
            ["queue_full"] => Ok(Opened::QueueFull),
            ["busy", ref runs @ ..] => {
                let runs = runs.iter().map(|run| RunId::from_store(run).map_err(|_| unexpected("the open script")));
                Ok(Opened::Busy { runs: runs.collect::<Result<_, _>>()? })
            }
            ["fenced"] => Ok(Opened::Fenced),
            ref other => Ok(Opened::Closed(closed(other)?)),
        }
    }

    pub(super) async fn do_run(&self, session: &SessionId, run: &RunId) -> Result<Option<RunInfo>, Unavailable> {
        let keys = self.keys.session(session);
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        pipeline.cmd("HMGET").arg(&keys.meta).arg("expires").arg(format!("run:{run}"));
        let (clock, [expires, field]) =
            self.servers.pipeline::<(Clock, [Option<String>; 2])>(keys.slot, Lane::Writes, &pipeline).await?;
        let live = expires.and_then(|at| at.parse::<u64>().ok()).is_some_and(|at| now_ms(clock) < at);
        let info = field.filter(|_| live).as_deref().and_then(RunField::parse);
        Ok(info.map(|RunField { owner, started, last, ended, parent, cancel }| {
            let run = run.clone();
            RunInfo { run, owner, started, last, ended, parent, cancel }
        }))
    }

    pub(super) async fn do_session_of(&self, run: &RunId) -> Result<Option<SessionId>, Unavailable> {
        let key = self.keys.run(run);
        let command = Cmd::new().arg("GET").arg(&key).take();
        let session: Option<String> = self.servers.command(Slot::of(&key), Lane::Writes, &command).await?;
        let Some(session) = session.and_then(|session| SessionId::from_store(&session).ok()) else { return Ok(None) };
        // The name may outlive the run: its session may be erased, or may never have been opened.
        Ok(self.do_run(&session, run).await?.map(|_| session))
    }

    /// Has the session of a run be found by the run's id, for as long as a session is kept.
    async fn find_by(&self, run: &RunId, session: &SessionId) -> Result<(), Unavailable> {
        let key = self.keys.run(run);
        let set = Cmd::new().arg("SET").arg(&key).arg(session.as_str()).arg("PX").arg(self.ttl_ms()).take();
        self.servers.command(Slot::of(&key), Lane::Writes, &set).await
    }
}
