//! Whose a session is: meta says it, and the subject's sorted set finds it. The set may name sessions
//! that are gone, or that became another's: meta decides.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult};

use super::RedisLog;
use super::append::offset;
use super::fields::unexpected;
use super::keys::SessionKeys;
use super::scripts::Lua;
use super::supervisor::Lane;
use crate::log::{MOST_SESSIONS, OwnSession, Unavailable, Used};
use crate::session::{SessionId, Subject};

/// Sessions that are looked at in one step.
const STEP: usize = 100;

/// Two requests that bind a session: two keys of two slots.
pub(super) struct Binding<'a> {
    bind: (&'a Lua, Cmd),
    note_use: (&'a Lua, Cmd),
}

impl Binding<'_> {
    /// Sends them. `true`: the session is the subject's.
    pub(super) async fn send(&self, connection: &MultiplexedConnection) -> RedisResult<bool> {
        let (mut connection, mut also) = (connection.clone(), connection.clone());
        let bound = self.bind.0.send::<u8>(&self.bind.1, &mut connection);
        let used = self.note_use.0.send::<u8>(&self.note_use.1, &mut also);
        let (bound, used) = tokio::join!(bound, used);
        used?;
        Ok(bound? == 1)
    }
}

impl RedisLog {
    pub(super) async fn do_bind(&self, session: &SessionId, subject: &Subject) -> Result<bool, Unavailable> {
        let keys = self.keys.session(session);
        self.supervisor
            .call(Lane::Writes, |connection, identity| {
                let binding = self.binding(&keys, session, subject, &identity);
                async move { binding.send(&connection).await }
            })
            .await
    }

    /// What binds `session` to `subject`.
    pub(super) fn binding(
        &self,
        keys: &SessionKeys,
        session: &SessionId,
        subject: &Subject,
        identity: &str,
    ) -> Binding<'_> {
        let scripts = self.supervisor.scripts();
        let mut bind = scripts.bind.call(&keys.all(), (5, 768));
        self.add_bounds(&mut bind, identity);
        bind.arg(subject.as_str());
        let mut note_use = scripts.note_use.call(&[&self.keys.subject(subject)], (3, 256));
        note_use.arg(session.as_str()).arg(self.ttl_ms()).arg(MOST_SESSIONS);
        Binding { bind: (&scripts.bind, bind), note_use: (&scripts.note_use, note_use) }
    }

    pub(super) async fn do_sessions_of(
        &self,
        subject: &Subject,
        limit: usize,
        before: Option<Used>,
    ) -> Result<Vec<OwnSession>, Unavailable> {
        let mut used = self.used_by(subject).await?;
        used.retain(|used| before.as_ref().is_none_or(|before| used < before));
        let mut rows = Vec::new();
        for step in used.chunks(STEP) {
            rows.extend(self.own(subject, step).await?);
            if rows.len() >= limit {
                rows.truncate(limit);
                break;
            }
        }
        Ok(rows)
    }

    /// Forgets that a subject had a session.
    pub(super) async fn disown(&self, subject: &Subject, session: &SessionId) -> Result<(), Unavailable> {
        let remove = Cmd::new().arg("ZREM").arg(self.keys.subject(subject)).arg(session.as_str()).take();
        self.supervisor
            .call(Lane::Writes, |mut connection, _| async move { remove.exec_async(&mut connection).await })
            .await
    }

    /// All members of the set, newest first; of one millisecond in the reverse order of names.
    async fn used_by(&self, subject: &Subject) -> Result<Vec<Used>, Unavailable> {
        let mut command = Cmd::new();
        command.arg("ZREVRANGE").arg(self.keys.subject(subject)).arg(0).arg(-1).arg("WITHSCORES");
        let members: Vec<(String, f64)> = self
            .supervisor
            .call(Lane::Pages, |mut connection, _| async move { command.query_async(&mut connection).await })
            .await?;
        let used = |(session, ms): &(String, f64)| {
            Some(Used { ms: *ms as u64, session: SessionId::from_store(session).ok()? })
        };
        Ok(members.iter().filter_map(used).collect())
    }

    /// Those that exist and are the subject's.
    async fn own(&self, subject: &Subject, used: &[Used]) -> Result<Vec<OwnSession>, Unavailable> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        for Used { session, .. } in used {
            let keys = self.keys.session(session);
            pipeline.cmd("HMGET").arg(keys.meta).arg(&["expires", "created", "last", "subject"]);
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
        for (used, answer) in used.iter().zip(answers.chunks_exact(2)) {
            type Row = (Option<u64>, Option<u64>, Option<String>, Option<String>);
            let (expires, created, last, of): Row =
                redis::from_redis_value_ref(&answer[0]).map_err(|_| unexpected("HMGET"))?;
            let active = redis::from_redis_value_ref(&answer[1]).map_err(|_| unexpected("HLEN"))?;
            if let (Some(expires), Some(created_ms), Some(last)) = (expires, created, last)
                && now_ms < expires
                && of.as_deref() == Some(subject.as_str())
            {
                rows.push(OwnSession { used: used.clone(), tail: offset(&last)?, created_ms, active });
            }
        }
        Ok(rows)
    }
}
