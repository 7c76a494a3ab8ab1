//! What is known of a session, and of all of them.

use std::time::Duration;

use redis::Pipeline;

use super::RedisLog;
use super::append::offset;
use super::fields::{Clock, RunField, now_ms, unexpected};
use super::keys::SessionKeys;
use super::link::Lane;
use crate::log::{Bounds, Place, RunInfo, SessionBounds, Unavailable};
use crate::session::{Offset, RunId, SessionId};

/// A session as meta and tombstone have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// Meta is there.
    Live(Meta),
    /// The log may be there, meta is not: it can be rebuilt.
    Headless,
    /// The log was evicted together with its meta; this was its last offset.
    Evicted(Offset),
    /// It has expired; this was its last offset.
    Expired(Offset),
    /// It was erased.
    Erased,
    /// Nothing is known.
    Nothing,
}

/// The fixed fields of meta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) created_ms: u64,
    pub(super) expires_ms: u64,
    pub(super) now_ms: u64,
    pub(super) last: Offset,
    pub(super) trimmed: Offset,
    /// The last offset of a life of the session that expired before this one.
    pub(super) expired: Offset,
    /// The last offset of the life that this one goes on from, of whatever that has died.
    pub(super) base: Offset,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) newest: Option<RunId>,
    /// Tail and date (ms) of each change of server, oldest first.
    pub(super) forks: Vec<(Offset, u64)>,
    /// The server that wrote last.
    pub(super) srv: String,
}

/// The layout of `docs/store-layout.md`; `session.lua` writes it.
const LAYOUT: &str = "1";
/// Lua's numbers are exact up to here; no session is as long, and no time as late.
const EXACT: u64 = 1 << 53;

/// The first four answers of [`add_known`]'s pipeline.
pub(super) type KnownAnswer = (Clock, Vec<Option<String>>, Option<String>, u64);

/// Adds the commands that [`known`] understands.
pub(super) fn add_known(pipeline: &mut Pipeline, keys: &SessionKeys) {
    pipeline.cmd("TIME");
    pipeline.cmd("HMGET").arg(&keys.meta).arg(&[
        "v", "created", "expires", "last", "trimmed", "expired", "entries", "bytes", "newest", "forks", "srv", "base",
    ]);
    pipeline.cmd("GET").arg(&keys.tomb);
    pipeline.cmd("XLEN").arg(&keys.log);
}

/// What the answers mean.
pub(super) fn known((clock, meta, tomb, length): KnownAnswer) -> Result<Known, Unavailable> {
    let now_ms = now_ms(clock);
    let [layout, created, expires, last, trimmed, expired, entries, bytes, newest, forks, srv, base] =
        <[Option<String>; 12]>::try_from(meta).map_err(|_| unexpected("HMGET"))?;
    if let Some(layout) = layout.filter(|layout| layout != LAYOUT) {
        let detail = format!("the session has layout {layout}, this version reads {LAYOUT}: upgrade this instance");
        return Err(Unavailable::new(detail));
    }
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok());
    let place = |text: Option<String>| text.map_or(Ok(Offset::ZERO), |text| offset(&text));
    if let (Some(created_ms), Some(expires_ms)) = (number(created), number(expires)) {
        if now_ms >= expires_ms {
            // Its log may still be there, for this millisecond.
            return Ok(Known::Expired(place(last)?));
        }
        let mut meta = Meta {
            created_ms,
            expires_ms,
            now_ms,
            last: place(last)?,
            trimmed: place(trimmed)?,
            expired: place(expired)?,
            base: place(base)?,
            entries: number(entries).unwrap_or(0),
            bytes: number(bytes).unwrap_or(0),
            newest: newest.and_then(|run| RunId::from_store(&run).ok()),
            forks: forks.iter().flat_map(|forks| forks.split(' ')).filter_map(fork).collect(),
            srv: srv.unwrap_or_default(),
        };
        if length == 0 && meta.entries > 0 {
            // The log alone was evicted; the next append will say so in meta.
            (meta.trimmed, meta.entries, meta.bytes) = (meta.last, 0, 0);
        }
        return Ok(Known::Live(meta));
    }
    let mut words = tomb.as_deref().unwrap_or_default().split(' ');
    Ok(match (words.next(), words.next(), words.next()) {
        (Some("erased"), ..) => Known::Erased,
        (Some("live"), Some(last), Some(expires)) if expires.parse::<u64>().is_ok_and(|at| now_ms >= at) => {
            Known::Expired(offset(last)?)
        }
        _ if length > 0 => Known::Headless,
        (Some("live"), Some(last), Some(_)) => Known::Evicted(offset(last)?),
        _ => Known::Nothing,
    })
}

