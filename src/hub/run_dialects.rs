//! Which dialect each run of a session speaks: its `started` entry says so, or its first events show it.
//! What a reader that begins in the middle of a run needs is looked up in the log, once.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Deserialize;

use crate::dialect::{Dialect, Dialects, RECOGNISED_WITHIN};
use crate::log::{Log, PageLimits, Read, Unavailable};
use crate::session::{Entry, Kind, Offset, Record, RunId, RunState, SessionId};

/// Runs that are remembered; the one that was met first is forgotten, and looked up when it comes again.
const RUNS: usize = 64;

/// Pages that are read for the first events of a run, which stand among those of others. A run that has
/// not shown its dialect by then is not merged.
const PAGES: usize = 4;

/// The dialects of the runs that one reader meets.
pub struct RunDialects {
    log: Arc<dyn Log>,
    dialects: Arc<Dialects>,
    session: SessionId,
    known: VecDeque<(RunId, Spoken)>,
    /// The run of the entry before.
    recent: usize,
}

/// What is known of a run's dialect.
#[derive(Clone, Debug)]
enum Spoken {
    Is(Arc<Dialect>),
    Unknown,
    /// So many of its events, up to this offset, have not shown it.
    Undecided(u64, Offset),
}

/// What a `started` entry says of it.
#[derive(Default, Deserialize)]
struct Details {
    dialect: Option<String>,
}

impl RunDialects {
    /// Nothing is known yet.
    pub fn new(log: Arc<dyn Log>, dialects: Arc<Dialects>, session: SessionId) -> Self {
        RunDialects { log, dialects, session, known: VecDeque::new(), recent: 0 }
    }

    /// The dialect of a run whose entries were met; `None`: nobody knows.
    pub fn of(&self, run: &RunId) -> Option<Arc<Dialect>> {
        match &self.known[self.find(run)?].1 {
            Spoken::Is(dialect) => Some(dialect.clone()),
            Spoken::Unknown | Spoken::Undecided(..) => None,
        }
    }

    /// Meets an entry, in the order of the log. Cancel-safe: it may be met again.
    pub async fn meet(&mut self, entry: &Entry) {
        let record = &entry.record;
        let Some(run) = &record.run else { return };
        if record.state() == Some(RunState::Started) {
            let spoken = self.named(record, entry.offset);
            return self.remember(run, spoken);
        }
        if record.kind != Kind::Event {
            return;
        }
        match self.find(run) {
            Some(at) => {
                self.recent = at;
                if let Spoken::Undecided(..) = self.known[at].1 {
                    let spoken = hear(&self.dialects, self.known[at].1.clone(), entry);
                    self.known[at].1 = spoken;
                }
            }
            None => {
                // Where the store does not answer the run is read as it is.
                let spoken = self.look_up(run).await.unwrap_or(Spoken::Unknown);
                self.remember(run, hear(&self.dialects, spoken, entry));
            }
        }
    }

    fn find(&self, run: &RunId) -> Option<usize> {
        let is = |(known, _): &(RunId, Spoken)| known == run;
        match self.known.get(self.recent).is_some_and(is) {
            true => Some(self.recent),
            false => self.known.iter().position(is),
        }
    }

    fn remember(&mut self, run: &RunId, spoken: Spoken) {
        match self.find(run) {
            Some(at) => self.known[at].1 = spoken,
            None => {
                if self.known.len() == RUNS {
                    self.known.pop_front();
                }
                self.known.push_back((run.clone(), spoken));
            }
        }
    }

    /// What the `started` entry at `offset` says.
    fn named(&self, record: &Record, offset: Offset) -> Spoken {
        match serde_json::from_str::<Details>(&record.data).unwrap_or_default().dialect {
            // A name that is not known here is one of another instance's configuration.
            Some(name) => self.dialects.named(&name).map_or(Spoken::Unknown, |dialect| Spoken::Is(dialect.clone())),
            None => Spoken::Undecided(0, offset),
        }
    }

    async fn look_up(&self, run: &RunId) -> Result<Spoken, Unavailable> {
        let Some(info) = self.log.run(&self.session, run).await? else { return Ok(Spoken::Unknown) };
        // Where the beginning is trimmed nobody can tell any more.
        let Some(started) = self.log.entry(&self.session, info.started).await? else { return Ok(Spoken::Unknown) };
        let mut spoken = self.named(&started.record, info.started);
        let mut at = info.started;
        for _ in 0..PAGES {
            let Spoken::Undecided(..) = spoken else { return Ok(spoken) };
            let Read::Page(page) = self.log.read(&self.session, at, PageLimits::default()).await? else { break };
            let Some(last) = page.entries.last() else { return Ok(spoken) };
            at = last.offset;
            for entry in page.entries.iter().filter(|entry| entry.record.run.as_ref() == Some(run)) {
                spoken = hear(&self.dialects, spoken, entry);
            }
            if at == page.tail {
                return Ok(spoken);
            }
        }
        Ok(match spoken {
            Spoken::Undecided(..) => Spoken::Unknown,
            decided => decided,
        })
    }
}

/// What is known of a run's dialect after this entry of it.
fn hear(dialects: &Dialects, spoken: Spoken, entry: &Entry) -> Spoken {
    match spoken {
        Spoken::Undecided(heard, upto) if entry.record.kind == Kind::Event && entry.offset > upto => {
            match dialects.recognise(entry.record.event.as_deref(), &entry.record.data) {
                Some(dialect) => Spoken::Is(dialect.clone()),
                None if heard + 1 == RECOGNISED_WITHIN => Spoken::Unknown,
                None => Spoken::Undecided(heard + 1, entry.offset),
            }
        }
        decided => decided,
    }
}
