//! Idempotency claims, and erasing.

use bytestring::ByteString;

use super::RedisLog;
use super::fields::unexpected;
use super::link::Lane;
use super::slots::Slot;
use crate::log::{Claim, Unavailable};
use crate::session::{SessionId, Subject};

impl RedisLog {
    pub(super) async fn do_claim(&self, key: &str, value: ByteString) -> Result<Claim, Unavailable> {
        let key = self.keys.claim(key);
        let mut pipeline = redis::pipe();
        // 6.2 has no SET NX GET; whoever was first is there when the second command asks.
        pipeline.cmd("SET").arg(&key).arg(&*value).arg("PX").arg(self.ttl_ms()).arg("NX").ignore();
        pipeline.cmd("GET").arg(&key);
        let (stored,): (Option<String>,) =
            self.servers.settled(Slot::of(&key), Lane::Writes, &self.keys.claim_ack(&key), &pipeline).await?;
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
        let lua = &self.servers.scripts().amend;
        let mut command = lua.call(&[&key], (3, 512));
        command.arg(&*from).arg(to.as_deref().unwrap_or_default()).arg(self.ttl_ms());
        let settles = self.keys.claim_ack(&key);
        let request = |mut connection, _| {
            let command = &command;
            async move { lua.send::<u8>(command, &mut connection).await }
        };
        let done = self.servers.call(Slot::of(&key), Lane::Writes, Some(&settles), request).await?;
        Ok(done == 1)
    }

    pub(super) async fn do_erase(&self, session: &SessionId) -> Result<bool, Unavailable> {
        let keys = self.keys.session(session);
        let lua = &self.servers.scripts().erase;
        let answer: Vec<String> = self.session_script(&keys, lua, (4, 640), |_| {}).await?;
        if let [_, subject] = &answer[..]
            && let Some(subject) = Subject::parse(subject)
        {
            self.disown(&subject, session).await?;
        }
        Ok(answer.first().is_some_and(|erased| erased == "1"))
    }
}
