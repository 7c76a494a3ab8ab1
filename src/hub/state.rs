//! What is known of a followed session. Sans-I/O, but for the times at which something is due.

use tokio::time::Instant;

use crate::hub::active;
use crate::hub::board::Board;
use crate::hub::ring::Ring;
use crate::session::{ActiveRun, Offset, Record, RunState};

/// See the module.
pub(super) struct State {
    pub(super) ring: Ring,
    pub(super) exists: bool,
    pub(super) active: Vec<ActiveRun>,
    pub(super) board: Board,
    /// When the first lease of who is here ends, as far as it is known.
    pub(super) lease_ends: Option<Instant>,
    /// When its active runs were looked after last, and whether they are to be soon.
    pub(super) attended: Option<Instant>,
    pub(super) attend_again: bool,
}

impl State {
    /// Nothing is known yet but where the ring begins.
    pub(super) fn new(ring: Ring) -> Self {
        State {
            ring,
            exists: false,
            active: Vec::new(),
            board: Board::default(),
            lease_ends: None,
            attended: None,
            attend_again: false,
        }
    }

    /// Keeps the list of active runs, from the entries that come by.
    pub(super) fn note<'a>(&mut self, news: impl Iterator<Item = (Offset, &'a Record)>) {
        self.exists = true;
        for (offset, record) in news {
            let (Some(state), Some(run)) = (record.state(), &record.run) else { continue };
            match state {
                // After a rollback the list may know of it already.
                RunState::Started if self.active.iter().any(|active| active.run == *run) => {}
                RunState::Started => self.active.push(active::begun(run.clone(), offset, record)),
                RunState::Ended(_) => self.active.retain(|active| active.run != *run),
                RunState::Stalled | RunState::Resumed => {
                    for active in self.active.iter_mut().filter(|active| active.run == *run) {
                        active.stalled = state == RunState::Stalled;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::RunId;

    #[test]
    fn a_run_that_is_read_again_after_a_rollback_is_active_once() {
        let run = RunId::parse("r").unwrap();
        let mut state = State::new(Ring::new(Offset::new(1, 1), 0));
        state.active = vec![ActiveRun::new(run.clone(), Offset::new(2, 2))];
        let started = Record::run_state(run, RunState::Started, "{}");
        state.note([(Offset::new(2, 2), &started)].into_iter());
        assert_eq!(state.active.len(), 1);
    }
}
