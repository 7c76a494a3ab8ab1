//! A run after its end: what its owner needs to write the end once more.

use std::mem::size_of;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Feed, Owner, RunSpec};
use crate::log::Fence;
use crate::run::Runs;
use crate::run::books::Books;
use crate::run::call::Found;
use crate::run::orders::orders;
use crate::run::runs::Life;
use crate::run::seats::Seats;
use crate::run::takeover::definite;
use crate::session::{Offset, Record, RunId, SessionId};

/// A run that has its terminal, by its owner.
pub(in crate::run) struct Ended {
    spec: RunSpec,
    life: Life,
    fence: Fence,
    books: Books,
    /// Where the terminal stands.
    terminal: Offset,
}

impl Ended {
    /// The run's session, the run, and where its terminal stands.
    pub(in crate::run) fn place(&self) -> (&SessionId, &RunId, Offset) {
        (&self.spec.session, &self.spec.run, self.terminal)
    }

    /// Bytes in memory.
    pub(in crate::run) fn bytes(&self) -> usize {
        let opening: usize = self.spec.opening.iter().map(|record| record.size() + size_of::<Record>()).sum();
        size_of::<Self>() + opening + self.books.retained_bytes()
    }

    /// Lets go of everything else that was appended.
    pub(in crate::run) fn keep_only_the_terminal(&mut self) {
        while self.books.retained().let_go_oldest() {}
    }
}

impl Owner {
    /// What is to be remembered of a run that has its terminal; `None`: it has one of somebody else's, or none.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        let terminal = self.terminal_at?;
        let spec = RunSpec { values: Vec::new(), on_cancel: None, steer: None, ..self.spec.clone() };
        let books = std::mem::replace(&mut self.books, Books::new(0));
        Some(Ended { spec, life: self.life.clone(), fence: self.fence.clone(), books, terminal })
    }

    /// The owner of a run that has ended, and whose end may be lost.
    fn of_ended(runs: Arc<Runs>, ended: Ended) -> Self {
        let Ended { spec, life, fence, books, terminal } = ended;
        let mut owner = Owner::new(runs, spec, Found::default(), None, oneshot::channel().0);
        (owner.life, owner.fence, owner.books) = (life, fence, books);
        (owner.seen, owner.open, owner.ended) = (Some(terminal), true, true);
        (owner.opens, owner.probes) = (false, true);
        owner
    }
}

impl Runs {
    /// Appends again what the store has lost of a run that has ended. Done when it has its terminal, or
    /// somebody else's.
    pub(in crate::run) async fn end_again(self: &Arc<Self>, ended: Ended) {
        let (session, run, instance) = (&ended.spec.session, &ended.spec.run, &ended.life.instance);
        let (driven, orders) = orders(Found::default().shared(), None, Seats::new(None));
        // Who drives it here has begun it anew; who has taken this instance for dead ends it.
        if !self.driven.enter(run, driven) {
            return;
        }
        if !definite(|| self.log.enlist(instance, session, run)).await {
            return self.driven.leave(run);
        }
        // An end that has begun to be written is waited for like those of active runs.
        let _place = self.may_begin();
        Owner::of_ended(self.clone(), ended).drive(Feed::Closed, orders).await;
    }
}
