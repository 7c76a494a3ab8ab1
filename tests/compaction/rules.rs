//! What is merged, and what never is.

use std::sync::Arc;

use proptest::prelude::*;

use sidestream::dialect::Dialect;
use sidestream::dialect::compact::{BLOCK_BYTES, Compacted, Compactor};
use sidestream::session::{Entry, Kind, Offset, Record, RunId};

fn dialect(more: &str) -> Arc<Dialect> {
    let text = format!("name = \"own\"\n{more}\n[[delta]]\ntext = \"/t\"\n[[delta]]\ntext = \"/c/*/d/t\"");
    Arc::new(Dialect::read(&text).unwrap())
}

fn event(run: &str, data: &str) -> Record {
    let run = Some(RunId::parse(run).unwrap());
    Record { kind: Kind::Event, run, source: None, event: None, id: None, data: data.into() }
}

/// What a reader gets: `<run> <first>-<last> <part>/<parts> <data>`.
fn read(dialect: &Arc<Dialect>, records: impl IntoIterator<Item = Record>) -> Vec<String> {
    let (mut compactor, mut out) = (Compactor::default(), Vec::new());
    for (n, record) in records.into_iter().enumerate() {
        let entry = Arc::new(Entry { offset: Offset::new(1, n as u64 + 1), record });
        compactor.push(entry, |_| Some(dialect.clone()), &mut out);
    }
    compactor.flush(&mut out);
    let line = |record: &Record, first: Offset, last: Offset, (n, of): (usize, usize)| {
        let run = record.run.as_ref().map_or("-", RunId::as_str);
        format!("{run} {}-{} {n}/{of} {}", first.seq, last.seq, record.data)
    };
    let lines = out.iter().map(|one| match one {
        Compacted::Entry(entry) => line(&entry.record, entry.offset, entry.offset, (1, 1)),
        Compacted::Merged(merged) => line(&merged.entry.record, merged.first, merged.entry.offset, merged.part),
    });
    lines.collect()
}

fn of_one(more: &str, data: &[&str]) -> Vec<String> {
    read(&dialect(more), data.iter().map(|data| event("r", data)))
}

