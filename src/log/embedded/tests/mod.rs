//! What the contract suite cannot see from outside: a disk that fails, and what is cleaned up.

mod backend;
mod failing_disk;
mod housekeeping;

use std::sync::Arc;
use std::time::Duration;

use super::log::EmbeddedLog;
use super::options::{EmbeddedOptions, Location};
use super::{database, start};
use crate::log::{Append, Appended, Fence, Log, OpenRun, Opened, Retention, Writer};
use crate::session::{InstanceId, Kind, Offset, Record, RunId, RunState, SessionId};

/// Little, so that reads come to the disk.
const CACHE_BYTES: usize = 64 << 10;

/// A log on a disk of the tests.
fn open(disk: &backend::Disk, change: impl FnOnce(&mut EmbeddedOptions)) -> Arc<EmbeddedLog> {
    let mut options = EmbeddedOptions {
        sweep_every: Duration::from_millis(10),
        retention: Retention::default(),
        ..EmbeddedOptions::new(Location::Memory)
    };
    change(&mut options);
    let disk = disk.clone();
    let place = database::Place::Test(Box::new(move || database::on(disk.clone(), CACHE_BYTES)));
    EmbeddedLog::serve(start::open(place, options).unwrap())
}

fn session() -> SessionId {
    SessionId::parse("s").unwrap()
}

fn run() -> RunId {
    RunId::parse("r").unwrap()
}

async fn open_run(log: &EmbeddedLog) -> Offset {
    let records = vec![Record::run_state(run(), RunState::Started, "{}")];
    let owner = InstanceId::parse("i").unwrap();
    let open = OpenRun::new(session(), run(), owner, "n".into(), records);
    match log.open_run(open).await.unwrap() {
        Opened::Open { started, .. } => started,
        other => panic!("{other:?}"),
    }
}

/// An append of one event to the run.
fn event(n: u64, text: &str) -> Append {
    let record = Record { kind: Kind::Event, run: Some(run()), source: None, event: None, id: None, data: text.into() };
    let fence = Fence { counter: 1, nonce: "n".into() };
    Append {
        session: session(),
        writer: Writer::Run { run: run(), fence },
        first_n: n,
        records: vec![record],
        seen: None,
        skips: false,
    }
}

/// An append of one event of no run, by a producer.
fn written(producer: &str, n: u64, text: &str) -> Append {
    let append = event(n, text);
    let records = append.records.into_iter().map(|record| Record { run: None, ..record }).collect();
    Append { writer: Writer::Producer { id: producer.into(), epoch: 1 }, records, ..append }
}

fn stored(answer: Appended) -> Offset {
    match answer {
        Appended::Stored { last, .. } => last,
        other => panic!("{other:?}"),
    }
}
