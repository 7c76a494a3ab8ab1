//! What is known of a session, and of all of them.

use std::time::{Duration, Instant};

use redis::{Cmd, Pipeline};

use super::RedisLog;
use super::append::offset;
use super::fields::{RunField, unexpected};
use super::keys::SessionKeys;
use super::supervisor::Lane;
use crate::log::{Bounds, Place, RunInfo, SessionBounds, SessionRow, Unavailable};
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
pub(super) type KnownAnswer = ((u64, u64), Vec<Option<String>>, Option<String>, u64);

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
pub(super) fn known(((seconds, micros), meta, tomb, length): KnownAnswer) -> Result<Known, Unavailable> {
    let now_ms = seconds * 1000 + micros / 1000;
    let [layout, created, expires, last, trimmed, expired, entries, bytes, newest, forks, srv, base] =
        <[Option<String>; 12]>::try_from(meta).map_err(|_| unexpected("HMGET"))?;
    if let Some(layout) = layout.filter(|layout| layout != LAYOUT) {
        let detail = format!("the session has layout {layout}, this version reads {LAYOUT}: upgrade this instance");
        return Err(Unavailable::new(detail));
    }
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok());
    let place = |text: Option<String>| text.map_or(Ok(Offset::ZERO), |text| offset(&text));
    if let (Some(created_ms), Some(expires_ms)) = (number(created), number(expires))
        && now_ms < expires_ms
    {
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
        _ if length > 0 => Known::Headless,
        (Some("live"), Some(last), Some(expires)) => {
            let gone = expires.parse::<u64>().is_ok_and(|expires| now_ms >= expires);
            if gone { Known::Expired(offset(last)?) } else { Known::Evicted(offset(last)?) }
        }
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
                .supervisor
                .call(Lane::Writes, |mut connection, _| async move {
                    pipeline.query_async::<(_, _, _, _, Vec<(String, String)>)>(&mut connection).await
                })
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
        let lua = &self.supervisor.scripts().locate;
        let (place, amount) = match place {
            Place::End => ("end", 0),
            Place::Last(n) => ("last", n.min(EXACT)),
            Place::Since(ms) => ("since", ms.min(EXACT)),
        };
        let ask = || {
            self.supervisor.call(Lane::Pages, |mut connection, identity| {
                let mut command = lua.call(&keys.all(), (8, 512));
                self.add_bounds(&mut command, &identity);
                command.arg(place).arg(amount);
                async move { lua.send::<Option<String>>(&command, &mut connection).await }
            })
        };
        let mut found = ask().await?;
        if found.is_none() {
            self.mend(&keys).await?;
            found = ask().await?;
        }
        found.map(|found| offset(&found)).transpose()
    }

    /// Rebuilds meta from the log, where meta is gone and the log is not.
    pub(super) async fn mend(&self, keys: &SessionKeys) -> Result<(), Unavailable> {
        let lua = &self.supervisor.scripts().mend;
        self.supervisor
            .call(Lane::Writes, |mut connection, identity| {
                let mut command = lua.call(&keys.all(), (8, 512));
                self.add_bounds(&mut command, &identity);
                async move { lua.send(&command, &mut connection).await }
            })
            .await
    }

    pub(super) async fn do_sessions(&self, limit: usize) -> Result<Vec<SessionRow>, Unavailable> {
        let mut rows = Vec::new();
        let mut cursor = 0_u64;
        let begun = Instant::now();
        loop {
            let pattern = self.keys.meta_pattern();
            let (next, found): (u64, Vec<String>) = self
                .supervisor
                .call(Lane::Pages, |mut connection, _| async move {
                    let mut scan = Cmd::new();
                    scan.arg("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(500);
                    scan.query_async(&mut connection).await
                })
                .await?;
            let sessions: Vec<SessionId> = found.iter().filter_map(|key| self.keys.session_of_meta(key)).collect();
            if !sessions.is_empty() {
                rows.extend(self.rows_of(sessions).await?);
                // A scan may show a key twice.
                rows.sort_by(|a: &SessionRow, b| a.session.cmp(&b.session));
                rows.dedup_by(|a, b| a.session == b.session);
            }
            cursor = next;
            // Others may keep millions of keys on the same server.
            if cursor == 0 || rows.len() >= limit || begun.elapsed() > self.options.deadline {
                rows.truncate(limit);
                return Ok(rows);
            }
        }
    }

    async fn rows_of(&self, sessions: Vec<SessionId>) -> Result<Vec<SessionRow>, Unavailable> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        for session in &sessions {
            let keys = self.keys.session(session);
            pipeline.cmd("HMGET").arg(keys.meta).arg("expires").arg("last");
            pipeline.cmd("HLEN").arg(keys.active);
        }
        let answers: Vec<redis::Value> = self
            .supervisor
            .call(Lane::Pages, |mut connection, _| async move { pipeline.query_async(&mut connection).await })
            .await?;
        let (time, answers) = answers.split_first().ok_or_else(|| unexpected("TIME"))?;
        let (seconds, micros): (u64, u64) = redis::from_redis_value_ref(time).map_err(|_| unexpected("TIME"))?;
        let now_ms = seconds * 1000 + micros / 1000;
        let mut rows = Vec::new();
        for (session, answer) in sessions.into_iter().zip(answers.chunks_exact(2)) {
            let meta: (Option<u64>, Option<String>) =
                redis::from_redis_value_ref(&answer[0]).map_err(|_| unexpected("HMGET"))?;
            let active = redis::from_redis_value_ref(&answer[1]).map_err(|_| unexpected("HLEN"))?;
            if let (Some(expires), Some(last)) = meta
                && now_ms < expires
            {
                rows.push(SessionRow { session, tail: offset(&last)?, active });
            }
        }
        Ok(rows)
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
