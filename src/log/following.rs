//! Hearing of new entries: hints, over a bounded channel whose overflow is never silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use super::Note;
use crate::session::{Entry, Offset};

/// What a follower hears. A hint, never a verdict: a push may be lost, late or twice.
#[derive(Clone, Debug)]
pub enum Push {
    /// These entries were appended right after `prev`.
    Entries {
        /// The tail before them.
        prev: Offset,
        /// The entries, contiguous.
        entries: Vec<Arc<Entry>>,
    },
    /// Something beside the entries, that other devices of the session are to know.
    Note(Note),
    /// Something happened that this push does not carry (too large, pushes lost, connection
    /// renewed, entries erased): read, also what is shared ([`Log::shared`](super::Log::shared)).
    Check,
}

/// The receiving end of [`Log::follow`](super::Log::follow). Dropping it ends the following.
///
/// The channel is bounded; when it is full, pushes are dropped and a [`Push::Check`] is owed.
#[derive(Debug)]
pub struct Following {
    pushes: mpsc::Receiver<Push>,
    overflow: Arc<AtomicBool>,
}

/// The sending end of a [`Following`], kept by the store's implementation.
#[derive(Clone, Debug)]
pub struct PushSender {
    pushes: mpsc::Sender<Push>,
    overflow: Arc<AtomicBool>,
}

/// A bounded channel of pushes; overflow drops pushes and owes a [`Push::Check`].
pub fn following(capacity: usize) -> (PushSender, Following) {
    let (tx, rx) = mpsc::channel(capacity);
    let overflow = Arc::new(AtomicBool::new(false));
    (PushSender { pushes: tx, overflow: overflow.clone() }, Following { pushes: rx, overflow })
}

impl Following {
    /// The next push; `None` when the store has shut down.
    pub async fn next(&mut self) -> Option<Push> {
        if self.pushes.is_empty() && self.overflow.swap(false, Ordering::AcqRel) {
            return Some(Push::Check);
        }
        self.pushes.recv().await
    }
}

impl PushSender {
    /// Hands `push` over, or drops it where the follower is behind. `false`: the follower is gone.
    pub fn send(&self, push: Push) -> bool {
        match self.pushes.try_send(push) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(push)) => self.overflows(push),
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// `push` was refused because the channel was full.
    ///
    /// The follower may have emptied it since, and be asleep where it no longer looks at the flag.
    /// So: the flag first, then once more. If that is refused as well, there is a push that the
    /// follower takes after the flag was set.
    fn overflows(&self, push: Push) -> bool {
        self.overflow.store(true, Ordering::Release);
        !matches!(self.pushes.try_send(push), Err(mpsc::error::TrySendError::Closed(_)))
    }

    /// Whether the follower is gone.
    pub fn is_closed(&self) -> bool {
        self.pushes.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[tokio::test]
    async fn a_follower_that_empties_its_channel_during_an_overflow_is_still_owed_its_check() {
        let (sender, mut following) = following(1);
        let entries = || Push::Entries { prev: Offset::ZERO, entries: Vec::new() };
        assert!(sender.send(entries()));
        // The next push is refused, but before the sender can say so, the follower takes the first
        // and goes to sleep.
        assert!(matches!(following.next().await, Some(Push::Entries { .. })));
        let mut asleep = pin!(following.next());
        let mut context = Context::from_waker(Waker::noop());
        assert!(asleep.as_mut().poll(&mut context).is_pending());
        assert!(sender.overflows(entries()));
        assert!(matches!(asleep.poll(&mut context), Poll::Ready(Some(_))), "it sleeps on");
    }

    #[tokio::test]
    async fn after_the_pushes_that_fitted_comes_the_check_for_those_that_did_not() {
        let (sender, mut following) = following(2);
        for _ in 0..5 {
            assert!(sender.send(Push::Entries { prev: Offset::ZERO, entries: Vec::new() }));
        }
        for _ in 0..2 {
            assert!(matches!(following.next().await, Some(Push::Entries { .. })));
        }
        assert!(matches!(following.next().await, Some(Push::Check)));
        drop(following);
        assert!(!sender.send(Push::Check), "the follower is gone");
    }
}
