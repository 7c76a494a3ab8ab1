//! Entries that clients publish without a run. This instance is their producer in the log: it counts
//! them, so that one whose answer was lost is asked for again without being stored twice, and keeps
//! them for a while, so that what a store that went back in time has lost is stored once more.
//!
//! Each is known by its exact offset, so that the log says of each whether it is there. Kept for as long as
//! owners of runs keep theirs, at most 8 MiB of all sessions. Overflow: what is oldest in the session that
//! is published to is let go of.

use std::collections::{HashMap, VecDeque};
use std::mem::size_of;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::{Instant, sleep, timeout};

use crate::log::{Append, Appended, Closed, Doubts, Log, Standing, Unavailable, Writer, standing};
use crate::session::{Offset, Record, SessionId, Subject};

/// How long a publication is tried to be stored.
const PATIENCE: Duration = Duration::from_secs(6);

/// Pause between attempts while the store does not answer.
const RETRY: Duration = Duration::from_millis(100);

/// Sessions whose count is kept. When there are more, those that nobody publishes to at the moment
/// begin a new epoch.
const LINES: usize = 4096;

/// Bytes of what was published that are kept.
const KEPT_BYTES: usize = 8 << 20;

/// How often the newest entry is looked at, and what could not be looked after is tried again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long an entry that is to be published again waits for its run, which the store may have lost as well.
const REOPENED_WITHIN: Duration = Duration::from_secs(4);

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum NotPublished {
    /// The session was erased.
    #[error("the session was erased; a run begins it anew")]
    Erased,
    /// The store did not answer in time: whether the event is stored is not known.
    #[error("{0}; whether the event was stored is not known")]
    Unavailable(#[from] Unavailable),
}

/// The producer of this instance.
pub struct Publisher {
    log: Arc<dyn Log>,
    /// Never used by another process, so that epochs need to grow only here.
    id: ByteString,
    epochs: AtomicU64,
    patience: Duration,
    lines: Mutex<HashMap<SessionId, Arc<tokio::sync::Mutex<Line>>>>,
    doubts: Arc<Doubts>,
    /// Bytes of what all lines keep.
    kept_bytes: Arc<AtomicUsize>,
    /// Where the newest entry of all stands, and since when.
    newest: Mutex<Option<(SessionId, Offset, Instant)>>,
}

/// What was published in one session. One append at a time; others wait for their turn.
#[derive(Default)]
struct Line {
    /// The epoch and the number of its last entry; `None`: not known, or none.
    count: Option<(u64, u64)>,
    /// Whom the session was last said to belong to.
    bound: Option<Subject>,
    kept: Kept,
    /// The newest doubt at which what is kept was there.
    sure_at: u64,
}

/// What a line may have to publish once more, oldest first.
#[derive(Default)]
struct Kept {
    entries: VecDeque<(Record, Offset, Instant)>,
    all_bytes: Arc<AtomicUsize>,
}

impl Kept {
    fn keep(&mut self, record: Record, offset: Offset) {
        self.all_bytes.fetch_add(Self::cost(&record), Ordering::AcqRel);
        self.entries.push_back((record, offset, Instant::now()));
        while self.all_bytes.load(Ordering::Acquire) > KEPT_BYTES && self.let_go_oldest() {}
    }

    fn let_go_before(&mut self, horizon: Instant) {
        while self.entries.front().is_some_and(|(_, _, at)| *at < horizon) && self.let_go_oldest() {}
    }

    fn let_go_oldest(&mut self) -> bool {
        let any = !self.entries.is_empty();
        self.let_go(0);
        any
    }

    fn let_go(&mut self, index: usize) {
        if let Some((record, ..)) = self.entries.remove(index) {
            self.all_bytes.fetch_sub(Self::cost(&record), Ordering::AcqRel);
        }
    }

    fn cost(record: &Record) -> usize {
        size_of::<(Record, Offset, Instant)>() + record.size()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        while self.let_go_oldest() {}
    }
}

impl Publisher {
    /// A producer that has published nothing.
    pub fn new(log: Arc<dyn Log>, doubts: Arc<Doubts>) -> Self {
        let id = format!("sidecar-{:032x}", crate::random::u128());
        Publisher {
            log,
            id: id.into(),
            epochs: AtomicU64::new(1),
            patience: PATIENCE,
            lines: Mutex::default(),
            doubts,
            kept_bytes: Arc::default(),
            newest: Mutex::default(),
        }
    }

    /// Looks after what was published, whenever the store is doubted, until the process ends.
    pub async fn look_after(&self) {
        let mut doubts = self.doubts.subscribe();
        loop {
            let _ = timeout(LOOK_EVERY, doubts.changed()).await;
            let doubt = *doubts.borrow_and_update();
            self.look_at_the_newest().await;
            let lines: Vec<_> = {
                let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.iter().map(|(session, line)| (session.clone(), line.clone())).collect()
            };
            for (session, line) in lines {
                // One that publishes at the moment hears of a loss by itself, or is looked after in a second.
                let Ok(mut line) = line.try_lock() else { continue };
                line.kept.let_go_before(self.doubts.horizon());
                if line.sure_at < doubt {
                    self.restore(&session, &mut line).await;
                    line.sure_at = doubt;
                }
            }
        }
    }

    /// Stores an entry without a run, and creates the session if need be; binds it to `subject`,
    /// unless it is somebody's. The entry's offset.
    ///
    /// # Errors
    /// The session was erased, or the store did not answer within 6 s.
    pub async fn publish(
        self: &Arc<Self>,
        session: &SessionId,
        record: Record,
        subject: Option<&Subject>,
    ) -> Result<Offset, NotPublished> {
        let line = self.line(session);
        let publishing = async {
            loop {
                let mut held = line.lock().await;
                // An entry without a run finds nothing else closed.
                let stored = self.store(session, &mut held, record.clone(), false).await;
                let Some(stored) = stored.map_err(|_| NotPublished::Erased)? else {
                    drop(held);
                    // What was lost comes first; and however long it takes, it is not given up halfway, or it would
                    // come twice.
                    let (publisher, session, line) = (self.clone(), session.clone(), line.clone());
                    let _ =
                        tokio::spawn(async move { publisher.restore(&session, &mut *line.lock().await).await }).await;
                    continue;
                };
                held.kept.keep(record.clone(), stored);
                *self.newest() = Some((session.clone(), stored, Instant::now()));
                if let Some(subject) = subject.filter(|subject| held.bound.as_ref() != Some(*subject)) {
                    while self.log.bind(session, subject).await.is_err() {
                        sleep(RETRY).await;
                    }
                    held.bound = Some(subject.clone());
                }
                return Ok(stored);
            }
        };
        match timeout(self.patience, publishing).await {
            Ok(published) => published,
            Err(_) => Err(Unavailable::new("the store did not answer in time").into()),
        }
    }

    /// Asks until the answer is definite. Where this is given up, the count is unknown from then on:
    /// the next entry begins a new epoch, which fences what may still be on its way. `None`: the log has not
    /// what this line had; the next entry begins a new epoch, too. `again`: it was in the session before, and must
    /// not begin one that was erased or has expired since; so it is never the first of an epoch.
    async fn store(
        &self,
        session: &SessionId,
        line: &mut Line,
        record: Record,
        again: bool,
    ) -> Result<Option<Offset>, Closed> {
        let begin = || (self.epochs.fetch_add(1, Ordering::Relaxed), u64::from(again));
        let (mut epoch, mut n) = line.count.take().unwrap_or_else(begin);
        loop {
            let append = Append {
                session: session.clone(),
                writer: Writer::Producer { id: self.id.clone(), epoch },
                first_n: n + 1,
                records: vec![record.clone()],
                seen: None,
                skips: again,
            };
            match self.log.append(append).await {
                Ok(Appended::Stored { last, .. } | Appended::Duplicate { last, .. }) => {
                    line.count = Some((epoch, n + 1));
                    return Ok(Some(last));
                }

                // The session has expired: this entry is not among what was there.
                Ok(Appended::Closed(Closed::Expired)) if !again => (epoch, n) = begin(),
                // The store went back in time, or has forgotten us among a thousand others.
                Ok(Appended::Gap { .. } | Appended::Fenced | Appended::RolledBack { .. }) => return Ok(None),
                Ok(Appended::Closed(closed)) => return Err(closed),
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// One entry stands for all that nobody doubts: where a server has lost a tail, it has lost the newest.
    async fn look_at_the_newest(&self) {
        let newest = self.newest().clone();
        let Some((session, offset, at)) = newest.filter(|(_, _, at)| *at >= self.doubts.horizon()) else {
            *self.newest() = None;
            return;
        };
        if standing(&*self.log, &session, offset).await == Standing::Lost {
            self.doubts.raise();
            // What takes its place is the newest then.
            self.newest().take_if(|newest| newest.2 == at);
        }
    }

    fn newest(&self) -> MutexGuard<'_, Option<(SessionId, Offset, Instant)>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps entries that a producer of this instance has stored side by side, the last of them at `last`.
    pub async fn keep(&self, session: &SessionId, records: &[Record], last: Offset) {
        let line = self.line(session);
        let mut line = line.lock().await;
        let behind = (0..records.len() as u64).rev();
        for (record, behind) in records.iter().zip(behind) {
            line.kept.keep(record.clone(), Offset::new(last.ms, last.seq.saturating_sub(behind)));
        }
        *self.newest() = Some((session.clone(), last, Instant::now()));
    }

    /// Publishes once more, before anything new, what the log has lost of a session. However long it takes, it is
    /// not given up halfway, or it would come twice.
    pub async fn restore_lost(self: &Arc<Self>, session: &SessionId) {
        self.doubts.raise();
        let (publisher, session, line) = (self.clone(), session.clone(), self.line(session));
        let restoring = tokio::spawn(async move { publisher.restore(&session, &mut *line.lock().await).await });
        let _ = restoring.await;
    }

    /// Publishes once more what the log has lost of what is kept. A log loses its newest entries, so that
    /// the newest that is there ends the search.
    async fn restore(&self, session: &SessionId, line: &mut Line) {
        let mut next = line.kept.entries.len();
        while let Some(newest) = next.checked_sub(1) {
            match standing(&*self.log, session, line.kept.entries[newest].1).await {
                Standing::There | Standing::Removed => break,
                Standing::Lost => next = newest,
                Standing::Unknown => sleep(RETRY).await,
            }
        }
        let reopened_until = Instant::now() + REOPENED_WITHIN;
        while next < line.kept.entries.len() {
            let record = line.kept.entries[next].0.clone();
            match self.store(session, line, record, true).await {
                Ok(Some(offset)) => {
                    line.kept.entries[next].1 = offset;
                    *self.newest() = Some((session.clone(), offset, Instant::now()));
                    next += 1;
                }
                // It went back once more, perhaps behind those that are restored; or our count was not the log's.
                Ok(None) => return Box::pin(self.restore(session, line)).await,
                Err(Closed::Erased | Closed::Expired) => while line.kept.let_go_oldest() {},
                // Its run may be lost as well, until its owner has opened it again.
                Err(Closed::Unknown) if Instant::now() < reopened_until => sleep(RETRY).await,
                Err(Closed::Unknown | Closed::Terminal { .. }) => {
                    tracing::warn!(%session, "the store has lost an entry whose run has ended since; it stays lost");
                    line.kept.let_go(next);
                }
            }
        }
    }

    fn line(&self, session: &SessionId) -> Arc<tokio::sync::Mutex<Line>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES && !lines.contains_key(session) {
            let keeps =
                |line: &tokio::sync::Mutex<Line>| line.try_lock().is_ok_and(|line| !line.kept.entries.is_empty());
            lines.retain(|_, line| Arc::strong_count(line) > 1 || keeps(line));
            if lines.len() >= LINES {
                lines.retain(|_, line| Arc::strong_count(line) > 1);
            }
        }
        let kept = || Kept { entries: VecDeque::new(), all_bytes: self.kept_bytes.clone() };
        let line = lines.entry(session.clone());
        line.or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Line { kept: kept(), ..Line::default() }))).clone()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::log::scripted::{Scripted, now};
    use crate::log::{Gap, GapReason, Page, Read, RunFlags};
    use crate::session::{Kind, RunId, Terminal};

    type Asked = Arc<Mutex<Vec<(u64, u64)>>>;

    fn record() -> Record {
        Record { kind: Kind::Event, run: None, source: None, event: None, id: None, data: "1".into() }
    }

    /// A log that answers in turn (`None`: never), and the (epoch, number) of what it was asked.
    fn answering(answers: Vec<Option<Result<Appended, Unavailable>>>) -> (Arc<Publisher>, Asked) {
        let log = Scripted::default();
        let asked = Asked::default();
        let (told, answers) = (asked.clone(), Mutex::new(answers.into_iter()));
        log.append.answers(move |append| {
            let Writer::Producer { epoch, .. } = append.writer else { panic!("{append:?}") };
            told.lock().unwrap().push((epoch, append.first_n));
            match answers.lock().unwrap().next() {
                Some(Some(answer)) => async { answer }.boxed(),
                Some(None) => std::future::pending().boxed(),
                None => now(stored()),
            }
        });
        (Arc::new(Publisher::new(Arc::new(log), Arc::default())), asked)
    }

    fn stored() -> Appended {
        let at = Offset::new(5, 5);
        Appended::Stored { first: at, last: at, flags: RunFlags::default(), next: None }
    }

    async fn publish(publisher: &Arc<Publisher>) -> Result<Offset, NotPublished> {
        publisher.publish(&SessionId::parse("s").unwrap(), record(), None).await
    }

    #[tokio::test]
    async fn an_entry_whose_answer_was_lost_is_asked_for_again_as_the_same() {
        let lost = || Some(Err(Unavailable::new("timeout")));
        let duplicate = Appended::Duplicate { last: Offset::new(7, 7), flags: RunFlags::default() };
        let (publisher, asked) = answering(vec![Some(Ok(stored())), lost(), lost(), Some(Ok(duplicate))]);
        publish(&publisher).await.unwrap();
        assert_eq!(publish(&publisher).await.unwrap(), Offset::new(7, 7));
        publish(&publisher).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), [(1, 1), (1, 2), (1, 2), (1, 2), (1, 3)]);
    }

    #[tokio::test]
    async fn after_one_that_was_given_up_the_next_cannot_pass_for_it() {
        let (publisher, asked) = answering(vec![Some(Ok(stored())), None]);
        publish(&publisher).await.unwrap();
        // Whoever waited for the second has left.
        assert!(timeout(Duration::from_millis(200), publish(&publisher)).await.is_err());
        publish(&publisher).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), [(1, 1), (1, 2), (2, 1)]);
    }

    #[tokio::test]
    async fn a_session_that_expired_meanwhile_begins_anew_and_an_erased_one_does_not() {
        let closed = |why| Some(Ok(Appended::Closed(why)));
        let (publisher, asked) = answering(vec![Some(Ok(stored())), closed(Closed::Expired)]);
        publish(&publisher).await.unwrap();
        publish(&publisher).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), [(1, 1), (1, 2), (2, 1)]);
        let (publisher, _) = answering(vec![closed(Closed::Erased)]);
        assert!(matches!(publish(&publisher).await, Err(NotPublished::Erased)));
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_told_as_not_known() {
        let (mut publisher, _) = answering((0..1000).map(|_| Some(Err(Unavailable::new("away")))).collect());
        Arc::get_mut(&mut publisher).unwrap().patience = Duration::from_millis(200);
        assert!(matches!(publish(&publisher).await, Err(NotPublished::Unavailable(_))));
    }
    /// A log that counts, and that the test can make forget.
    type Stored = Arc<Mutex<Vec<(Offset, Record)>>>;

    fn forgetful() -> (Arc<Publisher>, Stored) {
        let (log, entries) = (Scripted::default(), Arc::<Mutex<Vec<(Offset, Record)>>>::default());
        let (kept, written, clock) = (entries.clone(), Mutex::new(HashMap::new()), AtomicU64::new(0));
        log.append.answers(move |append| {
            let mut kept = kept.lock().unwrap();
            let Writer::Producer { epoch, .. } = append.writer else { panic!("{append:?}") };
            let mut written = written.lock().unwrap();
            let of = append.records[0].run.as_ref().map_or("", RunId::as_str);
            match of {
                "ended" => {
                    let (offset, state) = (Offset::new(1, 1), Terminal::Completed);
                    return now(Appended::Closed(Closed::Terminal { offset, state }));
                }
                // It is opened again the third time.
                "lost" if epoch < 4 => return now(Appended::Closed(Closed::Unknown)),
                _ => {}
            }
            let mine: &mut Vec<Offset> = written.entry(epoch).or_default();
            mine.retain(|offset| kept.iter().any(|(at, _)| at == offset));
            if append.first_n > mine.len() as u64 + 1 && !append.skips {
                return now(Appended::Gap { expected: mine.len() as u64 + 1 });
            }
            let at = Offset::new(clock.fetch_add(1, Ordering::SeqCst), kept.len() as u64 + 1);
            mine.push(at);
            kept.push((at, append.records[0].clone()));
            now(Appended::Stored { first: at, last: at, flags: RunFlags::default(), next: None })
        });
        let kept = entries.clone();
        log.read.answers(move |from| {
            let (to, lost, reason) = (Offset::ZERO, 1, GapReason::RolledBack);
            now(match kept.lock().unwrap().iter().any(|(at, _)| *at == from) {
                true => Read::Page(Page { entries: Vec::new(), tail: from }),
                false => Read::Gap(Gap { from, to, lost, reason }),
            })
        });
        (Arc::new(Publisher::new(Arc::new(log), Arc::default())), entries)
    }

    fn said(entries: &Mutex<Vec<(Offset, Record)>>) -> Vec<String> {
        entries.lock().unwrap().iter().map(|(_, record)| record.data.to_string()).collect()
    }

    async fn publish_all(publisher: &Arc<Publisher>, data: &[&str]) {
        for data in data {
            let record = Record { data: (*data).to_owned().into(), ..record() };
            publisher.publish(&SessionId::parse("s").unwrap(), record, None).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_the_store_has_lost_is_published_again_before_what_is_new() {
        let (publisher, entries) = forgetful();
        publish_all(&publisher, &["a", "b", "c"]).await;
        entries.lock().unwrap().truncate(1);
        publish_all(&publisher, &["d"]).await;
        assert_eq!(said(&entries), ["a", "b", "c", "d"]);
        entries.lock().unwrap().clear();
        publish_all(&publisher, &["e"]).await;
        assert_eq!(said(&entries), ["a", "b", "c", "d", "e"]);
    }

    #[tokio::test]
    async fn what_the_store_has_lost_is_published_again_though_nobody_publishes() {
        let (publisher, entries) = forgetful();
        publish_all(&publisher, &["a", "b"]).await;
        let looking = tokio::spawn({
            let publisher = publisher.clone();
            async move { tokio::join!(publisher.look_after(), crate::log::doubt(&*publisher.log, &publisher.doubts)) }
        });
        for left in [1, 0] {
            entries.lock().unwrap().truncate(left);
            let again = async {
                while said(&entries) != ["a", "b"] {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(Duration::from_secs(10), again).await.expect("it stays lost");
        }
        looking.abort();
    }

    /// The symptom: what was erased in the moment in which it was to be published again was there once more.
    #[tokio::test]
    async fn what_is_published_again_does_not_begin_a_session_anew() {
        let log = Scripted::default();
        log.read.answers(|from| now(Read::Gap(Gap { from, to: Offset::ZERO, lost: 1, reason: GapReason::RolledBack })));
        let begins = Arc::new(Mutex::new(Vec::new()));
        let told = begins.clone();
        log.append.answers(move |append| {
            told.lock().unwrap().push(append.first_n == 1);
            now(Appended::Closed(if append.first_n == 1 { Closed::Expired } else { Closed::Erased }))
        });
        let publisher = Arc::new(Publisher::new(Arc::new(log), Arc::default()));
        let session = SessionId::parse("s").unwrap();
        publisher.keep(&session, &[record(), record()], Offset::new(1, 2)).await;
        timeout(Duration::from_secs(10), publisher.restore_lost(&session)).await.expect("an end");
        assert_eq!(*begins.lock().unwrap(), [false]);
    }

    /// The symptom: nothing was published again in a session because one entry was of a run that had ended, or was
    /// not open again yet.
    #[tokio::test]
    async fn an_entry_whose_run_is_closed_takes_no_other_with_it() {
        let (publisher, entries) = forgetful();
        let session = SessionId::parse("s").unwrap();
        let of = |run: &str| Record { run: Some(RunId::parse(run).unwrap()), data: run.to_owned().into(), ..record() };
        publisher.keep(&session, &[of("ended"), of("lost"), record()], Offset::new(1, 3)).await;
        timeout(Duration::from_secs(10), publisher.restore_lost(&session)).await.expect("an end");
        assert_eq!(said(&entries), ["lost", "1"]);
    }
}
