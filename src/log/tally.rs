//! What a run has come to, counted from the log by whoever ends it in its owner's place.

use crate::session::{Kind, Record, RunId};

/// What the log has of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTally {
    /// Its events, those that were too large to keep included.
    pub events: u64,
    /// Bytes of the data of those that were kept. (An owner counts what the upstream sent.)
    pub bytes: u64,
}

impl RunTally {
    /// Counts an entry, if it is an event of `run`.
    pub fn add(&mut self, run: &RunId, record: &Record) {
        if record.run.as_ref() != Some(run) {
            return;
        }
        match record.kind {
            Kind::Event => {
                self.events += 1;
                self.bytes += record.data.len() as u64;
            }
            Kind::EventDropped => self.events += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::RunState;

    #[test]
    fn only_events_of_the_run_count() {
        let (run, other) = (RunId::from_random(1), RunId::from_random(2));
        let record = |kind, run: &RunId| Record {
            kind,
            run: Some(run.clone()),
            source: None,
            event: Some("delta".into()),
            id: None,
            data: "four".into(),
        };
        let mut tally = RunTally::default();
        tally.add(&run, &Record::run_state(run.clone(), RunState::Started, "{}"));
        for (kind, of) in [(Kind::Event, &run), (Kind::Event, &other), (Kind::EventDropped, &run), (Kind::Input, &run)]
        {
            tally.add(&run, &record(kind, of));
        }
        assert_eq!(tally, RunTally { events: 2, bytes: 4 });
    }
}
