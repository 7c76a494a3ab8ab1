//! Entries that clients publish without a run. This instance is their producer in the log: it counts
//! them, so that one whose answer was lost is asked for again without being stored twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::{sleep, timeout};

use crate::log::{Append, Appended, Closed, Log, Unavailable, Writer};
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
}

/// What was published in one session. One append at a time; others wait for their turn.
#[derive(Default)]
struct Line {
    /// The epoch and the number of its last entry; `None`: not known, or none.
    count: Option<(u64, u64)>,
    /// Whom the session was last said to belong to.
    bound: Option<Subject>,
}

impl Publisher {
    /// A producer that has published nothing.
    pub fn new(log: Arc<dyn Log>) -> Self {
        let id = format!("sidecar-{:032x}", crate::random::u128());
        Publisher { log, id: id.into(), epochs: AtomicU64::new(1), patience: PATIENCE, lines: Mutex::default() }
    }

    /// Stores an entry without a run, and creates the session if need be; binds it to `subject`,
    /// unless it is somebody's. The entry's offset.
    ///
    /// # Errors
    /// The session was erased, or the store did not answer within 6 s.
    pub async fn publish(
        &self,
        session: &SessionId,
        record: Record,
        subject: Option<&Subject>,
    ) -> Result<Offset, NotPublished> {
        let line = self.line(session);
        let publishing = async {
            let mut line = line.lock().await;
            let stored = self.store(session, &mut line, record).await?;
            if let Some(subject) = subject.filter(|subject| line.bound.as_ref() != Some(*subject)) {
                while self.log.bind(session, subject).await.is_err() {
                    sleep(RETRY).await;
                }
                line.bound = Some(subject.clone());
            }
            Ok(stored)
        };
        match timeout(self.patience, publishing).await {
            Ok(published) => published,
            Err(_) => Err(Unavailable::new("the store did not answer in time").into()),
        }
    }

    /// Asks until the answer is definite. Where this is given up, the count is unknown from then on:
    /// the next entry begins a new epoch, which fences what may still be on its way.
    async fn store(&self, session: &SessionId, line: &mut Line, record: Record) -> Result<Offset, NotPublished> {
        let begin = || (self.epochs.fetch_add(1, Ordering::Relaxed), 0);
        let (mut epoch, mut n) = line.count.take().unwrap_or_else(begin);
        loop {
            let append = Append {
                session: session.clone(),
                writer: Writer::Producer { id: self.id.clone(), epoch },
                first_n: n + 1,
                records: vec![record.clone()],
                seen: None,
                skips: false,
            };
            match self.log.append(append).await {
                Ok(Appended::Stored { last, .. } | Appended::Duplicate { last, .. }) => {
                    line.count = Some((epoch, n + 1));
                    return Ok(last);
                }

                // The session has expired, or the store went back in time: what is lost is lost, and this
                // entry is not among what is there.
                Ok(
                    Appended::Closed(Closed::Expired)
                    | Appended::Gap { .. }
                    | Appended::Fenced
                    | Appended::RolledBack { .. },
                ) => (epoch, n) = begin(),
                // An entry without a run finds nothing else closed.
                Ok(Appended::Closed(_)) => return Err(NotPublished::Erased),
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    fn line(&self, session: &SessionId) -> Arc<tokio::sync::Mutex<Line>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES && !lines.contains_key(session) {
            lines.retain(|_, line| Arc::strong_count(line) > 1);
        }
        lines.entry(session.clone()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::log::RunFlags;
    use crate::log::scripted::{Scripted, now};
    use crate::session::Kind;

    type Asked = Arc<Mutex<Vec<(u64, u64)>>>;

    fn record() -> Record {
        Record { kind: Kind::Event, run: None, source: None, event: None, id: None, data: "1".into() }
    }

    /// A log that answers in turn (`None`: never), and the (epoch, number) of what it was asked.
    fn answering(answers: Vec<Option<Result<Appended, Unavailable>>>) -> (Publisher, Asked) {
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
        (Publisher::new(Arc::new(log)), asked)
    }

    fn stored() -> Appended {
        let at = Offset::new(5, 5);
        Appended::Stored { first: at, last: at, flags: RunFlags::default(), next: None }
    }

    async fn publish(publisher: &Publisher) -> Result<Offset, NotPublished> {
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
        publisher.patience = Duration::from_millis(200);
        assert!(matches!(publish(&publisher).await, Err(NotPublished::Unavailable(_))));
    }
}
