//! The cursor: all that a subscriber is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::hub::board::Behind;
use crate::hub::follower::{Followed, Phase, Signal};
use crate::hub::{Hub, Item, NewsItem, Whole, pages, ring};
use crate::session::{Gap, GapReason, Offset, SessionId};
use crate::telemetry::{Fact, GapTold, Held, RingRead};

/// How much one delivery brings at most, by the items' weight. Small enough that a slow subscriber
/// holds little, large enough that a fast one is served in few steps.
const DELIVERY_WEIGHT: usize = 128 << 10;

/// Pause between attempts while the store does not answer.
const RETRY: Duration = Duration::from_millis(250);

/// What a cursor brings. The sequence of deliveries is an exact slice of the log: contiguous, in
/// order, without a duplicate, except where a `Gap` says otherwise.
#[derive(Debug)]
pub enum Delivery {
    /// The next entries.
    Items(Vec<Arc<Item>>),
    /// What was in the log when the subscriber came has been delivered. Once.
    Live(Offset),
    /// A range is missing; what comes next follows `gap.to`.
    Gap(Gap),
    /// The session was erased; nothing follows.
    Erased,
    /// What is new beside the entries; only to who asked for it.
    News(Vec<Arc<NewsItem>>),
    /// The same, all of it as it is now: the subscriber was too far behind for the news.
    Whole(Whole),
}

/// A position in a session.
pub struct Cursor {
    hub: Arc<Hub>,
    followed: Arc<Followed>,
    signal: watch::Receiver<Signal>,
    at: Offset,
    replay_to: Offset,
    live: bool,
    /// The number of the next news that it wants.
    news: Option<u64>,
    /// The last delivery was of news: entries are next, if there are any.
    news_were_last: bool,
    _counted: Held,
}

impl Cursor {
    pub(super) fn new(hub: Arc<Hub>, followed: Arc<Followed>) -> Self {
        let counted = hub.metrics.subscriber();
        let signal = followed.signal();
        Cursor {
            hub,
            followed,
            signal,
            at: Offset::ZERO,
            replay_to: Offset::ZERO,
            live: false,
            news: None,
            news_were_last: false,
            _counted: counted,
        }
    }

    pub(super) fn at(mut self, at: Offset, replay_to: Offset) -> Self {
        (self.at, self.replay_to) = (at, replay_to);
        self
    }

    pub(super) fn followed(&self) -> &Arc<Followed> {
        &self.followed
    }

    /// The session it reads.
    pub fn session(&self) -> &SessionId {
        &self.followed.session
    }

    /// The last entry delivered (or the cursor that it began with).
    pub fn position(&self) -> Offset {
        self.at
    }

    /// Whether `offset` was in the log when the subscriber came.
    pub fn is_replay(&self, offset: Offset) -> bool {
        offset.seq <= self.replay_to.seq
    }

    /// All that the devices of the session share beside its entries. From now on the deliveries tell
    /// what is new of it.
    pub fn share(&mut self) -> Whole {
        let (whole, next) = self.followed.whole();
        self.news = Some(next);
        whole
    }

    /// Waits for the next delivery. Cancel-safe: a delivery that was not returned did not happen.
    pub async fn next(&mut self) -> Delivery {
        loop {
            let phase = self.signal.borrow_and_update().phase;
            if phase == Phase::Erased {
                return Delivery::Erased;
            }
            if !self.news_were_last
                && let Some(delivery) = self.take_news()
            {
                self.news_were_last = true;
                return delivery;
            }
            let news_were_last = std::mem::take(&mut self.news_were_last);
            match self.followed.ahead(self.at, DELIVERY_WEIGHT) {
                ring::Ahead::Items(items) => {
                    RingRead::Hit.emit(&self.hub.metrics);
                    return self.deliver(items);
                }
                // There may be more news.
                ring::Ahead::Tail if self.live && news_were_last => {}
                ring::Ahead::Tail if self.live => self.wait().await,
                // Also where the log went back behind what was its tail when we came.
                ring::Ahead::Tail => return self.now_live(),
                ring::Ahead::Elsewhere => {
                    if let Some(delivery) = self.read().await {
                        return delivery;
                    }
                }
            }
        }
    }

    fn take_news(&mut self) -> Option<Delivery> {
        let (behind, next) = self.followed.news(self.news?);
        let delivery = match behind {
            Behind::Nothing => return None,
            Behind::News(news) => Delivery::News(news),
            Behind::TooFar => return Some(Delivery::Whole(self.share())),
        };
        self.news = Some(next);
        Some(delivery)
    }

