//! The queue of a session: listed, withdrawn from, and started.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use super::RedisLog;
use super::append::answer_of;
use super::fields::{Clock, NONE, now_ms, unexpected, unword, word};
use super::link::Lane;
use crate::log::{QueuedRun, Starts, ToStart, Unavailable};
use crate::session::{InstanceId, RunId, SessionId};

/// The server's time, the session's expiry, the lines of the list, and the items.
type Listed = (Clock, Option<u64>, Vec<String>, HashMap<String, Bytes>);

impl RedisLog {
    pub(super) async fn do_queue(&self, session: &SessionId) -> Result<Vec<QueuedRun>, Unavailable> {
        let keys = self.keys.session(session);
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        pipeline.cmd("HGET").arg(&keys.meta).arg("expires");
        pipeline.cmd("LRANGE").arg(&keys.queue).arg(0).arg(-1);
        pipeline.cmd("HGETALL").arg(&keys.items);
        let (clock, expires, lines, mut items): Listed =
            self.servers.pipeline(keys.slot, Lane::Writes, &pipeline).await?;
        let now_ms = now_ms(clock);
        if expires.is_none_or(|expires| now_ms >= expires) {
            return Ok(Vec::new());
        }
        let mut queue: Vec<QueuedRun> = Vec::with_capacity(lines.len());
        for line in lines {
            let mut queued = queued(&line, now_ms, &mut items).ok_or_else(|| unexpected("LRANGE"))?;
            queued.position += queue.iter().filter(|before| before.route == queued.route).count() as u64;
            queue.push(queued);
        }
        Ok(queue)
    }

    pub(super) async fn do_withdraw(&self, session: &SessionId, key: &str) -> Result<Option<RunId>, Unavailable> {
        let answer = self.ask_to_cancel(session, "withdraw", &word(key), "{}").await?;
        match answer_of(&answer)[..] {
            ["runs"] => Ok(None),
            ["runs", run, "withdrawn", ..] => Ok(Some(RunId::from_store(run).map_err(|_| unexpected("a script"))?)),
            _ => Err(unexpected("the cancel script")),
        }
    }

    pub(super) async fn do_start_queued(
        &self,
        session: &SessionId,
        by: &InstanceId,
        hold: Duration,
    ) -> Result<Starts, Unavailable> {
        let keys = self.keys.session(session);
        let hold_ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX).max(1);
        let lua = &self.servers.scripts().start;
        let answer: Vec<Bytes> = self
            .session_script(&keys, lua, (8, 512), |command| {
                command.arg(by.as_str()).arg(hold_ms);
            })
            .await?;
        let (others, runs) = answer.split_first().ok_or_else(|| unexpected("the start script"))?;
        let others = str::from_utf8(others).ok().and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        let yours = runs.chunks(5).map(|run| to_start(run).ok_or_else(|| unexpected("the start script")));
        Ok(Starts { yours: yours.collect::<Result<_, _>>()?, others })
    }
}

/// A line of the list; its position is to be counted.
fn queued(line: &str, now_ms: u64, items: &mut HashMap<String, Bytes>) -> Option<QueuedRun> {
    let parts: Vec<&str> = line.split(' ').collect();
    let [run, route, key, client, _bytes, owner, deadline] = parts[..] else { return None };
    let marked = deadline.parse::<u64>().ok()? > now_ms;
    Some(QueuedRun {
        run: RunId::from_store(run).ok()?,
        key: optional(key)?,
        route: unword(route)?,
        client: optional(client)?,
        // An item may have been evicted; then there is nothing to start, and whoever tries says so.
        item: items.remove(run).unwrap_or_default(),
        position: 1,
        starting: InstanceId::from_store(owner).ok().filter(|_| marked),
    })
}

fn to_start(parts: &[Bytes]) -> Option<ToStart> {
    let [run, route, key, client, item] = parts else { return None };
    Some(ToStart {
        run: RunId::from_store(str::from_utf8(run).ok()?).ok()?,
        key: optional(str::from_utf8(key).ok()?)?,
        route: unword(str::from_utf8(route).ok()?)?,
        client: optional(str::from_utf8(client).ok()?)?,
        item: item.clone(),
    })
}

fn optional(text: &str) -> Option<Option<ByteString>> {
    if text == NONE { Some(None) } else { unword(text).map(Some) }
}
