//! The queue of a session: what waits, and what starts next.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use redb::ReadableTable as _;

use super::batch::Batch;
use super::control::{key_name, run_name};
use super::error::Fault;
use super::read::Snapshot;
use super::sessions::Known;
use super::state::{Queued, SessionState};
use super::tables::ITEMS;
use super::tomb::{Tomb, TombReason};
use crate::log::{Closed, Note, OnBusy, OpenRun, Opened, Push, QueuedRun, START_WITHIN, Starts, ToStart};
use crate::session::{InstanceId, RunId, SessionId};

impl Batch<'_> {
    /// The answer to an opening that does not open anything, because the route is busy or the run
    /// was withdrawn. A run that waited and opens now is taken out of the queue.
    pub(super) fn hold_back(&mut self, open: &OpenRun) -> Result<Option<Opened>, Fault> {
        let cancelled = match &open.key {
            Some(key) => self.remembered(&open.session, &key_name(key))?.is_some(),
            None => false,
        };
        let gone = (open.on_busy == OnBusy::Waited).then_some(Opened::Closed(Closed::Unknown));
        let state = match self.sessions.load(&mut self.tables, &open.session)? {
            Known::Live(state) => state,
            Known::Gone(Tomb { reason: TombReason::Erased, .. }) if open.on_busy == OnBusy::Again => {
                return Ok(Some(Opened::Closed(Closed::Erased)));
            }
            Known::Gone(_) | Known::Never => return Ok(gone),
        };
        let number = state.number;
        if let Some(at) = state.queue.iter().position(|queued| queued.run == open.run) {
            if let OnBusy::Queue(_) = open.on_busy {
                return Ok(Some(Opened::Queued { position: position(&state.queue, at) }));
            }
            state.queue.remove(at);
            self.tables.items.remove((number, open.run.as_str()))?;
            self.announce(&open.session, Push::Note(Note::Queue));
            return Ok(None);
        }
        if gone.is_some() {
            return Ok(gone);
        }
        if matches!(open.on_busy, OnBusy::Parallel | OnBusy::Again) || open.parent.is_some() || cancelled {
            return Ok(None);
        }
        let waiting = state.queue.iter().filter(|queued| queued.route == open.route).map(|queued| queued.run.clone());
        let runs: Vec<RunId> = roots_of(state, &open.route).chain(waiting).collect();
        let OnBusy::Queue(wait) = &open.on_busy else {
            return Ok((!runs.is_empty()).then_some(Opened::Busy { runs }));
        };
        if runs.is_empty() {
            return Ok(None);
        }
        let bytes = wait.item.len() as u64;
        let all: u64 = state.queue.iter().map(|queued| queued.bytes).sum();
        if state.queue.len() >= wait.limits.depth || all.saturating_add(bytes) > wait.limits.bytes {
            return Ok(Some(Opened::QueueFull));
        }
        let OpenRun { run, key, route, .. } = open.clone();
        state.queue.push(Queued { run, key, route, client: wait.client.clone(), bytes, mark: None });
        let position = position(&state.queue, state.queue.len() - 1);
        self.tables.items.insert((number, open.run.as_str()), &wait.item[..])?;
        self.announce(&open.session, Push::Note(Note::Queue));
        Ok(Some(Opened::Queued { position }))
    }

    /// Takes the run with this key out of the queue; also answers one that was withdrawn before.
    pub(super) fn withdraw(&mut self, session: &SessionId, key: &str, by: &ByteString) -> Result<Option<RunId>, Fault> {
        let queued = match self.sessions.load(&mut self.tables, session)? {
            Known::Live(state) => state.queue.iter().find(|queued| queued.key.as_deref() == Some(key)),
            Known::Gone(_) | Known::Never => None,
        };
        match queued.map(|queued| queued.run.clone()) {
            Some(run) => Ok(self.withdraw_run(session, &run, by)?.then_some(run)),
            None => Ok(self.remembered(session, &key_name(key))?.and_then(|cancel| cancel.withdrawn)),
        }
    }

    /// The same for a run by its id. Whoever opens it late, or asks again, shall know.
    pub(super) fn withdraw_run(&mut self, session: &SessionId, run: &RunId, by: &ByteString) -> Result<bool, Fault> {
        let state = match self.sessions.load(&mut self.tables, session)? {
            Known::Live(state) => Some(state),
            Known::Gone(_) | Known::Never => None,
        };
        let at = state.as_ref().and_then(|state| state.queue.iter().position(|queued| queued.run == *run));
        let (Some(state), Some(at)) = (state, at) else {
            return Ok(self.remembered(session, &run_name(run))?.is_some());
        };
        let (number, queued) = (state.number, state.queue.remove(at));
        self.tables.items.remove((number, run.as_str()))?;
        self.announce(session, Push::Note(Note::Queue));
        self.remember(session, &run_name(run), by, None)?;
        if let Some(key) = queued.key {
            self.remember(session, &key_name(&key), by, Some(run.clone()))?;
        }
        Ok(true)
    }

    pub(super) fn start_queued(
        &mut self,
        session: &SessionId,
        by: &InstanceId,
        hold: Duration,
    ) -> Result<Starts, Fault> {
        let now_ms = self.now_ms;
        let Known::Live(state) = self.sessions.load(&mut self.tables, session)? else { return Ok(Starts::default()) };
        let mut starts = Starts::default();
        for at in 0..state.queue.len() {
            let route = state.queue[at].route.clone();
            if position(&state.queue, at) > 1 || roots_of(state, &route).next().is_some() {
                continue;
            }
            let queued = &mut state.queue[at];
            match marked_by_another(queued, by, now_ms) {
                Some(left) => starts.others = Some(starts.others.map_or(left, |others| others.min(left))),
                None => {
                    queued.mark = Some((by.clone(), until(now_ms, hold)));
                    let item = self.tables.items.get((state.number, queued.run.as_str()))?;
                    let item = Bytes::copy_from_slice(item.ok_or(Fault::Damaged("queue"))?.value());
                    let Queued { run, key, route, client, .. } = queued.clone();
                    starts.yours.push(ToStart { run, key, route, client, item });
                }
            }
        }
        self.changed |= !starts.yours.is_empty();
        Ok(starts)
    }
}

