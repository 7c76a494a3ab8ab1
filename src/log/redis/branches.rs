//! Histories at random, for the rules of `gap`: servers with clocks of their own that lose tails, whole
//! sessions and meta, one after the other. `session.lua` in small writes them; every offset that was ever
//! given is asked about after every step.

use proptest::prelude::*;

use super::bounds::Meta;
use super::gap::{Cursor, judge, rolled_back};
use crate::log::{Gap, GapReason};
use crate::session::Offset;

const MINUTE: i64 = 60_000;
/// Fewer than in `session.lua`, so that some are forgotten.
const FORKS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    /// Removes so many of the oldest entries, but the newest stays.
    Trim(u64),
    Wait(u64),
    /// Another server takes over with an older state: so many appends and trims back, its clock off by so much.
    FailOver(usize, i64),
    /// Meta is evicted, and rebuilt from the log.
    Rebuild,
}

fn steps(skew: i64) -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![Just(0), 1..50u64, 1000..200_000u64];
    let step = prop_oneof![
        8 => (1..4u64).prop_map(Step::Append),
        1 => (1..8u64).prop_map(Step::Trim),
        4 => wait.prop_map(Step::Wait),
        4 => (0..6usize, -skew..=skew).prop_map(|(back, skew)| Step::FailOver(back, skew)),
        1 => Just(Step::Rebuild),
    ];
    proptest::collection::vec(step, 1..80)
}

/// A session as one server has it.
#[derive(Clone, Debug)]
struct Session {
    created_ms: u64,
    trimmed: Offset,
    /// Everything that was ever appended to this branch, also what is trimmed.
    past: Vec<Offset>,
    retained: u64,
    forks: Vec<(Offset, u64)>,
    srv: u64,
}

impl Session {
    fn last(&self) -> Offset {
        self.past.last().copied().unwrap_or_default()
    }

    fn retained(&self) -> &[Offset] {
        &self.past[self.past.len() - self.retained as usize..]
    }

    fn meta(&self) -> Meta {
        Meta {
            created_ms: self.created_ms,
            expires_ms: u64::MAX,
            now_ms: 0,
            last: self.last(),
            trimmed: self.trimmed,
            expired: Offset::ZERO,
            base: Offset::ZERO,
            entries: self.retained,
            bytes: 0,
            newest: None,
            forks: self.forks.clone(),
            srv: self.srv.to_string(),
        }
    }

    /// What a reader is told; `None`: its cursor is in the log.
    fn told(&self, cursor: Offset, server: u64) -> Option<Gap> {
        if self.retained().contains(&cursor) {
            return None;
        }
        match judge(&self.meta(), cursor) {
            Cursor::Exact => None,
            Cursor::Lost(gap) => Some(gap),
            Cursor::Unknown => Some(rolled_back(&self.meta(), cursor, &server.to_string())),
        }
    }
}

struct World {
    /// The true time.
    now: i64,
    server: u64,
    skew: i64,
    /// Whether who appends knows every offset that was ever given.
    knows: bool,
    session: Option<Session>,
    /// The states that a replica may have, oldest first.
    before: Vec<Option<Session>>,
    /// Every offset that was given, with all that its reader has.
    given: Vec<Vec<Offset>>,
    /// An offset was given twice, by one who did not know: nobody can tell these two branches apart.
    ambiguous: bool,
}

impl World {
    fn new(knows: bool) -> Self {
        let now = 1_000_000 * MINUTE;
        World { now, server: 1, skew: 0, knows, session: None, before: vec![], given: vec![], ambiguous: false }
    }

    fn clock(&self) -> u64 {
        (self.now + self.skew).unsigned_abs()
    }

