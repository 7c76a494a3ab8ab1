//! Publishing again what the store has lost.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::kept::Entry;
use super::{Line, Publisher, RETRY};
use crate::log::{Closed, Standing, standing};
use crate::session::{Offset, Record, SessionId};

/// How often the newest entry is looked at, and what could not be looked after is tried again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long an entry that is to be published again waits for its run, which the store may have lost as well.
const REOPENED_WITHIN: Duration = Duration::from_secs(4);

impl Publisher {
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

    /// Publishes once more what the log has lost of what is kept. A log loses its newest entries, so that one that is
    /// there ends the search, if all that were kept before it stand before it.
    pub(super) async fn restore(&self, session: &SessionId, line: &mut Line) {
        let mut lost = VecDeque::new();
        let mut next = line.kept.entries.len();
        while let Some(index) = next.checked_sub(1) {
            let Entry { offset, in_order, .. } = line.kept.entries[index];
            match standing(&*self.log, session, offset).await {
                Standing::There | Standing::Removed if in_order => break,
                Standing::There | Standing::Removed => next = index,
                Standing::Lost => {
                    lost.push_front(index);
                    next = index;
                }
                Standing::Unknown => sleep(RETRY).await,
            }
        }
        let reopened_until = Instant::now() + REOPENED_WITHIN;
        // Those before them are gone from their places by then.
        for (gone, index) in lost.into_iter().enumerate() {
            let index = index - gone;
            loop {
                let record = line.kept.entries[index].record.clone();
                match self.store(session, line, record, true).await {
                    Ok(Some(offset)) => {
                        line.kept.moved(index, offset);
                        *self.newest() = Some((session.clone(), offset, Instant::now()));
                        break;
                    }
                    // It went back once more, perhaps behind those that are restored; or our count was not the log's.
                    Ok(None) => return Box::pin(self.restore(session, line)).await,
                    Err(Closed::Erased | Closed::Expired) => {
                        while line.kept.let_go_oldest() {}
                        return;
                    }
                    // Its run may be lost as well, until its owner has opened it again.
                    Err(Closed::Unknown) if Instant::now() < reopened_until => sleep(RETRY).await,
                    Err(Closed::Unknown | Closed::Terminal { .. }) => {
                        tracing::warn!(%session, "the store has lost an entry whose run has ended since; it stays lost");
                        line.kept.let_go(index);
                        break;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::log::scripted::{Scripted, now};
    use crate::log::{Append, Appended, Gap, GapReason, Page, Read, RunFlags, Writer};
    use crate::session::{Kind, RunId, Terminal};

    fn record() -> Record {
        Record { kind: Kind::Event, run: None, source: None, event: None, id: None, data: "1".into() }
    }

    /// A log that counts, and that the test can make forget.
    type Stored = Arc<Mutex<Vec<(Offset, Record)>>>;

    fn forgetful() -> (Arc<Publisher>, Stored) {
        let (log, entries) = (Scripted::default(), Arc::<Mutex<Vec<(Offset, Record)>>>::default());
        let (kept, written, clock) = (entries.clone(), Mutex::new(HashMap::new()), AtomicU64::new(1));
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
        log.append.answers(move |append: Append| {
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

    /// The symptom: what two had written at once stayed lost where the one that came first was kept last.
    #[tokio::test]
    async fn what_is_kept_in_another_order_than_it_was_stored_is_published_again_and_nothing_twice() {
        let (publisher, entries) = forgetful();
        let session = SessionId::parse("s").unwrap();
        let named = |data: &str| Record { data: data.to_owned().into(), ..record() };
        let at = |seq| Offset::new(0, seq);
        for seq in [1, 3, 2, 5, 4] {
            publisher.keep(&session, &[named(&seq.to_string())], at(seq)).await;
        }
        *entries.lock().unwrap() = [1, 2].map(|seq| (at(seq), named(&seq.to_string()))).into();
        for _ in 0..2 {
            timeout(Duration::from_secs(10), publisher.restore_lost(&session)).await.expect("an end");
            assert_eq!(said(&entries), ["1", "2", "3", "5", "4"]);
        }
        // One whose answer came after its loss was noticed.
        publisher.keep(&session, &[named("late")], at(3)).await;
        publisher.restore_lost(&session).await;
        assert_eq!(said(&entries), ["1", "2", "3", "5", "4", "late"]);
    }
}
