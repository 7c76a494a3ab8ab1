//! Cancelling: the flags of runs, and the keys that were cancelled before they had one.

use redb::ReadableTable as _;

use super::batch::Batch;
use super::error::Fault;
use super::sessions::Known;
use super::state::{CancelledKey, Run};
use crate::log::{CancelOutcome, CancelRequest, CancelTarget, Cancelled};
use crate::session::{RunId, SessionId};

/// How long a key is remembered that was cancelled before its run was there: 10 minutes.
const REMEMBERED_MS: u64 = 600_000;

/// Keys that a session remembers so; the one that is due first is forgotten for one more.
const REMEMBERED: usize = 1000;

impl Batch<'_> {
    pub(super) fn cancel(&mut self, request: &CancelRequest) -> Result<Cancelled, Fault> {
        let runs = match &request.target {
            CancelTarget::Run(run) => vec![run.clone()],
            CancelTarget::Active => match self.sessions.load(&mut self.tables, &request.session)? {
                Known::Live(state) => state.active.iter().map(|run| run.id.clone()).collect(),
                Known::Gone(_) | Known::Never => Vec::new(),
            },
            CancelTarget::Key(key) => match self.run_of_key(&request.session, key)? {
                Some(run) => vec![run],
                None => {
                    self.remember_key(request, key)?;
                    return Ok(Cancelled::Remembered);
                }
            },
        };
        let outcomes = runs.into_iter().map(|run| {
            let outcome = self.cancel_run(request, &run)?;
            Ok((run, outcome))
        });
        Ok(Cancelled::Runs(outcomes.collect::<Result<_, Fault>>()?))
    }

    fn cancel_run(&mut self, request: &CancelRequest, id: &RunId) -> Result<CancelOutcome, Fault> {
        let row = self.run_row(id)?;
        let Known::Live(state) = self.sessions.load(&mut self.tables, &request.session)? else {
            return Ok(CancelOutcome::NotFound);
        };
        let Some(at) = state.active_run(id) else {
            let ended = row.filter(|row| row.number == state.number).and_then(|row| row.ended?.ended);
            return Ok(match ended {
                Some((offset, state)) => CancelOutcome::AlreadyEnded { offset, state },
                None => CancelOutcome::NotFound,
            });
        };
        let run = &mut state.active[at];
        if run.cancel.is_none() {
            run.cancel = Some(request.by.clone());
            self.changed = true;
        }
        Ok(CancelOutcome::Requested { owner: run.owner.clone() })
    }

    /// The run with this key, active or ended.
    fn run_of_key(&mut self, session: &SessionId, key: &str) -> Result<Option<RunId>, Fault> {
        let Known::Live(state) = self.sessions.load(&mut self.tables, session)? else { return Ok(None) };
        let Some(run) = self.tables.keys.get((state.number, key))? else { return Ok(None) };
        Ok(Some(RunId::from_store(run.value()).map_err(|_| Fault::Damaged("key"))?))
    }

    fn remember_key(&mut self, request: &CancelRequest, key: &str) -> Result<(), Fault> {
        let (from, to) = cancelled_keys(&request.session);
        let mut remembered = Vec::new();
        for row in self.tables.cancels.range(&*from..&*to)? {
            let (name, value) = row?;
            remembered.push((CancelledKey::decode(value.value())?.until_ms, name.value().to_owned()));
        }
        if remembered.len() >= REMEMBERED
            && let Some((_, first_due)) = remembered.into_iter().min()
        {
            self.tables.cancels.remove(&*first_due)?;
        }
        let cancelled = CancelledKey { until_ms: self.now_ms + REMEMBERED_MS, by: request.by.clone() };
        self.tables.cancels.insert(&*cancelled_key(&request.session, key), cancelled.encode().as_slice())?;
        self.changed = true;
        Ok(())
    }

    pub(super) fn forget_cancelled_keys(&mut self, session: &SessionId) -> Result<(), Fault> {
        let (from, to) = cancelled_keys(session);
        Ok(self.tables.cancels.retain_in(&*from..&*to, |_, _| false)?)
    }

    /// Flags a run that is about to open, where its key was cancelled, and notes whose key it is.
    pub(super) fn claim_key(&mut self, session: &SessionId, number: u64, run: &mut Run) -> Result<(), Fault> {
        let Some(key) = &run.key else { return Ok(()) };
        self.tables.keys.insert((number, &**key), run.id.as_str())?;
        if let Some(value) = self.tables.cancels.remove(&*cancelled_key(session, key))? {
            let cancelled = CancelledKey::decode(value.value())?;
            run.cancel = Some(cancelled.by).filter(|_| self.now_ms < cancelled.until_ms);
        }
        Ok(())
    }
}

/// The name of a key in the table of those that were cancelled. An id of a session has no blank.
fn cancelled_key(session: &SessionId, key: &str) -> String {
    format!("{session} {key}")
}

/// From where to where the cancelled keys of a session stand.
fn cancelled_keys(session: &SessionId) -> (String, String) {
    (format!("{session} "), format!("{session}!"))
}