fn fork(text: &str) -> Option<(Offset, u64)> {
    let (tail, at) = text.split_once('@')?;
    Some((tail.parse().ok()?, at.parse().ok()?))
}

impl RedisLog {
    pub(super) async fn do_bounds(&self, session: &SessionId) -> Result<Bounds, Unavailable> {
        let keys = self.keys.session(session);
        for _ in 0..2 {
            let mut pipeline = redis::pipe();
            add_known(&mut pipeline, &keys);
            pipeline.cmd("HGETALL").arg(&keys.active);
            let (time, meta, tomb, length, active) = self
                .servers
                .settled::<(_, _, _, _, Vec<(String, String)>)>(keys.slot, Lane::Writes, &keys.ack, &pipeline)
                .await?;
            return Ok(match known((time, meta, tomb, length))? {
                Known::Live(meta) => {
                    self.heard(meta.last);
                    Bounds::Live(live(meta, active))
                }
                Known::Headless => {
                    self.mend(&keys).await?;
                    continue;
                }
                Known::Evicted(_) | Known::Nothing => Bounds::NotFound,
                Known::Expired(last) => Bounds::Expired { last },
                Known::Erased => Bounds::Erased,
            });
        }
        Err(Unavailable::new("the session's meta could not be rebuilt"))
    }

    pub(super) async fn do_locate(&self, session: &SessionId, place: Place) -> Result<Option<Offset>, Unavailable> {
        let keys = self.keys.session(session);
        let lua = &self.servers.scripts().locate;
        let (place, amount) = match place {
            Place::End => ("end", 0),
            Place::Last(n) => ("last", n.min(EXACT)),
            Place::Since(ms) => ("since", ms.min(EXACT)),
        };
        let ask = || {
            self.session_script(&keys, lua, (8, 512), |command| {
                command.arg(place).arg(amount);
            })
        };
        let mut found: Option<String> = ask().await?;
        if found.is_none() {
            self.mend(&keys).await?;
            found = ask().await?;
        }
        found.map(|found| offset(&found)).transpose()
    }

    /// Rebuilds meta from the log, where meta is gone and the log is not.
    pub(super) async fn mend(&self, keys: &SessionKeys) -> Result<(), Unavailable> {
        let lua = &self.servers.scripts().mend;
        self.session_script(keys, lua, (8, 512), |_| {}).await
    }
}

fn live(meta: Meta, active: Vec<(String, String)>) -> SessionBounds {
    let mut active: Vec<RunInfo> = active.iter().filter_map(|(run, value)| active_run(run, value)).collect();
    active.sort_by_key(|info| info.started);
    SessionBounds {
        trimmed: meta.trimmed,
        tail: meta.last,
        entries: meta.entries,
        bytes: meta.bytes,
        created_ms: meta.created_ms,
        expires_in: Duration::from_millis(meta.expires_ms.saturating_sub(meta.now_ms)),
        active,
        newest_run: meta.newest,
    }
}

fn active_run(run: &str, value: &str) -> Option<RunInfo> {
    let RunField { owner, started, last, ended, parent, cancel } = RunField::parse_active(value)?;
    Some(RunInfo { run: RunId::from_store(run).ok()?, owner, started, last, ended, parent, cancel })
}
