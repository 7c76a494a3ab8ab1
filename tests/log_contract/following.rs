//! Followers: hints that are never late enough to lose anything.

use std::sync::Arc;

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

/// The gap-free join, written as the hub does it: subscribe, read, then the pushes; a push that
/// does not continue exactly where the reader stands is answered by reading.
struct Reader {
    log: Arc<dyn Log>,
    session: SessionId,
    following: Following,
    cursor: Offset,
    seen: Vec<Arc<Entry>>,
}

impl Reader {
    async fn join(log: Arc<dyn Log>, session: &SessionId) -> Self {
        let following = log.follow(session).await.unwrap();
        let session = session.clone();
        let mut reader = Reader { log, session, following, cursor: Offset::ZERO, seen: Vec::new() };
        reader.catch_up().await;
        reader
    }

    async fn catch_up(&mut self) {
        loop {
            match self.log.read(&self.session, self.cursor, PageLimits::default()).await.unwrap() {
                Read::Page(page) if page.entries.is_empty() => return,
                Read::Page(page) => self.take(page.entries),
                Read::NotFound => return,
                Read::Gap(gap) => panic!("{gap:?}"),
            }
        }
    }

    fn take(&mut self, entries: Vec<Arc<Entry>>) {
        assert_contiguous(self.cursor, &entries);
        self.cursor = entries.last().unwrap().offset;
        self.seen.extend(entries);
    }