    fn floor(&self) -> u64 {
        let ms = self.given.iter().filter_map(|past| past.last()).map(|offset| offset.ms).max();
        ms.filter(|_| self.knows).unwrap_or(0)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Wait(ms) => self.now += i64::try_from(ms).unwrap(),
            Step::FailOver(back, skew) => {
                self.server += 1;
                self.skew = skew;
                // A session whose beginning is lost is one whose offsets its new beginner must know.
                let least = usize::from(!self.knows);
                let keep = self.before.len().saturating_sub(back).max(least).min(self.before.len());
                self.before.truncate(keep);
                self.session = self.before.last().cloned().flatten();
            }
            Step::Append(count) => self.append(count),
            Step::Trim(count) => self.change(|session, _, _| {
                let count = count.min(session.retained - 1);
                let kept = session.past.len() - session.retained as usize + count as usize;
                session.trimmed = if kept == 0 { Offset::ZERO } else { session.past[kept - 1] };
                session.retained -= count;
            }),
            Step::Rebuild => self.change(|session, now, floor| {
                let first = session.retained()[0];
                session.created_ms = first.ms;
                session.trimmed = if first.seq == 1 { Offset::ZERO } else { Offset::new(first.ms, first.seq - 1) };
                session.forks = vec![(Offset::ZERO, now.max(floor))];
            }),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Session, u64, u64)) {
        let (now, floor) = (self.clock(), self.floor());
        if let Some(session) = &mut self.session {
            change(session, now, floor);
            self.before.push(self.session.clone());
        }
    }

    fn append(&mut self, count: u64) {
        let (now, floor) = (self.clock(), self.floor());
        let fresh = self.session.is_none();
        let session = self.session.get_or_insert_with(|| Session {
            created_ms: 0,
            trimmed: Offset::ZERO,
            past: Vec::new(),
            retained: 0,
            forks: Vec::new(),
            srv: self.server,
        });
        let (last, moved) = (session.last(), session.srv != self.server);
        let mut ms = now.max(last.ms);
        if fresh || moved {
            ms = ms.max(floor + 1);
        }
        if fresh {
            session.created_ms = ms;
        }
        if moved {
            session.forks.push((last, now.max(floor).max(last.ms)));
            if session.forks.len() > FORKS {
                let forgotten = session.forks.remove(0);
                session.forks[0] = (Offset::ZERO, session.forks[0].1.max(forgotten.1));
            }
            session.srv = self.server;
        }
        for _ in 0..count {
            session.past.push(Offset::new(ms, session.last().seq + 1));
            session.retained += 1;
            let twice = self.given.iter().any(|past| past.last() == session.past.last());
            assert!(!twice || !self.knows, "{} was given twice", session.last());
            self.ambiguous |= twice;
            self.given.push(session.past.clone());
        }
        self.before.push(self.session.clone());
    }

    /// No reader keeps what the log does not have.
    fn check(&self) {
        let Some(session) = &self.session else { return };
        for has in &self.given {
            let cursor = *has.last().unwrap();
            let kept = match session.told(cursor, self.server) {
                None => cursor.seq,
                Some(Gap { to, reason: GapReason::RolledBack, .. }) => {
                    let exact = to == Offset::ZERO || has.contains(&to);
                    assert!(exact, "{cursor} is told {to}, which its reader never had: {session:?}");
                    to.seq
                }
                Some(_) => cursor.seq,
            };
            let foreign = has.iter().take(kept as usize).find(|offset| !session.past.contains(offset));
            assert_eq!(foreign, None, "{cursor} keeps up to {kept} of {has:?}: {session:?}");
        }
    }
}

fn live_through(steps: &[Step], knows: bool) {
    let mut world = World::new(knows);
    for step in steps {
        world.take(step);
        if world.ambiguous {
            return;
        }
        world.check();
    }
}

proptest! {
    #[test]
    fn whatever_the_clocks_say_no_reader_keeps_what_the_log_lost_where_the_appender_knew_it(
        steps in steps(120 * MINUTE),
    ) {
        live_through(&steps, true);
    }

    #[test]
    fn where_the_appender_knew_nothing_it_is_so_for_clocks_that_differ_by_a_minute(steps in steps(MINUTE / 2)) {
        live_through(&steps, false);
    }
}

#[test]
fn what_was_lost_just_now_is_told_exactly() {
    let mut world = World::new(true);
    for step in [Step::Append(3), Step::Wait(5), Step::Append(2), Step::Wait(5), Step::Append(1)] {
        world.take(&step);
    }
    let lost = world.session.as_ref().unwrap().last();
    world.take(&Step::FailOver(1, -60 * MINUTE));
    let told = |world: &World| world.session.as_ref().unwrap().told(lost, world.server).unwrap();
    assert_eq!(told(&world).lost, 1, "before anybody has written");
    world.take(&Step::Append(9));
    assert_eq!((told(&world).lost, told(&world).to.seq), (1, 5));
}
