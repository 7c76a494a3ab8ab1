//! Whether a session that has settled is as it must be.

use std::sync::Arc;

use sidestream::log::{Bounds, Log, PageLimits, Read};
use sidestream::session::*;

use crate::race::{Busy, Known, World};
use crate::readers::Seen;

/// Reads the log through both instances and holds it against what everybody was told.
pub async fn of_the_log(world: &World) -> Vec<Arc<Entry>> {
    let entries = whole(&*world.logs[0], &world.session).await;
    assert_eq!(whole(&*world.logs[1], &world.session).await, entries, "both instances read the same");
    let known = world.known().clone();
    for (i, known) in known.iter().enumerate() {
        of_a_run(world, i, known, &entries);
    }
    of_the_queue(world, &known, &entries);
    let written: Vec<&str> =
        entries.iter().filter(|entry| entry.record.run.is_none()).map(|entry| &*entry.record.data).collect();
    let expected: Vec<String> = (0..world.plan.written).map(|n| format!("written {n}")).collect();
    assert_eq!(written, expected, "what was written directly");
    entries
}

/// What a reader saw is an exact slice of the log, to its end.
pub fn of_a_reader(entries: &[Arc<Entry>], seen: &Seen) {
    let from = entries.partition_point(|entry| entry.offset <= seen.after);
    let offsets = |entries: &[Arc<Entry>]| entries.iter().map(|entry| entry.offset.to_string()).collect::<Vec<_>>();
    assert_eq!(offsets(&seen.entries), offsets(&entries[from..]), "a reader that began after {}", seen.after);
    assert_eq!(seen.entries, entries[from..], "a reader that began after {}", seen.after);
}

fn of_a_run(world: &World, i: usize, known: &Known, entries: &[Arc<Entry>]) {
    let run = world.run(i);
    let own: Vec<_> = entries.iter().filter(|entry| entry.record.run.as_ref() == Some(&run)).collect();
    let what = |name: &str| format!("run {i}, {name}: {known:#?}\n{own:#?}");
    assert!(known.owners.len() <= 1, "{}", what("more than one owner"));
    if let Some(why) = known.refused {
        assert!(own.is_empty() && known.owners.is_empty(), "{why}; {}", what("and yet it is there"));
    }
    if own.is_empty() {
        assert_eq!(known.acknowledged, 0, "{}", what("lost"));
        assert!(known.ends.is_empty() && known.cancelled.is_none(), "{}", what("never there"));
        return;
    }
    // Started, its events as they were sent, one terminal.
    let ended = own.iter().filter(|entry| entry.record.state().and_then(RunState::terminal).is_some()).count();
    assert_eq!(ended, 1, "{}", what("terminals"));
    let (first, last) = (own[0], own[own.len() - 1]);
    assert_eq!(first.record.state(), Some(RunState::Started), "{}", what("its first entry"));
    let Some(state) = last.record.state().and_then(RunState::terminal) else { panic!("{}", what("its last entry")) };
    let events = &own[1..own.len() - 1];
    for (event, n) in events.iter().zip(2..) {
        assert_eq!(event.record.data, world.text(i, n), "{}", what("its events"));
    }
    // An acknowledged terminal is the last; all others are counted without it.
    let stored = own.len() as u64;
    assert!(known.acknowledged <= stored, "{}", what("acknowledged entries are lost"));
    assert!(stored <= known.attempted + 1, "{}", what("more than was sent"));
    for (offset, told) in &known.ends {
        assert_eq!((*offset, *told), (last.offset, state), "{}", what("somebody was told of another end"));
    }
    if let (Some(cancelled), Some(taken_over)) = (known.cancelled, known.taken_over)
        && cancelled < taken_over
    {
        assert_eq!(state, Terminal::Cancelled, "{}", what("a takeover forgot the cancellation"));
    }
}

/// Runs of a route whose sends all wait never overlap, and begin in the order in which they came.
fn of_the_queue(world: &World, known: &[Known], entries: &[Arc<Entry>]) {
    let mut held: Vec<(Offset, Offset, usize)> = Vec::new();
    for (i, send) in world.plan.sends.iter().enumerate() {
        let run = world.run(i);
        let mut own = entries.iter().filter(|entry| entry.record.run.as_ref() == Some(&run));
        if send.busy == Busy::Queue
            && !known[i].exempt
            && let (Some(first), Some(last)) = (own.next(), own.next_back())
        {
            held.push((first.offset, last.offset, i));
        }
    }
    held.sort();
    for pair in held.windows(2) {
        assert!(pair[0].1 < pair[1].0, "runs {} and {} overlap: {held:?}", pair[0].2, pair[1].2);
    }
    for (place, (_, _, early)) in held.iter().enumerate() {
        for (_, _, late) in &held[place + 1..] {
            let overtaken = known[*late].queued.is_some_and(|queued| queued < known[*early].asked);
            assert!(!overtaken, "run {early} came after run {late} had its place, and began before it: {known:#?}");
        }
    }
}

async fn whole(log: &dyn Log, session: &SessionId) -> Vec<Arc<Entry>> {
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    if matches!(log.bounds(session).await.unwrap(), Bounds::NotFound) {
        return entries;
    }
    let mut at = Offset::ZERO;
    loop {
        let page = match log.read(session, at, PageLimits::default()).await.unwrap() {
            Read::Page(page) => page,
            Read::NotFound => return entries,
            Read::Gap(gap) => panic!("nothing was lost: {gap:?}"),
        };
        if page.entries.is_empty() {
            return entries;
        }
        for entry in page.entries {
            assert_eq!(entry.offset.seq, at.seq + 1, "a hole after {at}");
            assert!(entry.offset.ms >= at.ms, "time went back after {at}");
            at = entry.offset;
            entries.push(entry);
        }
    }
}
