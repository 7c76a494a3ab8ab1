//! `cancel`: the flag in the log first, then the owner, then its terminal, and only then the answer.

use bytestring::ByteString;
use tokio::time::{Instant, sleep};

use crate::control::root::{ANSWER_WITHIN, ASK_AGAIN};
use crate::control::{Client, Control};
use crate::log::{CancelOutcome, CancelRequest, CancelTarget, Cancelled};
use crate::server::Problem;
use crate::session::{RunId, SessionId, Terminal};
use crate::telemetry::{CancelAsked, Fact};
use crate::wire::{Cancel, CancelledRun, Code, Outcome, RunName, Target, Upstream};

impl Control {
    /// Ends runs, and says what became of each once it has its terminal. Idempotent.
    ///
    /// # Errors
    /// The store is away, or an end was not seen in time: it stays asked for.
    pub async fn cancel(&self, client: &Client, cancel: Cancel) -> Result<Outcome, Problem> {
        let Cancel { session, target } = cancel;
        let target = match target {
            Target::Run(RunName::Id(run)) => CancelTarget::Run(run),
            Target::Run(RunName::Active) => CancelTarget::Active,
            Target::Key(key) => CancelTarget::Key(key),
        };
        match self.end_runs(client, &session, target).await? {
            Some(runs) => Ok(Outcome::Cancelled(runs)),
            None => Ok(Outcome::CancelledAhead),
        }
    }

    /// Asks for the end of all runs of a session that is about to be erased; does not wait for it.
    ///
    /// # Errors
    /// The store is away.
    pub async fn end_all(&self, session: &SessionId) -> Result<(), Problem> {
        let by = r#"{"reason":"erased"}"#.into();
        let request = CancelRequest { session: session.clone(), target: CancelTarget::Active, by };
        let cancelled = self.log.cancel(request.clone()).await.map_err(Problem::store_unavailable)?;
        if let Cancelled::Runs(outcomes) = cancelled {
            self.tell_own(outcomes.iter().map(|(run, _)| run), &request.by);
        }
        Ok(())
    }

    /// Tells the owners that are here: a shorter way than the command, which they hear as well.
    fn tell_own<'r>(&self, runs: impl Iterator<Item = &'r RunId>, by: &ByteString) {
        for driven in runs.filter_map(|run| self.runs.driven(run)) {
            driven.cancel(by.clone());
        }
    }

    /// What a cancellation came to for each run; `None`: no run has the key yet, and none will.
    pub(super) async fn end_runs(
        &self,
        client: &Client,
        session: &SessionId,
        target: CancelTarget,
    ) -> Result<Option<Vec<CancelledRun>>, Problem> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let run = match &target {
            CancelTarget::Run(run) => Some(run),
            CancelTarget::Active | CancelTarget::Key(_) => None,
        };
        CancelAsked { session, client: &client.name, run }.emit(&self.metrics);
        let request = CancelRequest { session: session.clone(), target, by: client.by() };
        let cancelled = loop {
            match self.log.cancel(request.clone()).await {
                Ok(cancelled) => break cancelled,
                Err(_) if Instant::now() + ASK_AGAIN < deadline => sleep(ASK_AGAIN).await,
                Err(error) => return Err(Problem::store_unavailable(error)),
            }
        };
        let Cancelled::Runs(outcomes) = cancelled else { return Ok(None) };
        let asked: Vec<RunId> = outcomes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, CancelOutcome::Requested { .. }))
            .map(|(run, _)| run.clone())
            .collect();
        self.tell_own(asked.iter(), &request.by);
        let ended = self.settle(session, asked, deadline).await.map_err(Problem::store_unavailable)?;
        outcomes
            .into_iter()
            .map(|(run, outcome)| {
                let (outcome, offset, upstream) = match outcome {
                    CancelOutcome::Requested { .. } => {
                        let Some(end) = ended.iter().find(|end| end.run == run) else {
                            let detail = "the run is flagged and will end; its end was not seen in time, ask again";
                            return Err(Problem::new(Code::NotConfirmed, detail).with("run", run.as_str()));
                        };
                        let upstream = if end.by_owner { Upstream::Closed } else { Upstream::Unknown };
                        match end.state {
                            Terminal::Cancelled => ("cancelled", Some(end.offset), Some(upstream)),
                            _ => ("already_ended", Some(end.offset), None),
                        }
                    }
                    CancelOutcome::AlreadyEnded { offset, .. } => ("already_ended", Some(offset), None),
                    CancelOutcome::Withdrawn => ("withdrawn", None, None),
                    CancelOutcome::NotFound => ("not_found", None, None),
                };
                Ok(CancelledRun { run, outcome, offset, upstream })
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }
}
