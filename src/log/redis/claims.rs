//! Idempotency claims, and erasing.

use bytestring::ByteString;

use super::RedisLog;
use super::fields::unexpected;
use super::supervisor::Lane;
use crate::log::{Claim, Unavailable};
use crate::session::{SessionId, Subject};

impl RedisLog {
    pub(super) async fn do_claim(&self, key: &str, value: ByteString) -> Result<Claim, Unavailable> {
        let key = self.keys.claim(key);
        let mut pipeline = redis::pipe();
        // 6.2 has no SET NX GET; whoever was first is there when the second command asks.
        pipeline.cmd("SET").arg(&key).arg(&*value).arg("PX").arg(self.ttl_ms()).arg("NX").ignore();
        pipeline.cmd("GET").arg(&key);
        let (stored,): (Option<String>,) = self
            .supervisor
            .call(Lane::Writes, |mut connection, _| async move { pipeline.query_async(&mut connection).await })
            .await?;
        // Our own value, stored by an attempt whose answer was lost, is a claim that we won.
        match stored {
            Some(stored) if *stored == *value => Ok(Claim::Won),
            Some(stored) => Ok(Claim::Taken(stored.into())),
            None => Err(unexpected("GET")),
        }
    }

    pub(super) async fn do_amend(
        &self,
        key: &str,
        from: ByteString,
        to: Option<ByteString>,
    ) -> Result<bool, Unavailable> {
        let key = self.keys.claim(key);
        let lua = &self.supervisor.scripts().amend;
        let mut command = lua.call(&[&key], (3, 512));
        command.arg(&*from).arg(to.as_deref().unwrap_or_default()).arg(self.ttl_ms());
        let done: u8 = self
            .supervisor
            .call(Lane::Writes, |mut connection, _| async move { lua.send(&command, &mut connection).await })
            .await?;
        Ok(done == 1)
    }

    pub(super) async fn do_erase(&self, session: &SessionId) -> Result<bool, Unavailable> {
        let keys = self.keys.session(session);
        let lua = &self.supervisor.scripts().erase;
        let answer: Vec<String> = self
            .supervisor
            .call(Lane::Writes, |mut connection, identity| {
                let mut command = lua.call(&keys.all(), (4, 640));
                self.add_bounds(&mut command, &identity);
                async move { lua.send(&command, &mut connection).await }
            })
            .await?;
        if let [_, subject] = &answer[..]
            && let Some(subject) = Subject::parse(subject)
        {
            self.disown(&subject, session).await?;
        }
        Ok(answer.first().is_some_and(|erased| erased == "1"))
    }
}
