//! Cancelling: the flags of runs, and what was cancelled before it was there.

use bytestring::ByteString;
use redb::ReadableTable as _;

use super::batch::Batch;
use super::encoding::{put_optional, put_text, put_varint};
use super::error::Fault;
use super::sessions::Known;
use super::state::{FORMAT, Run, decoder};
use crate::log::{CancelOutcome, CancelRequest, CancelTarget, Cancelled};
use crate::session::{RunId, SessionId};

/// How long it is remembered what was cancelled before it was there: 10 minutes.
const REMEMBERED_MS: u64 = 600_000;

/// How much a session remembers so; what is due first is forgotten for one more.
const REMEMBERED: usize = 1000;

/// That a key was cancelled before there was a run of it, or a run before it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EarlyCancel {
    /// Until when that is remembered.
    pub(super) until_ms: u64,
    /// Who asked.
    pub(super) by: ByteString,
    /// Of a key: the run that was withdrawn with it.
    pub(super) withdrawn: Option<RunId>,
}

impl Batch<'_> {
    pub(super) fn cancel(&mut self, request: &CancelRequest) -> Result<Cancelled, Fault> {
        let runs = match &request.target {
            CancelTarget::Run(run) => vec![run.clone()],
            CancelTarget::Active => match self.sessions.load(&mut self.tables, &request.session)? {
                Known::Live(state) => state.active.iter().map(|run| run.id.clone()).collect(),
                Known::Gone(_) | Known::Never => Vec::new(),
            },
            CancelTarget::Key(key) => {
                if let Some(run) = self.withdraw(&request.session, key, &request.by)? {
                    return Ok(Cancelled::Runs(vec![(run, CancelOutcome::Withdrawn)]));
                }
                match self.run_of_key(&request.session, key)? {
                    Some(run) => vec![run],
                    None => {
                        self.remember(&request.session, &key_name(key), &request.by, None)?;
                        return Ok(Cancelled::Remembered);
                    }
                }
            }
        };
        let outcomes = runs.into_iter().map(|run| {
            let outcome = self.cancel_run(request, &run)?;
            Ok((run, outcome))
        });
        Ok(Cancelled::Runs(outcomes.collect::<Result<_, Fault>>()?))
    }

    fn cancel_run(&mut self, request: &CancelRequest, id: &RunId) -> Result<CancelOutcome, Fault> {
        if self.withdraw_run(&request.session, id, &request.by)? {
            return Ok(CancelOutcome::Withdrawn);
        }
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

    /// Remembers that `name` was cancelled before it was there.
    pub(super) fn remember(
        &mut self,
        session: &SessionId,
        name: &str,
        by: &ByteString,
        withdrawn: Option<RunId>,
    ) -> Result<(), Fault> {
        let (from, to) = all_names(session);
        let mut remembered = Vec::new();
        for row in self.tables.cancels.range(&*from..&*to)? {
            let (name, value) = row?;
            remembered.push((EarlyCancel::decode(value.value())?.until_ms, name.value().to_owned()));
        }
        if remembered.len() >= REMEMBERED
            && let Some((_, first_due)) = remembered.into_iter().min()
        {
            self.tables.cancels.remove(&*first_due)?;
        }
        let cancel = EarlyCancel { until_ms: self.now_ms + REMEMBERED_MS, by: by.clone(), withdrawn };
        self.tables.cancels.insert(&*full_name(session, name), cancel.encode().as_slice())?;
        self.changed = true;
        Ok(())
    }

    /// Whether `name` was cancelled before it was there.
    pub(super) fn remembered(&self, session: &SessionId, name: &str) -> Result<Option<EarlyCancel>, Fault> {
        let Some(value) = self.tables.cancels.get(&*full_name(session, name))? else { return Ok(None) };
        let cancel = EarlyCancel::decode(value.value())?;
        Ok(Some(cancel).filter(|cancel| self.now_ms < cancel.until_ms))
    }

    pub(super) fn forget_early_cancels(&mut self, session: &SessionId) -> Result<(), Fault> {
        let (from, to) = all_names(session);
        Ok(self.tables.cancels.retain_in(&*from..&*to, |_, _| false)?)
    }

    /// Flags a run that is about to open, where its key was cancelled, and notes whose key it is.
    pub(super) fn claim_key(&mut self, session: &SessionId, number: u64, run: &mut Run) -> Result<(), Fault> {
        let Some(key) = &run.key else { return Ok(()) };
        self.tables.keys.insert((number, &**key), run.id.as_str())?;
        run.cancel = self.remembered(session, &key_name(key))?.map(|cancel| cancel.by);
        self.tables.cancels.remove(&*full_name(session, &key_name(key)))?;
        Ok(())
    }
}

impl EarlyCancel {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = vec![FORMAT];
        put_varint(&mut value, self.until_ms);
        put_text(&mut value, &self.by);
        put_optional(&mut value, self.withdrawn.as_ref().map(RunId::as_str));
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Fault> {
        let mut from = decoder(value, "early cancel")?;
        let (until_ms, by) = (from.varint()?, from.text()?);
        let withdrawn = match from.optional()? {
            None => None,
            Some(run) => Some(RunId::from_store(&run).map_err(|_| from.damaged())?),
        };
        Ok(EarlyCancel { until_ms, by, withdrawn })
    }
}

/// What a key is called among the early cancels of its session.
pub(super) fn key_name(key: &str) -> String {
    format!("key {key}")
}

/// What a run is called there.
pub(super) fn run_name(run: &RunId) -> String {
    format!("run {run}")
}

/// No id of a session has a blank.
fn full_name(session: &SessionId, name: &str) -> String {
    format!("{session} {name}")
}

/// From where to where all names of a session stand.
fn all_names(session: &SessionId) -> (String, String) {
    (format!("{session} "), format!("{session}!"))
}