    /// Listens until `count` entries are here.
    async fn until(&mut self, count: usize) {
        let listening = async {
            while self.seen.len() < count {
                match self.following.next().await.expect("the store is open") {
                    Push::Entries { prev, entries } if prev == self.cursor => self.take(entries),
                    Push::Entries { entries, .. } if entries.last().unwrap().offset <= self.cursor => {}
                    Push::Entries { .. } => self.catch_up().await,
                    Push::Note(note) => panic!("{note:?}"),
                    Push::Check => {
                        self.catch_up().await;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("an entry was never announced");
    }
}

async fn a_follower_hears_every_append_in_order_each_with_the_tail_before_it(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let mut tail = owner.open(&*log).await;
    let mut following = log.follow(&owner.session).await.unwrap();
    for i in 1..=20 {
        let (first, last) = owner.says(&*log, &texts("text", i % 4 + 1)).await;
        let push = tokio::time::timeout(PATIENCE, following.next()).await.unwrap();
        let Some(Push::Entries { prev, entries }) = push else { panic!("{push:?}") };
        assert_eq!(prev, tail);
        assert_eq!((entries.first().unwrap().offset, entries.last().unwrap().offset), (first, last));
        assert_eq!(entries, read_after(&*log, &owner.session, prev).await);
        tail = last;
    }
    let end = owner.ends(&*log, Terminal::Completed).await;
    let push = tokio::time::timeout(PATIENCE, following.next()).await.unwrap();
    assert!(matches!(&push, Some(Push::Entries { entries, .. }) if entries[0].offset == end), "{push:?}");
}

async fn a_follower_of_a_session_that_does_not_exist_hears_its_first_entry(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    let mut reader = Reader::join(log.handle(), &owner.session).await;
    let started = owner.open(&*log).await;
    reader.until(1).await;
    assert_eq!(reader.cursor, started);
}

async fn takeovers_and_producers_are_heard_as_well(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let mut reader = Reader::join(log.handle(), &owner.session).await;
    log.takeover(owner.takeover("heir")).await.unwrap();
    reader.until(2).await;
    let writer = Writer::Producer { id: "p".into(), epoch: 1 };
    let append = Append { writer, ..owner.append_records(1, vec![event("hello")]) };
    log.append(append).await.unwrap();
    reader.until(3).await;
    assert_eq!(reader.seen, read_all(&*log, &owner.session).await);
}

async fn no_entry_is_missed_or_doubled_by_who_joins_while_others_write(store: Store) {
    let log = store.open().await;
    let mut owners: Vec<Owner> = (0..3).map(|i| Owner::new("s", &format!("r{i}"))).collect();
    for owner in &mut owners {
        owner.open(&*log).await;
    }
    let s = session("s");
    let total = 3 + 3 * 60;
    let mut tasks = tokio::task::JoinSet::new();
    for mut owner in owners {
        let log = log.handle();
        tasks.spawn(async move {
            for text in texts(owner.run.as_str(), 60) {
                owner.says(&*log, &[text]).await;
            }
            Vec::new()
        });
    }
    for i in 0..6 {
        let (log, s) = (log.handle(), s.clone());
        tasks.spawn(async move {
            // Join in the middle of it: once the log has grown a bit more for every next reader.
            while live(&*log, &s).await.tail.seq < 3 + i * 20 {
                tokio::task::yield_now().await;
            }
            let mut reader = Reader::join(log, &s).await;
            reader.until(total).await;
            reader.seen
        });
    }
    let seen = tokio::time::timeout(PATIENCE * 2, tasks.join_all()).await.unwrap();
    let all = read_all(&*log, &s).await;
    let readers: Vec<_> = seen.into_iter().filter(|seen| !seen.is_empty()).collect();
    assert_eq!(readers.len(), 6);
    for seen in readers {
        assert_eq!(seen, all);
    }
}

async fn what_a_follower_hears_can_be_read_already(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let mut following = log.follow(&owner.session).await.unwrap();
    let writing = {
        let (log, mut owner) = (log.handle(), owner.clone());
        tokio::spawn(async move {
            for text in texts("text", 30) {
                owner.says(&*log, &[text]).await;
            }
        })
    };
    let mut heard = 0;
    while heard < 30 {
        let push = tokio::time::timeout(PATIENCE, following.next()).await.unwrap().unwrap();
        let Push::Entries { prev, entries } = push else { panic!("{push:?}") };
        heard += entries.len();
        let read = page(&*log, &owner.session, prev, PageLimits { entries: entries.len(), bytes: 1 << 20 }).await;
        assert_eq!(read.entries, entries);
    }
    writing.await.unwrap();
}

async fn a_follower_that_does_not_listen_is_owed_a_check_and_catches_up(store: Store) {
    let log = store.open().await;
    let mut owners: Vec<Owner> = (0..16).map(|i| Owner::new("s", &format!("r{i}"))).collect();
    for owner in &mut owners {
        owner.open(&*log).await;
    }
    let mut following = log.follow(&session("s")).await.unwrap();
    let mut reader = Reader::join(log.handle(), &session("s")).await;
    let mut tasks = tokio::task::JoinSet::new();
    for mut owner in owners {
        let log = log.handle();
        tasks.spawn(async move {
            for text in texts(owner.run.as_str(), 100) {
                owner.says(&*log, &[text]).await;
            }
        });
    }
    tasks.join_all().await;
    // 1,600 pushes fit into no bounded channel. The reader may be done before it hears its check: a
    // push that does not continue what it has makes it read as well.
    let owed = async { while !matches!(following.next().await.unwrap(), Push::Check) {} };
    tokio::time::timeout(PATIENCE, owed).await.expect("no check was owed");
    reader.until(16 + 1600).await;
    assert_eq!(reader.seen, read_all(&*log, &session("s")).await);
}

async fn one_follower_that_leaves_does_not_end_another(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let mut first = Reader::join(log.handle(), &owner.session).await;
    let mut second = Reader::join(log.handle(), &owner.session).await;
    owner.says(&*log, &["for both"]).await;
    first.until(2).await;
    second.until(2).await;
    drop(first);
    owner.says(&*log, &["for one"]).await;
    second.until(3).await;
    let mut third = Reader::join(log.handle(), &owner.session).await;
    owner.says(&*log, &["for two"]).await;
    second.until(4).await;
    third.until(4).await;
    assert_eq!(second.seen, third.seen);
}

async fn a_follower_hears_nothing_of_other_sessions(store: Store) {
    let log = store.open().await;
    let (mut mine, mut other) = (Owner::new("mine", "r1"), Owner::new("other", "r2"));
    mine.open(&*log).await;
    let mut following = log.follow(&mine.session).await.unwrap();
    other.open(&*log).await;
    other.says(&*log, &["not for you"]).await;
    let (first, _) = mine.says(&*log, &["for you"]).await;
    let push = tokio::time::timeout(PATIENCE, following.next()).await.unwrap();
    assert!(matches!(&push, Some(Push::Entries { entries, .. }) if entries[0].offset == first), "{push:?}");
}

async fn followers_of_an_erased_session_are_told_to_look(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let mut following = log.follow(&owner.session).await.unwrap();
    log.erase(&owner.session).await.unwrap();
    let push = tokio::time::timeout(PATIENCE, following.next()).await.unwrap();
    assert!(matches!(push, Some(Push::Check)), "{push:?}");
}

on_every_store!(
    a_follower_hears_every_append_in_order_each_with_the_tail_before_it,
    a_follower_of_a_session_that_does_not_exist_hears_its_first_entry,
    takeovers_and_producers_are_heard_as_well,
    no_entry_is_missed_or_doubled_by_who_joins_while_others_write,
    what_a_follower_hears_can_be_read_already,
    a_follower_that_does_not_listen_is_owed_a_check_and_catches_up,
    one_follower_that_leaves_does_not_end_another,
    a_follower_hears_nothing_of_other_sessions,
    followers_of_an_erased_session_are_told_to_look,
);
