//! Who speaks in the cases.

use std::sync::Arc;
use std::time::Duration;

use sidestream::log::redis::{RedisLog, RedisOptions};
use sidestream::log::*;
use sidestream::session::*;

/// The longest that any case waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A log on the server at `url`.
pub async fn connect(url: impl Into<String>) -> Arc<RedisLog> {
    RedisLog::connect(RedisOptions::new(url)).await.expect("the server is usable")
}

/// Asks again, as every caller does, until the answer is definite.
pub async fn insist<T>(mut ask: impl AsyncFnMut() -> Result<T, Unavailable>) -> T {
    let asking = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the store never answered")
}

/// Waits until the store is up, or down.
pub async fn until_health(log: &RedisLog, wanted: impl FnMut(&StoreHealth) -> bool) -> StoreHealth {
    let mut health = log.health();
    let health = tokio::time::timeout(PATIENCE, health.wait_for(wanted)).await;
    health.expect("the health never changed").unwrap().clone()
}

/// Waits until `holds`.
pub async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it never came true");
}

/// A scripted owner of a run.
#[derive(Clone, Debug)]
pub struct Owner {
    pub session: SessionId,
    pub run: RunId,
    pub n: u64,
    pub tail: Offset,
}

impl Owner {
    pub fn new(session: &str, run: &str) -> Self {
        let (session, run) = (SessionId::parse(session).unwrap(), RunId::parse(run).unwrap());
        Owner { session, run, n: 0, tail: Offset::ZERO }
    }

    pub fn opening(&self) -> OpenRun {
        let records = vec![Record::run_state(self.run.clone(), RunState::Started, "{}")];
        let owner = InstanceId::parse("inst-1").unwrap();
        OpenRun::new(self.session.clone(), self.run.clone(), owner, "a nonce".into(), records)
    }

    pub async fn open(&mut self, log: &dyn Log) -> Offset {
        match log.open_run(self.opening()).await.unwrap() {
            Opened::Open { started, .. } => {
                (self.n, self.tail) = (1, started);
                started
            }
            other => panic!("the run did not open: {other:?}"),
        }
    }

    pub fn append<T: AsRef<str>>(&self, texts: &[T]) -> Append {
        let record = |text: &T| Record {
            kind: Kind::Event,
            run: Some(self.run.clone()),
            source: None,
            event: Some("delta".into()),
            id: None,
            data: text.as_ref().into(),
        };
        self.append_records(texts.iter().map(record).collect())
    }

    pub fn append_records(&self, records: Vec<Record>) -> Append {
        let fence = Fence { counter: 1, nonce: "a nonce".into() };
        let writer = Writer::Run { run: self.run.clone(), fence };
        let seen = (self.tail != Offset::ZERO).then_some(self.tail);
        Append { session: self.session.clone(), writer, first_n: self.n + 1, records, seen, skips: false }
    }

    pub async fn says<T: AsRef<str>>(&mut self, log: &dyn Log, texts: &[T]) -> (Offset, Offset) {
        match log.append(self.append(texts)).await.unwrap() {
            Appended::Stored { first, last, .. } => {
                self.n += texts.len() as u64;
                self.tail = last;
                (first, last)
            }
            other => panic!("not stored: {other:?}"),
        }
    }

    /// Says it until the answer is definite.
    pub async fn insists<T: AsRef<str>>(&mut self, log: &dyn Log, texts: &[T]) {
        let append = self.append(texts);
        match insist(async || log.append(append.clone()).await).await {
            Appended::Stored { last, .. } | Appended::Duplicate { last, .. } => {
                self.n += texts.len() as u64;
                self.tail = last;
            }
            other => panic!("not stored: {other:?}"),
        }
    }

    pub async fn ends(&mut self, log: &dyn Log) -> Offset {
        let terminal = Record::run_state(self.run.clone(), RunState::Ended(Terminal::Completed), "{}");
        match log.append(self.append_records(vec![terminal])).await.unwrap() {
            Appended::Stored { last, .. } => last,
            other => panic!("not stored: {other:?}"),
        }
    }
}

/// Everything after `after`; panics at a gap.
pub async fn read_after(log: &dyn Log, session: &SessionId, after: Offset) -> Vec<Arc<Entry>> {
    let (mut cursor, mut entries) = (after, Vec::new());
    loop {
        let answer = insist(async || log.read(session, cursor, PageLimits::default()).await).await;
        let Read::Page(page) = answer else { panic!("after {cursor}: {answer:?}") };
        let Some(last) = page.entries.last() else { return entries };
        cursor = last.offset;
        entries.extend(page.entries);
    }
}

pub async fn gap(log: &dyn Log, session: &SessionId, after: Offset) -> Gap {
    match log.read(session, after, PageLimits::default()).await.unwrap() {
        Read::Gap(gap) => gap,
        other => panic!("no gap after {after}: {other:?}"),
    }
}

pub fn data(entries: &[Arc<Entry>]) -> Vec<&str> {
    entries.iter().filter(|entry| entry.record.kind == Kind::Event).map(|entry| &*entry.record.data).collect()
}

pub fn assert_contiguous(after: Offset, entries: &[Arc<Entry>]) {
    let mut last = after;
    for entry in entries {
        assert_eq!(entry.offset.seq, last.seq + 1, "a hole after {last}");
        assert!(entry.offset.ms >= last.ms);
        last = entry.offset;
    }
}

/// The gap-free join, as the hub does it: subscribe, read, then the pushes.
pub struct Reader {
    log: Arc<dyn Log>,
    session: SessionId,
    following: Following,
    pub cursor: Offset,
    pub seen: Vec<Arc<Entry>>,
    pub checks: usize,
    pub pushed: usize,
}

impl Reader {
    pub async fn join(log: Arc<dyn Log>, session: &SessionId) -> Self {
        let following = insist(async || log.follow(session).await).await;
        let session = session.clone();
        let mut reader =
            Reader { log, session, following, cursor: Offset::ZERO, seen: Vec::new(), checks: 0, pushed: 0 };
        reader.catch_up().await;
        reader
    }

    async fn catch_up(&mut self) {
        let missing = match self.cursor {
            Offset::ZERO if matches!(self.log.bounds(&self.session).await, Ok(Bounds::NotFound)) => return,
            cursor => read_after(&*self.log, &self.session, cursor).await,
        };
        self.take(missing);
    }

    fn take(&mut self, entries: Vec<Arc<Entry>>) {
        assert_contiguous(self.cursor, &entries);
        self.cursor = entries.last().map_or(self.cursor, |entry| entry.offset);
        self.seen.extend(entries);
    }

    /// Hears one push.
    pub async fn hear(&mut self) {
        let push = tokio::time::timeout(PATIENCE, self.following.next()).await.expect("nothing was announced");
        match push.expect("the store is open") {
            Push::Entries { prev, entries } if prev == self.cursor => {
                self.pushed += 1;
                self.take(entries);
            }
            Push::Entries { entries, .. } if entries.last().unwrap().offset <= self.cursor => {}
            Push::Entries { .. } => self.catch_up().await,
            Push::Note(note) => panic!("{note:?}"),
            Push::Check => {
                self.checks += 1;
                self.catch_up().await;
            }
        }
    }

    /// Listens until `count` entries are here.
    pub async fn until(&mut self, count: usize) {
        while self.seen.len() < count {
            self.hear().await;
        }
    }
}