#[test]
fn texts_are_joined_as_they_are_written() {
    let merged = of_one("", &[r#"{"t":"\ud83d","k":1}"#, r#"{"t":"\ude00 \"é\\","k":1}"#, r#"{"t":"","k":1}"#]);
    assert_eq!(merged, [r#"r 1-3 1/1 {"t":"\ud83d\ude00 \"é\\","k":1}"#]);
}

#[test]
fn whitespace_between_tokens_says_nothing_and_that_within_strings_does() {
    let merged = of_one("", &[r#"{"t":"a","k":"x y"}"#, r#"{"t": "b", "k":"x y"  }"#, r#" {"t":"c","k" : "x y"}"#]);
    assert_eq!(merged, [r#"r 1-3 1/1  {"t":"abc","k" : "x y"}"#]);
    let apart = [r#"{"t":"a","k":"x y"}"#, r#"{"t":"b","k":"xy"}"#];
    assert_eq!(of_one("", &apart).len(), 2);
}

#[test]
fn what_differs_elsewhere_is_not_merged() {
    for (a, b) in [
        (r#"{"t":"a","k":1}"#, r#"{"t":"b","k":2}"#),
        (r#"{"t":"a","k":1}"#, r#"{"k":1,"t":"b"}"#),
        (r#"{"t":"a"}"#, r#"{"t":"b","k":null}"#),
        (r#"{"c":[{"i":0,"d":{"t":"a"}}]}"#, r#"{"c":[{"i":1,"d":{"t":"b"}}]}"#),
        (r#"{"c":[{"d":{"t":"a"}}]}"#, r#"{"c":[{"d":{"t":"a"}},{"d":{"t":"b"}}]}"#),
        (r#"{"t":"a"}"#, r#"{"t":1}"#),
        (r#"{"t":null}"#, r#"{"t":null}"#),
        (r#"{"k":1}"#, r#"{"k":1}"#),
        (r#"{"t":"a"}"#, r#"{"t":"b"} x"#),
        (r#"{"t":"a"}"#, r#"{"t":"b\q"}"#),
        (r#"{"t":"a"}"#, r#"{"\u0074":"b"}"#),
        ("[DONE]", "[DONE]"),
    ] {
        assert_eq!(of_one("", &[a, b]).len(), 2, "{a} {b}");
    }
    let named = |name: &str| Record { event: Some(name.into()), ..event("r", r#"{"t":"a"}"#) };
    assert_eq!(read(&dialect(""), [named("x"), named("y")]).len(), 2);
    let of = |source: &str| Record { source: Some(source.into()), ..event("r", r#"{"t":"a"}"#) };
    assert_eq!(read(&dialect(""), [of("x"), of("y")]).len(), 2);
    let dropped = Record { kind: Kind::EventDropped, ..event("r", r#"{"t":"a"}"#) };
    assert_eq!(read(&dialect(""), [dropped.clone(), dropped]).len(), 2);
    let nobodys = Record { run: None, ..event("r", r#"{"t":"a"}"#) };
    assert_eq!(read(&dialect(""), [nobodys.clone(), nobodys]).len(), 2);
}

/// Clients that add up what a list holds have `a b c d` of it, and would have `a c b d`.
#[test]
fn events_with_several_texts_in_one_list_are_not_merged() {
    let two = |a: &str, b: &str| format!(r#"{{"c":[{{"d":{{"t":"{a}"}}}},{{"d":{{"t":"{b}"}}}}]}}"#);
    assert_eq!(of_one("", &[&two("a", "b"), &two("c", "d")]).len(), 2);
    let other = "[[delta]]\ntext = \"/c/*/r\"";
    let apart = |a: &str, b: &str| format!(r#"{{"c":[{{"r":"{a}"}},{{"d":{{"t":"{b}"}}}}]}}"#);
    assert_eq!(of_one(other, &[&apart("a", "b"), &apart("c", "d")]).len(), 2);
    let both = |a: &str, b: &str| format!(r#"{{"c":[{{"r":"{a}","d":{{"t":"{b}"}}}}]}}"#);
    let merged = of_one(other, &[&both("a", "b"), &both("c", "d")]);
    assert_eq!(merged, [format!("r 1-2 1/1 {}", both("ac", "bd"))]);
}

/// A reader holds what it knows of as many runs as a block may have.
#[test]
fn an_event_that_is_larger_than_a_block_is_not_looked_into() {
    let large = format!(r#"{{"t":"a","k":"{}"}}"#, "x".repeat(2 * BLOCK_BYTES));
    let looked = std::cell::Cell::new(0);
    let (mut compactor, mut out) = (Compactor::default(), Vec::new());
    let entry = Arc::new(Entry { offset: Offset::new(1, 1), record: event("r", &large) });
    let dialect = dialect("");
    compactor.push(
        entry.clone(),
        |_| {
            looked.set(looked.get() + 1);
            Some(dialect.clone())
        },
        &mut out,
    );
    compactor.flush(&mut out);
    assert_eq!((looked.get(), Arc::strong_count(&entry), out.len()), (0, 2, 1));
}

#[test]
fn whitespace_that_differs_everywhere_costs_no_more_than_its_length() {
    let spaced = |space: &str| format!(r#"{{"t":"a","k":[{}1]}}"#, format!("1,{space}").repeat(20_000));
    let (narrow, wide) = (spaced(" "), spaced("\n"));
    let began = std::time::Instant::now();
    assert_eq!(of_one("", &[&narrow, &wide, &narrow, &wide]).len(), 1);
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn of_counters_the_last_value_counts_whatever_they_are() {
    let data =
        [r#"{"n":1,"t":"a","u":null}"#, r#"{"n":"x y","t":"b","u": { "i": 1 }}"#, r#"{"n":-2.5e3,"t":"c","u":{}}"#];
    assert_eq!(of_one("counters = [\"/n\", \"/u\"]", &data), [r#"r 1-3 1/1 {"n":-2.5e3,"t":"abc","u":{}}"#]);
}

#[test]
fn an_event_that_must_be_alone_is() {
    let more = "alone = [\"/s\", \"/l/*\"]";
    let data = [r#"{"t":"a","s":null,"l":[]}"#; 2];
    assert_eq!(of_one(more, &data).len(), 1);
    assert_eq!(of_one(more, &[r#"{"t":"a","s":1,"l":[]}"#; 2]).len(), 2);
    assert_eq!(of_one(more, &[r#"{"t":"a","s":null,"l":[1]}"#; 2]).len(), 2);
}

#[test]
fn of_events_that_repeat_everything_the_last_is_enough() {
    let more = "[[cumulative]]\nwhen = { at = \"/all\" }\nsame = [\"/id\"]";
    let data = [r#"{"id":1,"all":"a"}"#, r#"{"id":1,"all":"ab"}"#, r#"{"id":1,"all":"abc"}"#, r#"{"id":2,"all":"x"}"#];
    assert_eq!(of_one(more, &data), [r#"r 1-3 1/1 {"id":1,"all":"abc"}"#, r#"r 4-4 1/1 {"id":2,"all":"x"}"#]);
}

#[test]
fn a_block_has_a_part_for_each_run_and_ends_at_what_is_no_delta_of_any() {
    let a = r#"{"t":"a"}"#;
    let runs = ["x", "y", "x", "x", "y"].map(|run| event(run, a));
    let parts = [r#"x 1-5 1/2 {"t":"aaa"}"#, r#"y 1-5 2/2 {"t":"aa"}"#];
    assert_eq!(read(&dialect(""), runs.clone()), parts);
    let end = event("y", "[DONE]");
    let records = runs.clone().into_iter().chain([end]).chain(runs);
    let ended = ["y 6-6 1/1 [DONE]", r#"x 7-11 1/2 {"t":"aaa"}"#, r#"y 7-11 2/2 {"t":"aa"}"#];
    assert_eq!(read(&dialect(""), records), parts.into_iter().chain(ended).collect::<Vec<_>>());
    // Where nothing of a block is merged its entries come as they are.
    let alone = [r#"x 1-1 1/1 {"t":"a"}"#, r#"y 2-2 1/1 {"t":"a"}"#];
    assert_eq!(read(&dialect(""), [event("x", a), event("y", a)]), alone);
}

#[test]
fn a_block_ends_where_a_run_goes_on_with_another_kind_of_delta() {
    let (t, c) = (r#"{"t":"a"}"#, r#"{"c":[{"d":{"t":"b"}}]}"#);
    let records = [event("x", t), event("y", t), event("x", t), event("x", c), event("y", t), event("x", c)];
    let expected = [
        r#"x 1-3 1/2 {"t":"aa"}"#,
        r#"y 1-3 2/2 {"t":"a"}"#,
        r#"x 4-6 1/2 {"c":[{"d":{"t":"bb"}}]}"#,
        r#"y 4-6 2/2 {"t":"a"}"#,
    ];
    assert_eq!(read(&dialect(""), records), expected);
}

#[test]
fn a_block_ends_where_it_has_grown_to_its_bound() {
    let data = format!(r#"{{"t":"{}"}}"#, "x".repeat(1_000));
    let merged = of_one("", &[&*data; 200]);
    assert_eq!(merged.len(), 4);
    assert!(merged.iter().all(|line| line.len() < BLOCK_BYTES + 100));
    // An event that is larger by itself is as it is.
    let large = format!(r#"{{"t":"{}"}}"#, "x".repeat(2 * BLOCK_BYTES));
    assert_eq!(of_one("", &[&*large; 3]).len(), 3);
}

#[test]
fn more_runs_than_a_block_may_have_begin_another() {
    let records = (0..40).map(|n| event(&format!("r{}", n % 20), r#"{"t":"a"}"#));
    let lines = read(&dialect(""), records);
    assert!(lines.len() <= 40 && lines.iter().all(|line| !line.contains("/17")), "{lines:?}");
}

#[test]
fn a_merged_event_has_the_last_id_that_was_set() {
    let with = |id: Option<&str>| Record { id: id.map(Into::into), ..event("r", r#"{"t":"a"}"#) };
    let (mut compactor, mut out) = (Compactor::default(), Vec::new());
    for (n, record) in [with(Some("1")), with(Some("2")), with(None)].into_iter().enumerate() {
        let entry = Arc::new(Entry { offset: Offset::new(1, n as u64 + 1), record });
        compactor.push(entry, |_| Some(dialect("")), &mut out);
    }
    compactor.flush(&mut out);
    assert!(matches!(&out[..], [Compacted::Merged(merged)] if merged.entry.record.id.as_deref() == Some("2")));
}

proptest! {
    /// However events are written, those that are merged are those whose values are equal but for the text and the
    /// counter, and the text is that of all.
    #[test]
    fn merged_is_what_differs_in_text_alone(
        events in prop::collection::vec(("[a-c\\\\\"\u{e9}\n]{0,3}", 0..3u8, 0..2u8, "[ \n]{0,2}", "[ ]{0,1}"), 1..30)
    ) {
        let text = |text: &str| serde_json::to_string(text).unwrap();
        let data: Vec<String> = events
            .iter()
            .map(|(t, n, k, wide, narrow)| format!("{{{wide}\"t\":{narrow}{},{wide}\"n\":{n},\"k\":{k}{narrow}}}", text(t)))
            .collect();
        let lines = of_one("counters = [\"/n\"]", &data.iter().map(String::as_str).collect::<Vec<_>>());
        let mut expected: Vec<(String, u8, u8)> = Vec::new();
        for (t, n, k, ..) in &events {
            match expected.last_mut() {
                Some(last) if last.2 == *k => {
                    last.0.push_str(t);
                    last.1 = *n;
                }
                _ => expected.push((t.clone(), *n, *k)),
            }
        }
        let read: Vec<(String, u8, u8)> = lines
            .iter()
            .map(|line| {
                let json: serde_json::Value = serde_json::from_str(line.splitn(4, ' ').nth(3).unwrap()).unwrap();
                let number = |key: &str| json[key].as_u64().unwrap() as u8;
                (json["t"].as_str().unwrap().to_owned(), number("n"), number("k"))
            })
            .collect();
        prop_assert_eq!(read, expected);
    }
}
