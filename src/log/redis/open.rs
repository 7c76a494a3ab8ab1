//! Opening a run, and finding a run again.

use redis::Cmd;

use super::RedisLog;
use super::append::{answer_of, closed, flags, offset};
use super::fields::{Batch, NONE, RunField, unexpected, word};
use super::supervisor::Lane;
use crate::log::{OnBusy, OpenRun, Opened, RunInfo, Unavailable, Waiting};
use crate::session::{RunId, SessionId};

impl RedisLog {
    pub(super) async fn do_open_run(&self, open: OpenRun) -> Result<Opened, Unavailable> {
        let OpenRun { session, run, owner, nonce, records, parent, key, route, on_busy, subject } = open;
        debug_assert!(!records.is_empty(), "a run has a started entry");
        let keys = self.keys.session(&session);
        let batch = Batch::of(&records, self.options.push_payload_limit);
        let lua = &self.supervisor.scripts().open;
        let answer: Vec<String> = self
            .supervisor
            .call(Lane::Writes, |mut connection, identity| {
                // Before the run is visible, its session can be found. Two keys of two slots: two
                // requests, sent one behind the other on one connection.
                let find = self.set_with_ttl(self.keys.run(&run), session.as_str());
                let mut command = lua.call(&keys.all(), batch.weight());
                self.add_bounds(&mut command, &identity);
                command.arg(run.as_str()).arg(owner.as_str()).arg(word(&nonce));
                command.arg(parent.as_ref().map_or(NONE, RunId::as_str)).arg(word(&route));
                command.arg(key.as_deref().map_or_else(|| NONE.to_owned(), word));
                match &on_busy {
                    OnBusy::Parallel => command.arg(&["parallel", "0", "0", NONE, ""]),
                    OnBusy::Waited => command.arg(&["waited", "0", "0", NONE, ""]),
                    OnBusy::Reject => command.arg(&["reject", "0", "0", NONE, ""]),
                    OnBusy::Queue(Waiting { item, client, limits }) => {
                        command.arg("queue").arg(limits.depth).arg(limits.bytes);
                        command.arg(client.as_deref().map_or_else(|| NONE.to_owned(), word)).arg(&item[..])
                    }
                };
                batch.add_to(&mut command, &records);
                let bind = subject.as_ref().map(|subject| self.binding(&keys, &session, subject, &identity));
                let (mut also, third) = (connection.clone(), connection.clone());
                async move {
                    let binding = async {
                        match &bind {
                            // Where the opening had to be sent again, this came before it.
                            Some(bind) => Ok(bind.send(&third).await? || bind.send(&third).await?),
                            None => Ok(true),
                        }
                    };
                    let opening = lua.send(&command, &mut connection);
                    let (found, opened, bound) = tokio::join!(find.exec_async(&mut also), opening, binding);
                    found.and(bound)?;
                    opened
                }
            })
            .await?;
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
        let ((seconds, micros), [expires, field]) = self
            .supervisor
            .call(Lane::Writes, |mut connection, _| async move {
                pipeline.query_async::<((u64, u64), [Option<String>; 2])>(&mut connection).await
            })
            .await?;
        let now_ms = seconds * 1000 + micros / 1000;
        let live = expires.and_then(|at| at.parse::<u64>().ok()).is_some_and(|at| now_ms < at);
        let info = field.filter(|_| live).as_deref().and_then(RunField::parse);
        Ok(info.map(|RunField { owner, started, last, ended, parent, cancel }| {
            let run = run.clone();
            RunInfo { run, owner, started, last, ended, parent, cancel }
        }))
    }

    pub(super) async fn do_session_of(&self, run: &RunId) -> Result<Option<SessionId>, Unavailable> {
        let command = Cmd::new().arg("GET").arg(self.keys.run(run)).take();
        let session: Option<String> = self
            .supervisor
            .call(Lane::Writes, |mut connection, _| async move { command.query_async(&mut connection).await })
            .await?;
        let Some(session) = session.and_then(|session| SessionId::from_store(&session).ok()) else { return Ok(None) };
        // The name may outlive the run: its session may be erased, or may never have been opened.
        Ok(self.do_run(&session, run).await?.map(|_| session))
    }

    /// `SET key value` for as long as a session is kept.
    pub(super) fn set_with_ttl(&self, key: String, value: &str) -> Cmd {
        Cmd::new().arg("SET").arg(key).arg(value).arg("PX").arg(self.ttl_ms()).take()
    }
}
