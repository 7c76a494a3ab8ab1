//! Whose a session is: meta says it, and the subject's sorted set finds it. The set may name sessions
//! that are gone, or that became another's: meta decides.

use futures_util::future::try_join_all;
use redis::Cmd;

use super::RedisLog;
use super::link::Lane;
use super::rows::Row;
use super::slots::Slot;
use crate::log::{MOST_SESSIONS, OwnSession, Unavailable, Used};
use crate::session::{SessionId, Subject};

/// Sessions that are looked at in one step.
const STEP: usize = 100;

impl RedisLog {
    pub(super) async fn do_bind(&self, session: &SessionId, subject: &Subject) -> Result<bool, Unavailable> {
        let (keys, subjects) = (self.keys.session(session), self.keys.subject(subject));
        let scripts = self.servers.scripts();
        let bind = self.session_script::<u8>(&keys, &scripts.bind, (5, 768), |command| {
            command.arg(subject.as_str());
        });
        let mut note_use = scripts.note_use.call(&[&subjects], (3, 256));
        note_use.arg(session.as_str()).arg(self.ttl_ms()).arg(MOST_SESSIONS);
        let note_use = self.servers.script::<u8>(Slot::of(&subjects), &scripts.note_use, &note_use);
        let (bound, used) = tokio::join!(bind, note_use);
        used?;
        Ok(bound? == 1)
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
        let key = self.keys.subject(subject);
        let remove = Cmd::new().arg("ZREM").arg(&key).arg(session.as_str()).take();
        self.servers.command(Slot::of(&key), Lane::Writes, &remove).await
    }

    /// All members of the set, newest first; of one millisecond in the reverse order of names.
    async fn used_by(&self, subject: &Subject) -> Result<Vec<Used>, Unavailable> {
        let key = self.keys.subject(subject);
        let range = Cmd::new().arg("ZREVRANGE").arg(&key).arg(0).arg(-1).arg("WITHSCORES").take();
        let members: Vec<(String, f64)> = self.servers.command(Slot::of(&key), Lane::Pages, &range).await?;
        let used = |(session, ms): &(String, f64)| {
            Some(Used { ms: *ms as u64, session: SessionId::from_store(session).ok()? })
        };
        Ok(members.iter().filter_map(used).collect())
    }

    /// Those that exist and are the subject's.
    async fn own(&self, subject: &Subject, used: &[Used]) -> Result<Vec<OwnSession>, Unavailable> {
        let looks = try_join_all(used.iter().map(|used| self.row(&used.session))).await?;
        let rows = used.iter().zip(looks).filter_map(|(used, row)| {
            let Row { created_ms, tail, active, subject: of } = row?;
            (of.as_deref() == Some(subject.as_str())).then(|| OwnSession {
                used: used.clone(),
                tail,
                created_ms,
                active,
            })
        });
        Ok(rows.collect())
    }
}
