//! Any interleaving of writers leaves a contiguous log, one terminal per run, and nothing that was
//! acknowledged is lost.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

const WRITERS: usize = 3;

/// What one of the writers does next.
#[derive(Clone, Debug)]
enum Step {
    Open,
    Append {
        count: usize,
    },
    /// Sends the last `back` stored entries again, and `more` new ones.
    Overlap {
        back: u64,
        more: usize,
    },
    Skip,
    End(Terminal),
    Takeover,
    Cancel,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let kind = prop_oneof![
        3 => Just(Step::Open),
        8 => (1..5usize).prop_map(|count| Step::Append { count }),
        4 => (1..6u64, 0..3usize).prop_map(|(back, more)| Step::Overlap { back, more }),
        1 => Just(Step::Skip),
        1 => prop_oneof![Just(Terminal::Completed), Just(Terminal::Failed)].prop_map(Step::End),
        1 => Just(Step::Takeover),
        1 => Just(Step::Cancel),
    ];
    (0..WRITERS, kind)
}

/// What the model knows of a writer.
struct Model {
    owner: Owner,
    /// The texts that the log has acknowledged, in order.
    acknowledged: Vec<String>,
    life: Life,
    /// Its cancellation was asked for while it was active.
    flagged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Unopened,
    Active,
    Ended(Offset, Terminal),
    TakenOver(Offset, Terminal),
    Never,
}

impl Model {
    fn text(&self, n: u64) -> String {
        format!("{}-{n}", self.owner.run)
    }

    async fn take(&mut self, log: &dyn Log, step: Step) -> Result<(), TestCaseError> {
        let n = self.owner.n;
        match step {
            Step::Open => {
                let opened = log.open_run(self.owner.opening()).await.unwrap();
                match self.life {
                    Life::Unopened => {
                        prop_assert!(matches!(opened, Opened::Open { .. }), "{opened:?}");
                        self.owner.n = 1;
                        self.life = Life::Active;
                    }
                    Life::Active => prop_assert!(matches!(opened, Opened::Open { .. }), "{opened:?}"),
                    Life::Never => prop_assert!(matches!(opened, Opened::Closed(_)), "{opened:?}"),
                    // A late repeat after the end may find its start or the end.
                    Life::Ended(..) | Life::TakenOver(..) => {}
                }
            }
            Step::Append { count } => self.append(log, n + 1, count).await?,
            Step::Overlap { back, more } => {
                // Entry 1 is the start; what is sent again are events.
                let back = back.min(self.acknowledged.len() as u64);
                if back > 0 {
                    self.append(log, n + 1 - back, back as usize + more).await?;
                }
            }
            Step::Skip => {
                let answer = log.append(self.owner.append_from(n + 3, &["skipped"])).await.unwrap();
                if self.life == Life::Active {
                    prop_assert_eq!(answer, Appended::Gap { expected: n + 1 });
                } else {
                    self.refused(&answer)?;
                }
            }
            Step::End(state) => {
                let answer = log.append(self.owner.ending(state)).await.unwrap();
                if self.life == Life::Active {
                    let Appended::Stored { last, .. } = answer else { panic!("{answer:?}") };
                    self.owner.n += 1;
                    self.life = Life::Ended(last, state);
                } else {
                    self.refused(&answer)?;
                }
            }
            Step::Cancel => {
                let target = CancelTarget::Run(self.owner.run.clone());
                let request = CancelRequest { session: self.owner.session.clone(), target, by: "{}".into() };
                let outcome = match log.cancel(request).await.unwrap() {
                    Cancelled::Runs(mut runs) if runs.len() == 1 => runs.remove(0).1,
                    other => panic!("{other:?}"),
                };
                let expected = match self.life {
                    Life::Unopened | Life::Never => CancelOutcome::NotFound,
                    Life::Active => CancelOutcome::Requested { owner: self.owner.instance.clone() },
                    Life::Ended(offset, state) | Life::TakenOver(offset, state) => {
                        CancelOutcome::AlreadyEnded { offset, state }
                    }
                };
                prop_assert_eq!(outcome, expected);
                self.flagged |= self.life == Life::Active;
            }
            Step::Takeover => {
                let answer = log.takeover(self.owner.takeover("heir")).await.unwrap();
                match (self.life, answer) {
                    (Life::Unopened | Life::Never, TakenOver::NeverStarted) => self.life = Life::Never,
                    (Life::Active, TakenOver::Ended { offset, state }) => {
                        let expected = if self.flagged { Terminal::Cancelled } else { Terminal::Interrupted };
                        prop_assert_eq!(state, expected);
                        self.life = Life::TakenOver(offset, state);
                    }
                    (Life::Ended(at, how), TakenOver::AlreadyEnded { offset, state }) => {
                        prop_assert_eq!((at, how), (offset, state));
                    }
                    (
                        Life::TakenOver(at, _),
                        TakenOver::AlreadyEnded { offset, .. } | TakenOver::Ended { offset, .. },
                    ) => {
                        prop_assert_eq!(at, offset)
                    }
                    (life, answer) => prop_assert!(false, "{:?}: {:?}", life, answer),
                }
            }
        }
        Ok(())
    }

