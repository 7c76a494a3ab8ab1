//! Cancelling: the flag in the session's slot first, then the owner's mailbox.

use futures_util::future::try_join_all;

use super::RedisLog;
use super::append::offset;
use super::fields::{unexpected, word};
use crate::log::{CancelOutcome, CancelRequest, CancelTarget, Cancelled, Command, Unavailable};
use crate::session::{InstanceId, RunId, SessionId, Terminal};

impl RedisLog {
    pub(super) async fn do_cancel(&self, request: CancelRequest) -> Result<Cancelled, Unavailable> {
        let CancelRequest { session, target, by } = request;
        let (target, name) = match &target {
            CancelTarget::Run(run) => ("run", run.as_str().to_owned()),
            CancelTarget::Active => ("active", String::new()),
            CancelTarget::Key(key) => ("key", word(key)),
        };
        let answer = self.ask_to_cancel(&session, target, &name, &by).await?;
        let runs = match answer.split_first() {
            Some((first, [])) if first == "remembered" => return Ok(Cancelled::Remembered),
            Some((first, rest)) if first == "runs" => rest,
            _ => return Err(unexpected("the cancel script")),
        };
        let runs = runs.chunks(4).map(outcome).collect::<Result<Vec<_>, _>>()?;
        // A dead owner hears nothing: who takes its runs over finds the flag.
        try_join_all(runs.iter().filter_map(|(run, outcome)| match outcome {
            CancelOutcome::Requested { owner } => {
                let command = Command::Cancel { session: session.clone(), run: run.clone(), by: by.clone() };
                Some(self.do_command(owner, command))
            }
            _ => None,
        }))
        .await?;
        Ok(Cancelled::Runs(runs))
    }

    /// Calls the script.
    pub(super) async fn ask_to_cancel(
        &self,
        session: &SessionId,
        target: &str,
        name: &str,
        by: &str,
    ) -> Result<Vec<String>, Unavailable> {
        let keys = self.keys.session(session);
        let lua = &self.servers.scripts().cancel;
        self.session_script(&keys, lua, (8, by.len() + 512), |command| {
            command.arg(target).arg(name).arg(by);
        })
        .await
    }
}

fn outcome(words: &[String]) -> Result<(RunId, CancelOutcome), Unavailable> {
    let strange = || unexpected("the cancel script");
    let [run, outcome, a, b] = words else { return Err(strange()) };
    let outcome = match &**outcome {
        "requested" => CancelOutcome::Requested { owner: InstanceId::from_store(a).map_err(|_| strange())? },
        "ended" => CancelOutcome::AlreadyEnded { offset: offset(a)?, state: Terminal::parse(b).ok_or_else(strange)? },
        "withdrawn" => CancelOutcome::Withdrawn,
        "none" => CancelOutcome::NotFound,
        _ => return Err(strange()),
    };
    Ok((RunId::from_store(run).map_err(|_| strange())?, outcome))
}
