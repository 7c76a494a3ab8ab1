//! Histories at random, for the rules of `gap`: servers with clocks of their own that lose tails, whole
//! sessions and meta, one after the other. `session.lua` in small writes them; every offset that was ever
//! given is asked about after every step.

use std::collections::HashSet;

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
    /// So many entries, by one of two instances.
    Append(u64, usize),
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
        8 => (1..4u64, 0..2usize).prop_map(|(count, who)| Step::Append(count, who)),
        1 => (1..8u64).prop_map(Step::Trim),
        4 => wait.prop_map(Step::Wait),
        4 => (0..6usize, -skew..=skew).prop_map(|(back, skew)| Step::FailOver(back, skew)),
        1 => Just(Step::Rebuild),
    ];
    proptest::collection::vec(step, 1..80)
}

/// What an instance knows of the offsets that were given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Knows {
    All,
    /// Those that it was given itself.
    Own,
    Nothing,
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

    /// Whether a writer that has `seen` this learns that it is lost.
    fn lost(&self, seen: Offset) -> bool {
        let trimmed = seen.ms <= self.trimmed.ms && seen.seq <= self.trimmed.seq;
        seen != Offset::ZERO && !trimmed && !self.retained().contains(&seen)
    }

    fn date_forks(&mut self, seen: Offset) {
        match self.forks.last() {
            None => self.forks.push((Offset::ZERO, seen.ms)),
            Some((_, at)) if *at >= seen.ms => return,
            Some(_) => {}
        }
        let before = |(tail, _): &&mut (Offset, u64)| tail.ms <= seen.ms && tail.seq < seen.seq;
        self.forks.iter_mut().filter(before).for_each(|(_, at)| *at = (*at).max(seen.ms));
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
    knows: Knows,
    /// The newest offset of each instance's writer.
    seen: [Offset; 2],
    session: Option<Session>,
    /// The states that a replica may have, oldest first.
    before: Vec<Option<Session>>,
    /// Every offset that was given, with all that its reader has.
    given: Vec<Vec<Offset>>,
    /// To whom.
    to: Vec<usize>,
    /// An offset was given twice, by one who did not know: nobody can tell these two branches apart.
    ambiguous: bool,
}

impl World {
    fn new(knows: Knows) -> Self {
        World {
            now: 1_000_000 * MINUTE,
            server: 1,
            skew: 0,
            knows,
            seen: [Offset::ZERO; 2],
            session: None,
            before: Vec::new(),
            given: Vec::new(),
            to: Vec::new(),
            ambiguous: false,
        }
    }

    fn clock(&self) -> u64 {
        (self.now + self.skew).unsigned_abs()
    }

    /// The offsets that an instance knows.
    fn known_to(&self, who: usize) -> HashSet<Offset> {
        let knows = |to: usize| self.knows == Knows::All || self.knows == Knows::Own && to == who;
        let known = self.given.iter().zip(&self.to).filter(|(_, to)| knows(**to));
        known.filter_map(|(past, _)| past.last().copied()).collect()
    }

    fn floor(&self, who: usize) -> u64 {
        self.known_to(who).iter().map(|offset| offset.ms).max().unwrap_or(0)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Wait(ms) => self.now += i64::try_from(ms).unwrap(),
            Step::FailOver(back, skew) => {
                self.server += 1;
                self.skew = skew;
                // A session whose beginning is lost is one whose offsets its new beginner must know.
                let least = usize::from(self.knows == Knows::Nothing);
                let keep = self.before.len().saturating_sub(back).max(least).min(self.before.len());
                self.before.truncate(keep);
                self.session = self.before.last().cloned().flatten();
            }
            Step::Append(count, who) => self.append(count, who),
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
        let (now, floor) = (self.clock(), self.floor(0));
        if let Some(session) = &mut self.session {
            change(session, now, floor);
            self.before.push(self.session.clone());
        }
    }

    fn append(&mut self, count: u64, who: usize) {
        let (now, floor, known) = (self.clock(), self.floor(who), self.known_to(who));
        if let Some(session) = &mut self.session
            && session.srv == self.server
            && session.lost(self.seen[who])
        {
            session.date_forks(self.seen[who]);
        }
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
        let behind = session.forks.last().is_some_and(|(_, at)| *at >= now);
        if fresh || moved || behind {
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
            let new = session.last();
            assert!(!known.contains(&new), "{new} was given to one who knew it");
            self.ambiguous |= self.given.iter().any(|past| past.last() == Some(&new));
            self.given.push(session.past.clone());
            self.to.push(who);
        }
        self.seen[who] = session.last();
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

fn live_through(steps: &[Step], knows: Knows, check: bool) {
    let mut world = World::new(knows);
    for step in steps {
        world.take(step);
        if world.ambiguous {
            return;
        }
        if check {
            world.check();
        }
    }
}

proptest! {
    #[test]
    fn whatever_the_clocks_say_no_reader_keeps_what_the_log_lost_where_the_appender_knew_it(
        steps in steps(120 * MINUTE),
    ) {
        live_through(&steps, Knows::All, true);
    }

    #[test]
    fn where_the_appender_knew_nothing_it_is_so_for_clocks_that_differ_by_a_minute(steps in steps(MINUTE / 2)) {
        live_through(&steps, Knows::Nothing, true);
    }

    #[test]
    fn whatever_the_clocks_say_nobody_is_given_an_offset_that_it_knew(steps in steps(120 * MINUTE)) {
        live_through(&steps, Knows::Own, false);
    }
}

#[test]
fn what_was_lost_just_now_is_told_exactly() {
    let mut world = World::new(Knows::All);
    for step in [Step::Append(3, 0), Step::Wait(5), Step::Append(2, 0), Step::Wait(5), Step::Append(1, 0)] {
        world.take(&step);
    }
    let lost = world.session.as_ref().unwrap().last();
    world.take(&Step::FailOver(1, -60 * MINUTE));
    let told = |world: &World| world.session.as_ref().unwrap().told(lost, world.server).unwrap();
    assert_eq!(told(&world).lost, 1, "before anybody has written");
    world.take(&Step::Append(9, 0));
    assert_eq!((told(&world).lost, told(&world).to.seq), (1, 5));
}
