//! Which callers of a run are there. Where the route says `on_disconnect = "cancel"`, a run whose
//! callers have all left is ended, once nobody has come back for it within the route's grace.
//!
//! A caller is who made the request, and who comes back for its answer, at whichever instance. A
//! subscriber of the session is none. Nothing that happens here ends a run whose route does not say
//! so, and a caller that was cut off by us has not left.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The seats of one run. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    taken: Arc<watch::Sender<Taken>>,
    /// How long nobody may be there; `None`: for ever.
    grace: Option<Duration>,
}

/// A caller's place: dropped, the caller has left.
#[must_use = "a caller is there only while its seat lives"]
pub struct Seat(Option<Box<dyn FnOnce() + Send>>);

#[derive(Debug, Default)]
struct Taken {
    by: BTreeSet<ByteString>,
    /// Since when nobody has been there, if somebody ever was.
    empty_since: Option<Instant>,
}

impl Seats {
    /// Seats of a run that ends once nobody has been there for as long as `grace`.
    pub(super) fn new(grace: Option<Duration>) -> Self {
        Seats { taken: Arc::default(), grace }
    }

    /// A seat for a caller at this instance; `None`: it makes no difference whether it is there.
    pub(super) fn take(&self) -> Option<Seat> {
        self.grace?;
        let (seats, caller) = (self.clone(), ByteString::from(format!("{:016x}", crate::random::u64())));
        seats.came(caller.clone());
        Some(Seat::new(move || seats.left(&caller)))
    }

    /// A caller is there.
    pub(super) fn came(&self, caller: ByteString) {
        self.taken.send_modify(|taken| {
            taken.by.insert(caller);
            taken.empty_since = None;
        });
    }

    /// A caller has left. One that was never heard of changes nothing.
    pub(super) fn left(&self, caller: &ByteString) {
        self.taken.send_if_modified(|taken| {
            let last = taken.by.remove(caller) && taken.by.is_empty();
            if last {
                taken.empty_since = Some(Instant::now());
            }
            last
        });
    }

    /// Comes once nobody has been there for as long as the grace. Cancel-safe.
    pub(super) async fn abandoned(&self) {
        let Some(grace) = self.grace else { return std::future::pending().await };
        let mut taken = self.taken.subscribe();
        loop {
            let since = taken.borrow_and_update().empty_since;
            let over = async {
                match since {
                    Some(since) => sleep_until(since + grace).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                // The sender is ours.
                _ = taken.changed() => {}
            }
        }
    }
}

impl Seat {
    /// A seat whose caller leaves with `leave`.
    pub fn new(leave: impl FnOnce() + Send + 'static) -> Self {
        Seat(Some(Box::new(leave)))
    }

    /// The caller has what it came for, or it was us who sent it away: whether it is there says
    /// nothing any more.
    pub fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(leave) = self.0.take() {
            leave();
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seat")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn is_abandoned(seats: &Seats) -> bool {
        seats.abandoned().now_or_never().is_some()
    }

    async fn becomes_abandoned(seats: &Seats) {
        tokio::time::timeout(Duration::from_secs(10), seats.abandoned()).await.expect("nobody misses the callers");
    }

    #[tokio::test]
    async fn a_run_is_abandoned_once_all_have_left() {
        let seats = Seats::new(Some(Duration::ZERO));
        let (first, second) = (seats.take(), seats.take());
        drop(first);
        assert!(!is_abandoned(&seats));
        drop(second);
        becomes_abandoned(&seats).await;
    }

    #[tokio::test]
    async fn who_comes_back_within_the_grace_is_in_time() {
        let seats = Seats::new(Some(LONG));
        drop(seats.take());
        assert!(!is_abandoned(&seats));
        let seats = Seats::new(Some(Duration::from_millis(1)));
        drop(seats.take());
        let _back = seats.take();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(!is_abandoned(&seats));
    }

    #[tokio::test]
    async fn nobody_is_missed_who_never_was_there_or_was_sent_away() {
        let seats = Seats::new(Some(Duration::ZERO));
        seats.left(&"a stranger".into());
        seats.take().unwrap().forget();
        assert!(!is_abandoned(&seats));
        assert!(Seats::new(None).take().is_none());
    }

    #[tokio::test]
    async fn what_is_said_of_a_caller_elsewhere_counts_however_often_it_is_said() {
        let seats = Seats::new(Some(Duration::ZERO));
        let caller = ByteString::from("c");
        seats.came(caller.clone());
        seats.came(caller.clone());
        assert!(!is_abandoned(&seats));
        seats.left(&caller);
        seats.left(&caller);
        becomes_abandoned(&seats).await;
    }
}
