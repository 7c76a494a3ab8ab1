//! What happens before the first request: the database is opened, the sessions are counted, and
//! the runs that were active are ended, because whoever drove them is gone.

use std::sync::Arc;
use std::time::Duration;

use redb::{Database, ReadableDatabase as _, ReadableTable as _};
use tokio::sync::watch;

use super::batch::Batch;
use super::database::{Place, Slot};
use super::error::{Fault, OpenError};
use super::followers::Followers;
use super::options::EmbeddedOptions;
use super::state::SessionState;
use super::tables::SESSIONS;
use super::writer::{Writer, now_ms};
use crate::log::{Retention, RunTally, StoreHealth, Takeover};
use crate::session::{RunId, SessionId};

/// The nonce of who ends the runs of an earlier process.
const RESTART_NONCE: &str = "restart";

/// A log that is ready to serve.
pub(super) struct Started {
    pub(super) writer: Writer,
    pub(super) health: watch::Receiver<StoreHealth>,
    pub(super) sweep_every: Duration,
    /// The first of each session's queue: nobody is there any more to start it.
    pub(super) stranded: Vec<(SessionId, RunId)>,
}

/// Opens the log in its place. It blocks on the disk.
pub(super) fn open(place: Place, options: EmbeddedOptions) -> Result<Started, OpenError> {
    let database = place.open()?;
    let Stock { footprint, stranded } =
        take_stock(&database, options.retention).map_err(|fault| place.refused_by(fault))?;
    let (down, health) = watch::channel(StoreHealth::Up);
    let writer = Writer {
        place,
        slot: Slot::new(database),
        followers: Arc::new(Followers::default()),
        health: down,
        retention: options.retention,
        total_bytes: options.total_bytes,
        footprint,
    };
    Ok(Started { writer, health, sweep_every: options.sweep_every, stranded })
}

/// What was found.
struct Stock {
    footprint: u64,
    stranded: Vec<(SessionId, RunId)>,
}

/// Ends the runs of an earlier process; the footprint of all sessions, and what waits in them.
fn take_stock(database: &Database, retention: Retention) -> Result<Stock, Fault> {
    let mut stranded = Vec::new();
    let mut footprint: u64 = 0;
    let mut orphans = Vec::new();
    for row in database.begin_read()?.open_table(SESSIONS)?.iter()? {
        let (session, row) = row?;
        // A row that is damaged is reported to whoever asks for its session.
        let (Ok(session), Ok(state)) = (SessionId::from_store(session.value()), SessionState::decode(row.value()))
        else {
            tracing::error!("what is stored of a session is damaged");
            continue;
        };
        footprint += state.footprint();
        stranded.extend(state.queue.first().map(|queued| (session.clone(), queued.run.clone())));
        orphans.extend(state.active.into_iter().map(|run| (session.clone(), run.id)));
    }
    if orphans.is_empty() {
        return Ok(Stock { footprint, stranded });
    }
    tracing::info!(runs = orphans.len(), "ending the runs of an earlier process");
    let footprint = footprint.saturating_add_signed(interrupt(database, retention, orphans)?);
    Ok(Stock { footprint, stranded })
}

fn interrupt(database: &Database, retention: Retention, orphans: Vec<(SessionId, RunId)>) -> Result<i64, Fault> {
    let transaction = database.begin_write()?;
    let mut batch = Batch::begin(&transaction, retention, now_ms())?;
    for (session, run) in orphans {
        let RunTally { events, bytes } = batch.tally(&session, &run)?;
        let details = format!(r#"{{"reason":"restart","events":{events},"bytes":{bytes}}}"#).into();
        batch.takeover(&Takeover { session, run, nonce: RESTART_NONCE.into(), details })?;
    }
    let effects = batch.finish()?;
    transaction.commit()?;
    Ok(effects.footprint)
}
