//! Lists of sessions: one look at each, all at once; they may be on different servers.

use futures_util::future::try_join_all;
use redis::Cmd;
use tokio::time::Instant;

use super::RedisLog;
use super::append::offset;
use super::fields::{Clock, now_ms};
use super::node::{Lane, Node};
use crate::log::{SessionRow, Unavailable};
use crate::session::{Offset, SessionId};

/// Keys that one step of a scan looks at.
const STEP: usize = 500;

/// What a list shows of a session.
pub(super) struct Row {
    pub(super) created_ms: u64,
    pub(super) tail: Offset,
    /// How many of its runs are active.
    pub(super) active: usize,
    /// Whose it is; a subject's digest.
    pub(super) subject: Option<String>,
}

impl RedisLog {
    pub(super) async fn do_sessions(&self, limit: usize) -> Result<Vec<SessionRow>, Unavailable> {
        let until = Instant::now() + self.options.deadline;
        let mut rows = Vec::new();
        let map = self.servers.map().borrow().clone();
        for node in map.nodes() {
            self.sessions_at(node, limit, until, &mut rows).await?;
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// Adds those that one server has, until there are `limit`.
    async fn sessions_at(
        &self,
        node: &Node,
        limit: usize,
        until: Instant,
        rows: &mut Vec<SessionRow>,
    ) -> Result<(), Unavailable> {
        let mut cursor = 0_u64;
        // Others may keep millions of keys on the same server.
        while rows.len() < limit && Instant::now() < until {
            let mut scan = Cmd::new();
            scan.arg("SCAN").arg(cursor).arg("MATCH").arg(self.keys.meta_pattern()).arg("COUNT").arg(STEP);
            let step = node.call(Lane::Pages, None, until, |mut connection, _| async move {
                scan.query_async(&mut connection).await
            });
            let (next, found): (u64, Vec<String>) = step.await?;
            let sessions: Vec<SessionId> = found.iter().filter_map(|key| self.keys.session_of_meta(key)).collect();
            let looks = try_join_all(sessions.iter().map(|session| self.row(session))).await?;
            for (session, row) in sessions.into_iter().zip(looks) {
                if let Some(Row { tail, active, .. }) = row {
                    rows.push(SessionRow { session, tail, active });
                }
            }
            // A scan may show a key twice.
            rows.sort_by(|a, b| a.session.cmp(&b.session));
            rows.dedup_by(|a, b| a.session == b.session);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Looks at a session; `None`: there is none.
    pub(super) async fn row(&self, session: &SessionId) -> Result<Option<Row>, Unavailable> {
        type Fields = (Option<u64>, Option<u64>, Option<String>, Option<String>);
        let keys = self.keys.session(session);
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        pipeline.cmd("HMGET").arg(keys.meta).arg(&["expires", "created", "last", "subject"]);
        pipeline.cmd("HLEN").arg(keys.active);
        let (clock, (expires, created, last, subject), active) =
            self.servers.pipeline::<(Clock, Fields, usize)>(keys.slot, Lane::Pages, &pipeline).await?;
        Ok(match (expires.filter(|expires| now_ms(clock) < *expires), created, last) {
            (Some(_), Some(created_ms), Some(last)) => Some(Row { created_ms, tail: offset(&last)?, active, subject }),
            _ => None,
        })
    }
}
