//! What the devices of a session share: who is here, how far users have read, what is said.

use std::time::Duration;

use redis::Cmd;

use super::RedisLog;
use super::append::{answer_of, offset};
use super::fields::{Clock, now_ms, unexpected};
use super::link::Lane;
use super::notes;
use super::slots::Slot;
use crate::log::{Appeared, Ephemeral, MOST_CURSORS, MOST_PRESENT, Marked, Present, ReadCursor, Shared, Unavailable};
use crate::session::{ClientName, ConnectionId, SessionId};

impl RedisLog {
    pub(super) async fn do_appear(
        &self,
        session: &SessionId,
        client: Present,
        lease: Duration,
    ) -> Result<Appeared, Unavailable> {
        let keys = self.keys.session(session);
        let lua = &self.servers.scripts().appear;
        let mut command = lua.call(&[&keys.presence, &keys.channel], (5, client.state.len() + 256));
        command.arg(client.connection.as_str()).arg(client.client.as_str()).arg(&*client.state);
        command.arg(millis(lease)).arg(MOST_PRESENT);
        let answer: String = self.servers.script(keys.slot, lua, &command).await?;
        match &*answer {
            "here" => Ok(Appeared::Here),
            "full" => Ok(Appeared::Full),
            _ => Err(unexpected("the appear script")),
        }
    }

    pub(super) async fn do_stay(
        &self,
        session: &SessionId,
        connections: Vec<ConnectionId>,
        lease: Duration,
    ) -> Result<Vec<ConnectionId>, Unavailable> {
        let keys = self.keys.session(session);
        let lua = &self.servers.scripts().stay;
        let mut command = lua.call(&[&keys.presence], (1 + connections.len(), 256 + 40 * connections.len()));
        command.arg(millis(lease));
        for connection in &connections {
            command.arg(connection.as_str());
        }
        let missing: Vec<String> = self.servers.script(keys.slot, lua, &command).await?;
        Ok(connections.into_iter().filter(|connection| missing.iter().any(|id| id == connection.as_str())).collect())
    }

    pub(super) async fn do_depart(&self, session: &SessionId, connection: &ConnectionId) -> Result<(), Unavailable> {
        let keys = self.keys.session(session);
        let lua = &self.servers.scripts().depart;
        let mut command = lua.call(&[&keys.presence, &keys.channel], (1, 256));
        command.arg(connection.as_str());
        self.servers.script(keys.slot, lua, &command).await
    }

    pub(super) async fn do_mark_read(&self, session: &SessionId, cursor: ReadCursor) -> Result<Marked, Unavailable> {
        let keys = self.keys.session(session);
        let lua = &self.servers.scripts().read;
        let answer: Vec<String> = self
            .session_script(&keys, lua, (8, 768), |command| {
                command.arg(cursor.user.to_word()).arg(cursor.client.as_str()).arg(cursor.offset.to_string());
                command.arg(MOST_CURSORS);
            })
            .await?;
        match answer_of(&answer)[..] {
            ["read", at] => Ok(Marked::At(offset(at)?)),
            ["ahead"] => Ok(Marked::Ahead),
            ["none"] => Ok(Marked::NotFound),
            _ => Err(unexpected("the read script")),
        }
    }

    pub(super) async fn do_say(&self, session: &SessionId, said: Ephemeral) -> Result<(), Unavailable> {
        let channel = self.keys.channel(session);
        let publish = Cmd::new().arg(self.servers.publish()).arg(&channel).arg(notes::encode(&said)).take();
        self.servers.command(Slot::of(&channel), Lane::Writes, &publish).await
    }

    pub(super) async fn do_shared(&self, session: &SessionId) -> Result<Shared, Unavailable> {
        let keys = self.keys.session(session);
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        pipeline.cmd("HGETALL").arg(&keys.presence);
        pipeline.cmd("HGETALL").arg(&keys.cursors);
        type Rows = Vec<(String, String)>;
        let (clock, present, cursors) =
            self.servers.pipeline::<(Clock, Rows, Rows)>(keys.slot, Lane::Pages, &pipeline).await?;
        let now_ms = now_ms(clock);
        let here = present.iter().filter_map(|(connection, value)| here(connection, value, now_ms));
        let (mut present, leases): (Vec<Present>, Vec<u64>) = here.unzip();
        present.sort_by(|a, b| a.connection.cmp(&b.connection));
        let read = |(user, value): &(String, String)| notes::cursor(user, value.split_once(' ')?);
        Ok(Shared {
            present,
            lease_ends_in: leases.into_iter().min().map(Duration::from_millis),
            cursors: cursors.iter().filter_map(read).collect(),
        })
    }
}

/// A client whose lease holds, and for how many milliseconds it does.
fn here(connection: &str, value: &str, now_ms: u64) -> Option<(Present, u64)> {
    let (until, said) = value.split_once(' ')?;
    let (client, state) = said.split_once(' ')?;
    let left = until.parse::<u64>().ok()?.checked_sub(now_ms).filter(|left| *left > 0)?;
    let (connection, client) = (ConnectionId::from_store(connection).ok()?, ClientName::parse(client).ok()?);
    Some((Present { connection, client, state: state.into() }, left))
}

fn millis(lease: Duration) -> u64 {
    u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1)
}
