//! Compaction against recorded answers of real services: what a client makes of the merged events is what
//! it makes of all of them, however the runs of a session fall between one another.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod logs;
mod reducers;
mod rules;

use proptest::prelude::*;

use crate::logs::{Log, Out, compacted, expand, recordings, states};

/// Every recording alone: the client's state is the same, and there are fewer events, never more.
#[test]
fn a_client_makes_the_same_of_a_compacted_recording() {
    for recording in recordings() {
        let log = Log::of(&[&recording.events], &[0].repeat(recording.events.len()));
        let out = compacted(&log, std::slice::from_ref(&recording.dialect));
        expand(&log, &out);
        assert_eq!(
            states(recording.dialect.as_deref(), &out),
            states(recording.dialect.as_deref(), &log.as_it_is()),
            "{}",
            recording.file
        );
    }
}

#[test]
fn a_long_text_answer_has_hardly_any_events_left() {
    for (file, at_most) in [
        ("anthropic-messages__text-long.sse", 12),
        ("openai-chat__deepseek-reasoning_content.sse", 6),
        ("openai-responses__openai-tool-search.sse", 60),
    ] {
        let recording = recordings().iter().find(|recording| recording.file == file).unwrap();
        let log = Log::of(&[&recording.events], &[0].repeat(recording.events.len()));
        let out = compacted(&log, std::slice::from_ref(&recording.dialect));
        assert!(out.len() <= at_most, "{file}: {} of {} are left", out.len(), log.len());
    }
}

/// Which recording each of several runs plays, in what order their events come, and where the reader begins
/// and its replay ends.
fn sessions() -> impl Strategy<Value = (Vec<usize>, Vec<usize>, usize, usize)> {
    let runs = prop::collection::vec(0..recordings().len(), 1..4);
    // Long turns of one run, and quick changes.
    let turns = prop::collection::vec((0..4usize, prop_oneof![1..4usize, 1..60usize]), 1..60);
    let order = turns.prop_map(|turns| turns.into_iter().flat_map(|(run, times)| [run].repeat(times)).collect());
    (runs, order, any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(
        |(runs, order, from, to): (Vec<usize>, Vec<usize>, _, _)| {
            let (from, to) = (from.index(order.len()), to.index(order.len() + 1));
            (runs, order, from.min(to), from.max(to))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// From any place of any session to any other: each entry is in exactly one record, in order, and every
    /// run's client is where it would be.
    #[test]
    fn a_client_makes_the_same_of_any_part_of_any_session((runs, order, from, to) in sessions()) {
        let all = recordings();
        let played: Vec<_> = runs.iter().map(|run| &all[*run]).collect();
        let events: Vec<_> = played.iter().map(|recording| &recording.events).collect();
        let order: Vec<usize> = order.into_iter().map(|run| run % events.len()).collect();
        let log = Log::of(&events, &order);
        let (from, to) = (from.min(log.len()), to.min(log.len()));
        let dialects: Vec<_> = played.iter().map(|recording| recording.dialect.clone()).collect();
        let mut head: Vec<Out> = log.as_it_is();
        let tail = head.split_off(to);
        head.truncate(from);
        let part = compacted(&log.part(from, to), &dialects);
        expand(&log.part(from, to), &part);
        let resumed: Vec<Out> = head.into_iter().chain(part).chain(tail).collect();
        for (run, recording) in played.iter().enumerate() {
            let of_run = |out: &[Out]| -> Vec<Out> { out.iter().filter(|one| one.run == run).cloned().collect() };
            let (full, merged) = (of_run(&log.as_it_is()), of_run(&resumed));
            prop_assert_eq!(states(recording.dialect.as_deref(), &full), states(recording.dialect.as_deref(), &merged), "{}", recording.file);
        }
    }
}