    async fn append(&mut self, log: &dyn Log, first_n: u64, count: usize) -> Result<(), TestCaseError> {
        let n = self.owner.n;
        let texts: Vec<String> = (first_n..first_n + count as u64).map(|n| self.text(n)).collect();
        let answer = log.append(self.owner.append_from(first_n, &texts)).await.unwrap();
        let all_stored = first_n + count as u64 <= n + 1;
        if all_stored && self.life != Life::Unopened {
            // A repeat: a duplicate for its owner; who has lost the run may be told that instead.
            let known = matches!(answer, Appended::Duplicate { .. })
                || (self.life != Life::Active && matches!(answer, Appended::Closed(_) | Appended::Fenced));
            prop_assert!(known, "{answer:?}");
        } else if self.life == Life::Active {
            let Appended::Stored { first, last, flags, .. } = answer else { panic!("{answer:?}") };
            prop_assert_eq!(flags.cancel.is_some(), self.flagged);
            let added = first_n + count as u64 - 1 - n;
            prop_assert_eq!(last.seq - first.seq + 1, added);
            self.owner.n += added;
            self.acknowledged.extend(texts.into_iter().skip(count - added as usize));
        } else {
            self.refused(&answer)?;
        }
        Ok(())
    }

    /// Whether `answer` is what a writer hears that may not write.
    fn refused(&self, answer: &Appended) -> Result<(), TestCaseError> {
        match (self.life, answer) {
            (Life::Ended(offset, state), answer) => {
                prop_assert_eq!(answer, &Appended::Closed(Closed::Terminal { offset, state }));
            }
            (Life::TakenOver(..), Appended::Fenced) => {}
            (Life::Unopened, Appended::Closed(Closed::Unknown)) => {}
            (Life::Never, Appended::Closed(_) | Appended::Fenced) => {}
            (life, answer) => prop_assert!(false, "{:?}: {:?}", life, answer),
        }
        Ok(())
    }
}

async fn play(log: &dyn Log, case: u32, steps: Vec<(usize, Step)>) -> Result<(), TestCaseError> {
    let name = format!("case-{case}");
    let mut models: Vec<Model> = (0..WRITERS)
        .map(|i| Owner::new(&name, &format!("{name}-r{i}")))
        .map(|owner| Model { owner, acknowledged: Vec::new(), life: Life::Unopened, flagged: false })
        .collect();
    for (writer, step) in steps {
        models[writer].take(log, step).await?;
    }
    if models.iter().all(|model| matches!(model.life, Life::Unopened | Life::Never)) {
        return Ok(());
    }
    let entries = read_all(log, &session(&name)).await;
    for model in &models {
        let own: Vec<_> = entries.iter().filter(|entry| entry.record.run.as_ref() == Some(&model.owner.run)).collect();
        let events: Vec<&str> =
            own.iter().filter(|entry| entry.record.kind == Kind::Event).map(|entry| &*entry.record.data).collect();
        prop_assert_eq!(events, &model.acknowledged[..]);
        let states: Vec<RunState> = own.iter().filter_map(|entry| entry.record.state()).collect();
        let expected = match model.life {
            Life::Unopened | Life::Never => vec![],
            Life::Active => vec![RunState::Started],
            Life::Ended(_, state) => vec![RunState::Started, RunState::Ended(state)],
            Life::TakenOver(_, state) => vec![RunState::Started, RunState::Ended(state)],
        };
        prop_assert_eq!(states, expected);
    }
    Ok(())
}

async fn any_interleaving_of_writers_keeps_the_log_whole(store: Store) {
    let log = store.open().await;
    let handle = tokio::runtime::Handle::current();
    let case = std::cell::Cell::new(0);
    let cases = if store == Store::Memory { 128 } else { 24 };
    #[expect(clippy::disallowed_methods, reason = "the property runner is synchronous, the log is not")]
    tokio::task::block_in_place(|| {
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        let steps = proptest::collection::vec(step(), 1..60);
        let outcome = runner.run(&steps, |steps| {
            case.set(case.get() + 1);
            handle.block_on(play(&*log, case.get(), steps))
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
    });
}

on_every_store!(any_interleaving_of_writers_keeps_the_log_whole);
