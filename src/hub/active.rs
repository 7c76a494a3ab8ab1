//! The active runs of a session, as a new subscriber is told of them.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use crate::log::{Log, RunInfo, Unavailable};
use crate::session::{ActiveRun, Offset, Record, RunId, RunState, SessionId};

/// Runs that are asked for at a time.
const AT_ONCE: usize = 16;

/// What a `started` entry says beside what everybody needs.
#[derive(Default, Deserialize)]
struct Details {
    parent: Option<String>,
}

/// The run that `record`, a `started` entry at `offset`, begins.
pub(super) fn begun(run: RunId, offset: Offset, record: &Record) -> ActiveRun {
    let details: Details = serde_json::from_str(&record.data).unwrap_or_default();
    let parent = details.parent.and_then(|parent| RunId::from_store(&parent).ok());
    ActiveRun { source: record.source.clone(), parent, ..ActiveRun::new(run, offset) }
}

/// What the log knows of runs that are active: their first entry names the agent, their newest says
/// whether they are stalled.
pub(super) async fn describe(
    log: &dyn Log,
    session: &SessionId,
    active: &[RunInfo],
) -> Result<Vec<ActiveRun>, Unavailable> {
    stream::iter(active.to_vec()).map(|info| one(log, session, info)).buffered(AT_ONCE).try_collect().await
}

async fn one(log: &dyn Log, session: &SessionId, info: RunInfo) -> Result<ActiveRun, Unavailable> {
    let mut active = ActiveRun { parent: info.parent, ..ActiveRun::new(info.run.clone(), info.started) };
    if let Some(started) = log.entry(session, info.started).await? {
        active.source = started.record.source.clone();
    }
    if let Some(known) = log.run(session, &info.run).await?
        && known.last != info.started
        && let Some(newest) = log.entry(session, known.last).await?
    {
        // An upstream that sends again says so before anything else.
        active.stalled = newest.record.state() == Some(RunState::Stalled);
    }
    Ok(active)
}