impl Snapshot<'_> {
    pub(super) fn queue(&self, session: &SessionId) -> Result<Vec<QueuedRun>, Fault> {
        let Known::Live(state) = self.session(session)? else { return Ok(Vec::new()) };
        let items = self.read.open_table(ITEMS)?;
        let show = |(at, queued): (usize, &Queued)| {
            let item = items.get((state.number, queued.run.as_str()))?.ok_or(Fault::Damaged("queue"))?;
            Ok(QueuedRun {
                run: queued.run.clone(),
                key: queued.key.clone(),
                route: queued.route.clone(),
                client: queued.client.clone(),
                item: Bytes::copy_from_slice(item.value()),
                position: position(&state.queue, at),
                starting: queued.mark.clone().filter(|(_, until_ms)| self.now_ms < *until_ms).map(|(owner, _)| owner),
            })
        };
        state.queue.iter().enumerate().map(show).collect()
    }
}

/// A root run of `route` has ended, which `owner` drove: marks the first that waits for it. Another's mark is
/// from before that run: whoever has it may have found the route busy since, and given up.
pub(super) fn mark_next(state: &mut SessionState, route: &str, owner: &InstanceId, now_ms: u64) -> Option<RunId> {
    if roots_of(state, route).next().is_some() {
        return None;
    }
    let next = state.queue.iter_mut().find(|queued| queued.route == route)?;
    next.mark = Some((owner.clone(), until(now_ms, START_WITHIN)));
    Some(next.run.clone())
}

/// The active root runs of a route.
fn roots_of<'s>(state: &'s SessionState, route: &str) -> impl Iterator<Item = RunId> + use<'s> {
    let route = ByteString::from(route);
    let roots = state.active.iter().filter(move |run| run.parent.is_none() && run.route == route);
    roots.map(|run| run.id.clone())
}

/// How long a mark of somebody else holds.
fn marked_by_another(queued: &Queued, by: &InstanceId, now_ms: u64) -> Option<Duration> {
    let (owner, until_ms) = queued.mark.as_ref()?;
    let left = until_ms.saturating_sub(now_ms);
    (owner != by && left > 0).then(|| Duration::from_millis(left))
}

fn until(now_ms: u64, hold: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(hold.as_millis()).unwrap_or(u64::MAX))
}

/// The place among those of its route, from 1.
fn position(queue: &[Queued], at: usize) -> u64 {
    1 + queue[..at].iter().filter(|before| before.route == queue[at].route).count() as u64
}
