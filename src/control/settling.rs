//! Waiting until runs have their ends, as the log tells it.

use tokio::time::{Instant, timeout_at};

use crate::control::Control;
use crate::hub::Delivery;
use crate::log::Unavailable;
use crate::session::{After, Entry, Offset, RunId, RunState, SessionId, Terminal};

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) run: RunId,
    pub(super) offset: Offset,
    pub(super) state: Terminal,
    /// Its owner wrote it, and so has closed the upstream's connection before.
    pub(super) by_owner: bool,
}

impl Control {
    /// The ends of `runs`, those that are there by `deadline`. In no particular order.
    pub(super) async fn settle(
        &self,
        session: &SessionId,
        mut runs: Vec<RunId>,
        deadline: Instant,
    ) -> Result<Vec<Ended>, Unavailable> {
        let mut ended = Vec::new();
        while !runs.is_empty() && Instant::now() < deadline {
            // First the subscription, then what has ended before it: nothing falls in between.
            let subscribed = timeout_at(deadline, self.hub.subscribe(session, After::End, false)).await;
            let Ok(Ok(subscription)) = subscribed else { break };
            let mut cursor = subscription.cursor;
            let mut left = Vec::new();
            for run in runs {
                match self.ended(session, &run).await? {
                    Some(end) => ended.push(end),
                    None => left.push(run),
                }
            }
            runs = left;
            while !runs.is_empty() {
                match timeout_at(deadline, cursor.next()).await {
                    Ok(Delivery::Items(items)) => {
                        for end in items.iter().filter_map(|item| end_of(item.entry())) {
                            if let Some(at) = runs.iter().position(|run| *run == end.run) {
                                runs.swap_remove(at);
                                ended.push(end);
                            }
                        }
                    }
                    Ok(Delivery::Live(_) | Delivery::News(_) | Delivery::Whole(_)) => {}
                    // What was missed is looked up.
                    Ok(Delivery::Gap(_)) => break,
                    Ok(Delivery::Erased) | Err(_) => return Ok(ended),
                }
            }
        }
        Ok(ended)
    }

    async fn ended(&self, session: &SessionId, run: &RunId) -> Result<Option<Ended>, Unavailable> {
        let Some((offset, state)) = self.log.run(session, run).await?.and_then(|info| info.ended) else {
            return Ok(None);
        };
        let entry = self.log.entry(session, offset).await?;
        let end = entry.and_then(|entry| end_of(&entry));
        Ok(Some(end.unwrap_or(Ended { run: run.clone(), offset, state, by_owner: false })))
    }
}

/// The end of a run, where the entry is one.
fn end_of(entry: &Entry) -> Option<Ended> {
    let record = &entry.record;
    let state = record.state().and_then(RunState::terminal)?;
    let details: serde_json::Value = serde_json::from_str(&record.data).unwrap_or_default();
    Some(Ended { run: record.run.clone()?, offset: entry.offset, state, by_owner: details["reason"] != "owner_lost" })
}
