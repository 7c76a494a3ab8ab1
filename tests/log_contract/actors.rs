//! Who speaks in the cases: owners of runs, producers, and readers who page through.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use sidestream::log::*;
use sidestream::session::*;

/// The longest that any case waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn session(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

pub fn run_id(name: &str) -> RunId {
    RunId::parse(name).unwrap()
}

pub fn instance(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

/// An event without a run.
pub fn event(text: &str) -> Record {
    Record { kind: Kind::Event, run: None, source: None, event: None, id: None, data: text.into() }
}

/// A scripted owner of a run, which counts its entries as a real one does.
#[derive(Clone, Debug)]
pub struct Owner {
    pub session: SessionId,
    pub run: RunId,
    pub instance: InstanceId,
    pub nonce: ByteString,
    pub counter: u64,
    /// How many entries the log has confirmed.
    pub n: u64,
}

impl Owner {
    pub fn new(session_name: &str, run: &str) -> Self {
        Owner {
            session: session(session_name),
            run: run_id(run),
            instance: instance("inst-1"),
            nonce: format!("nonce-of-{run}").into(),
            counter: 1,
            n: 0,
        }
    }

    /// The request that opens the run with its `started` entry.
    pub fn opening(&self) -> OpenRun {
        let records = vec![Record::run_state(self.run.clone(), RunState::Started, "{}")];
        let (session, run, owner) = (self.session.clone(), self.run.clone(), self.instance.clone());
        OpenRun::new(session, run, owner, self.nonce.clone(), records)
    }

    /// Opens the run; the offset of its start.
    pub async fn open(&mut self, log: &dyn Log) -> Offset {
        match log.open_run(self.opening()).await.unwrap() {
            Opened::Open { started, .. } => {
                self.n = 1;
                started
            }
            other => panic!("the run did not open: {other:?}"),
        }
    }

    pub fn writer(&self) -> Writer {
        let fence = Fence { counter: self.counter, nonce: self.nonce.clone() };
        Writer::Run { run: self.run.clone(), fence }
    }

    /// An event of this run.
    pub fn event(&self, text: &str) -> Record {
        Record { run: Some(self.run.clone()), ..event(text) }
    }

    /// An append of events, numbered from `first_n`.
    pub fn append_from<T: AsRef<str>>(&self, first_n: u64, texts: &[T]) -> Append {
        self.append_records(first_n, texts.iter().map(|text| self.event(text.as_ref())).collect())
    }

    pub fn append_records(&self, first_n: u64, records: Vec<Record>) -> Append {
        Append { session: self.session.clone(), writer: self.writer(), first_n, records, seen: None, skips: false }
    }

    /// Appends the next events; the offsets of the first and last.
    pub async fn says<T: AsRef<str>>(&mut self, log: &dyn Log, texts: &[T]) -> (Offset, Offset) {
        self.stores(log, self.append_from(self.n + 1, texts)).await
    }

    /// The append that ends the run.
    pub fn ending(&self, state: Terminal) -> Append {
        let terminal = Record::run_state(self.run.clone(), RunState::Ended(state), r#"{"by":"owner"}"#);
        self.append_records(self.n + 1, vec![terminal])
    }

    /// Ends the run; the offset of its terminal.
    pub async fn ends(&mut self, log: &dyn Log, state: Terminal) -> Offset {
        self.stores(log, self.ending(state)).await.1
    }

    async fn stores(&mut self, log: &dyn Log, append: Append) -> (Offset, Offset) {
        let added = append.records.len() as u64;
        match log.append(append).await.unwrap() {
            Appended::Stored { first, last, .. } => {
                self.n += added;
                (first, last)
            }
            other => panic!("not stored: {other:?}"),
        }
    }

    pub fn takeover(&self, nonce: &str) -> Takeover {
        Takeover {
            session: self.session.clone(),
            run: self.run.clone(),
            nonce: nonce.to_owned().into(),
            details: r#"{"reason":"owner_gone"}"#.into(),
        }
    }
}

/// `prefix-1` … `prefix-count`.
pub fn texts(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|i| format!("{prefix}-{i}")).collect()
}

/// One page; panics at anything else.
pub async fn page(log: &dyn Log, session: &SessionId, after: Offset, limits: PageLimits) -> Page {
    match log.read(session, after, limits).await.unwrap() {
        Read::Page(page) => page,
        other => panic!("no page after {after}: {other:?}"),
    }
}

/// Everything after `after`, page by page. Checks that each page continues the one before.
pub async fn read_after(log: &dyn Log, session: &SessionId, after: Offset) -> Vec<Arc<Entry>> {
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    let mut cursor = after;
    loop {
        let page = page(log, session, cursor, PageLimits::default()).await;
        let Some(last) = page.entries.last() else {
            assert_eq!(page.tail, cursor, "an empty page means that the cursor is the tail");
            return entries;
        };
        cursor = last.offset;
        entries.extend(page.entries);
    }
}

/// The whole log of a session that was never trimmed; checks that it is contiguous.
pub async fn read_all(log: &dyn Log, session: &SessionId) -> Vec<Arc<Entry>> {
    let entries = read_after(log, session, Offset::ZERO).await;
    assert_contiguous(Offset::ZERO, &entries);
    entries
}

/// `seq` without a hole right after `after`, `ms` never decreasing.
pub fn assert_contiguous(after: Offset, entries: &[Arc<Entry>]) {
    let mut last = after;
    for entry in entries {
        assert_eq!(entry.offset.seq, last.seq + 1, "a hole after {last}");
        assert!(entry.offset.ms >= last.ms, "{} is older than {last}", entry.offset);
        last = entry.offset;
    }
}

/// The data of entries.
pub fn data(entries: &[Arc<Entry>]) -> Vec<&str> {
    entries.iter().map(|entry| &*entry.record.data).collect()
}

/// The bounds of a session that exists.
pub async fn live(log: &dyn Log, session: &SessionId) -> SessionBounds {
    match log.bounds(session).await.unwrap() {
        Bounds::Live(bounds) => bounds,
        other => panic!("not live: {other:?}"),
    }
}

/// Waits until the clock shows another millisecond than the one of `offset`, so that the next
/// entry's offset is larger in both halves.
pub async fn until_after_the_millisecond_of(offset: Offset) {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    while now() <= offset.ms + 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