    /// Reads from the log, behind the ring.
    async fn read(&mut self) -> Option<Delivery> {
        RingRead::Miss.emit(&self.hub.metrics);
        let followed = &self.followed;
        let pages = &self.hub.pages;
        let log = &*self.hub.log;
        match pages.after(log, followed, self.at, DELIVERY_WEIGHT).await {
            Ok(pages::Ahead::Items(items)) => Some(self.deliver(items)),
            Ok(pages::Ahead::Gap(gap)) => Some(self.told(gap)),
            // There is no log, and there was none while it was followed: nothing of what the
            // reader has is in it.
            Ok(pages::Ahead::NotFound) if !followed.exists() && self.at != Offset::ZERO => {
                let (from, lost) = (self.at, self.at.seq);
                let gap = Gap { from, to: Offset::ZERO, lost, reason: GapReason::RolledBack };
                Some(self.told(gap))
            }
            // The log ends at our cursor and the ring does not know it yet, or the session went
            // away: the follower finds out what is so.
            Ok(pages::Ahead::Tail | pages::Ahead::NotFound) => {
                self.followed.check();
                self.wait().await;
                None
            }
            Err(_) => {
                tokio::time::sleep(RETRY).await;
                None
            }
        }
    }

    fn told(&mut self, gap: Gap) -> Delivery {
        GapTold { session: self.session(), reason: gap.reason, lost: gap.lost }.emit(&self.hub.metrics);
        self.at = gap.to;
        Delivery::Gap(gap)
    }

    /// Delivers what follows our position, which thereby is proven to be in the log.
    fn deliver(&mut self, mut items: Vec<Arc<Item>>) -> Delivery {
        if !self.live {
            if self.at.seq >= self.replay_to.seq {
                return self.now_live();
            }
            // What came since belongs after `Live`.
            items.retain(|item| self.is_replay(item.offset()));
        }
        if let Some(last) = items.last() {
            self.at = last.offset();
        }
        Delivery::Items(items)
    }

    fn now_live(&mut self) -> Delivery {
        self.live = true;
        Delivery::Live(self.at)
    }

    async fn wait(&mut self) {
        if self.signal.changed().await.is_err() {
            // The follower never ends while a cursor exists; if it did, waiting is all there is.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.followed.parted();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::hub::{HubLimits, News};
    use crate::log::scripted::{Scripted, now};
    use crate::log::{Bounds, Ephemeral, Note, Present, Push, Read, Shared, following};
    use crate::session::{After, ClientName, ConnectionId};
    use crate::telemetry::Metrics;

    fn said(n: usize) -> Push {
        let client = ClientName::parse("phone").unwrap();
        Push::Note(Note::Said(Ephemeral { client, event: None, data: n.to_string().into() }))
    }

    fn here(connection: &str) -> Present {
        let (connection, client) = (ConnectionId::parse(connection).unwrap(), ClientName::parse("phone").unwrap());
        Present { connection, client, state: "1".into() }
    }

    #[tokio::test]
    async fn a_subscriber_that_is_far_behind_is_told_who_is_here_now_and_misses_what_was_said() {
        let log = Arc::new(Scripted::default());
        let (sender, pushes) = following(10_000);
        let pushes = Mutex::new(Some(pushes));
        log.follow.answers(move |()| now(pushes.lock().unwrap().take().expect("it is followed once")));
        log.shared.answers(|()| now(Shared::default()));
        log.bounds.answers(|()| now(Bounds::NotFound));
        log.read.answers(|_| now(Read::NotFound));
        let limits = HubLimits { ring_bytes: 1 << 20 };
        let (hub, _attended) = Hub::new(log, limits, Metrics::new(), TaskTracker::new());
        let session = SessionId::parse("s").unwrap();
        let mut quick = hub.subscribe(&session, After::Start, true).await.unwrap().cursor;
        let mut slow = hub.subscribe(&session, After::Start, true).await.unwrap().cursor;
        for cursor in [&mut quick, &mut slow] {
            assert_eq!(cursor.share(), Whole::default());
            assert!(matches!(cursor.next().await, Delivery::Live(_)));
        }
        let mut heard = 0;
        for n in 0..1000 {
            assert!(sender.send(said(n)));
            while heard <= n {
                let Delivery::News(news) = quick.next().await else { panic!("it is not behind") };
                heard += news.len();
            }
        }
        assert!(sender.send(Push::Note(Note::Here(here("c")))));
        let Delivery::News(news) = quick.next().await else { panic!("it is not behind") };
        assert_eq!(*news[0].news(), News::Joined(here("c")));
        let Delivery::Whole(whole) = slow.next().await else { panic!("it is not told the whole") };
        assert_eq!(whole.present, [here("c")]);
        assert!(sender.send(said(1)));
        assert!(matches!(slow.next().await, Delivery::News(news) if news.len() == 1));
    }
}
