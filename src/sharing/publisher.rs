//! Entries that clients publish without a run. This instance is their producer in the log: it counts
//! them, so that one whose answer was lost is asked for again without being stored twice, and keeps
//! them for a while, so that what a store that went back in time has lost is stored once more.
//!
//! Each is known by its exact offset, so that the log says of each whether it is there. Kept for as long as
//! owners of runs keep theirs, at most 8 MiB of all sessions. Overflow: what is oldest in the session that
//! is published to is let go of.

mod kept;
mod restoring;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::{Instant, sleep, timeout};

use self::kept::Kept;
use crate::log::{Append, Appended, Closed, Doubts, Log, Unavailable, Writer};
use crate::session::{Offset, Record, SessionId, Subject};

/// How long a publication is tried to be stored.
const PATIENCE: Duration = Duration::from_secs(6);

/// Pause between attempts while the store does not answer.
const RETRY: Duration = Duration::from_millis(100);

/// Sessions whose count is kept. When there are more, those that nobody publishes to at the moment
/// begin a new epoch.
const LINES: usize = 4096;

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

    fn newest(&self) -> MutexGuard<'_, Option<(SessionId, Offset, Instant)>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
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
        let kept = || Kept::new(self.kept_bytes.clone());
        let line = lines.entry(session.clone());
        line.or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Line { kept: kept(), ..Line::default() }))).clone()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::log::RunFlags;
    use crate::log::scripted::{Scripted, now};
    use crate::session::Kind;

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
}
