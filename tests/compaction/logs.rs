//! Sessions made of recordings, and what a reader is given of them.

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use serde_json::Value;
use sidestream::dialect::compact::{Compacted, Compactor};
use sidestream::dialect::{Dialect, Dialects, RECOGNISED_WITHIN};
use sidestream::session::{Entry, Kind, Offset, Record, RunId};
use sidestream::sse::{Decoder, Event, Frame};

use crate::reducers::reduce;

/// A recorded answer.
pub(crate) struct Recording {
    pub(crate) file: String,
    /// What its first events show, as it is known of a run.
    pub(crate) dialect: Option<Arc<Dialect>>,
    pub(crate) events: Vec<Event>,
}

#[derive(Deserialize)]
struct Line {
    file: String,
}

/// The recordings that are event streams.
pub(crate) fn recordings() -> &'static [Recording] {
    static ALL: OnceLock<Vec<Recording>> = OnceLock::new();
    ALL.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sse/visible");
        let index = std::fs::read(folder.join("index.json")).unwrap();
        let lines: Vec<Line> = serde_json::from_slice(&index).unwrap();
        let lines = lines.into_iter().filter(|line| line.file.contains(".sse"));
        let dialects = Dialects::new([]);
        lines
            .map(|Line { file }| {
                let mut stream = std::fs::read(folder.join(&file)).unwrap();
                if file.ends_with(".gz") {
                    let mut plain = Vec::new();
                    flate2::read::GzDecoder::new(&stream[..]).read_to_end(&mut plain).unwrap();
                    stream = plain;
                }
                let mut decoder = Decoder::new(usize::MAX);
                decoder.feed(&stream);
                let event = |frame| match frame {
                    Frame::Event { event, .. } => Some(event),
                    _ => None,
                };
                let events: Vec<Event> = decoder.by_ref().filter_map(event).collect();
                let mut first = events.iter().take(RECOGNISED_WITHIN as usize);
                let dialect = first.find_map(|event| dialects.recognise(event.name.as_deref(), &event.data)).cloned();
                Recording { file, dialect, events }
            })
            .collect()
    })
}

/// The entries of a session.
pub(crate) struct Log(Vec<Arc<Entry>>);

/// One record as a reader gets it.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    pub(crate) run: usize,
    pub(crate) first: Offset,
    pub(crate) offset: Offset,
    pub(crate) part: (usize, usize),
    pub(crate) record: Record,
}

impl Log {
    /// A session whose next event is one of the run that `order` names, as long as that has any.
    pub(crate) fn of(runs: &[&Vec<Event>], order: &[usize]) -> Self {
        let mut next = vec![0; runs.len()];
        let mut entries = Vec::new();
        for run in order {
            let Some(event) = runs[*run].get(next[*run]) else { continue };
            next[*run] += 1;
            let Event { name: event, data, id } = event.clone();
            let record = Record { kind: Kind::Event, run: Some(run_id(*run)), source: None, event, id, data };
            let seq = entries.len() as u64 + 1;
            entries.push(Arc::new(Entry { offset: Offset::new(seq / 3, seq), record }));
        }
        Log(entries)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The entries from the one number `from` to before the one number `to`.
    pub(crate) fn part(&self, from: usize, to: usize) -> Log {
        Log(self.0[from..to].to_vec())
    }

    /// What a reader gets who has nothing merged.
    pub(crate) fn as_it_is(&self) -> Vec<Out> {
        self.0.iter().map(|entry| one(entry)).collect()
    }
}

/// What a reader gets who has it all merged.
pub(crate) fn compacted(log: &Log, dialects: &[Option<Arc<Dialect>>]) -> Vec<Out> {
    let (mut compactor, mut out) = (Compactor::default(), Vec::new());
    for entry in &log.0 {
        let dialect = |run: &RunId| dialects[number(run)].clone();
        compactor.push(entry.clone(), dialect, &mut out);
    }
    compactor.flush(&mut out);
    assert!(compactor.is_empty());
    let outs = out.into_iter().map(|one_of| match one_of {
        Compacted::Entry(entry) => one(&entry),
        Compacted::Merged(merged) => Out { first: merged.first, part: merged.part, ..one(&merged.entry) },
    });
    outs.collect()
}

/// Proves that the records are an exact slice: each begins where the one before ended, or is another part of
/// the same block; a part is of a run that has entries in the block, and each such run has one.
pub(crate) fn expand(log: &Log, out: &[Out]) {
    let mut rest = out;
    let mut at = 0;
    while let Some(block) = rest.first() {
        let parts = &rest[..block.part.1];
        rest = &rest[block.part.1..];
        assert_eq!(block.first, log.0[at].offset);
        let end = at + log.0[at..].iter().position(|entry| entry.offset == block.offset).unwrap() + 1;
        let mut runs: Vec<usize> = Vec::new();
        for entry in &log.0[at..end] {
            let run = number(entry.record.run.as_ref().unwrap());
            if !runs.contains(&run) {
                runs.push(run);
            }
        }
        assert_eq!(parts.iter().map(|part| part.run).collect::<Vec<_>>(), runs, "in order of their first entries");
        for (n, part) in parts.iter().enumerate() {
            assert_eq!((part.first, part.offset, part.part), (block.first, block.offset, (n + 1, runs.len())));
            let members = log.0[at..end].iter().filter(|entry| entry.record.run == part.record.run);
            let id = members.rev().find_map(|entry| entry.record.id.clone());
            assert_eq!(part.record.id, id, "the last id that a member has set");
        }
        at = end;
    }
    assert_eq!(at, log.len());
}

/// What a client of the dialect makes of the events.
pub(crate) fn states(dialect: Option<&Dialect>, out: &[Out]) -> Value {
    reduce(dialect, out.iter().map(|one| (one.record.event.as_deref(), &*one.record.data)))
}

fn one(entry: &Entry) -> Out {
    let Entry { offset, record } = entry.clone();
    Out { run: number(record.run.as_ref().unwrap()), first: offset, offset, part: (1, 1), record }
}

fn run_id(run: usize) -> RunId {
    RunId::parse(&format!("run-{run}")).unwrap()
}

fn number(run: &RunId) -> usize {
    run.as_str()[4..].parse().unwrap()
}
