//! The Lua scripts: called by their digest, loaded when the server does not know them.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, Script, ServerErrorKind};

/// A script of this store.
#[derive(Debug)]
pub(super) struct Lua {
    script: Script,
}

/// All scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) append: Lua,
    pub(super) open: Lua,
    pub(super) takeover: Lua,
    pub(super) cancel: Lua,
    pub(super) start: Lua,
    pub(super) erase: Lua,
    pub(super) locate: Lua,
    pub(super) mend: Lua,
    pub(super) enlist: Lua,
    pub(super) renew: Lua,
    pub(super) resign: Lua,
    pub(super) sweep: Lua,
    pub(super) command: Lua,
    pub(super) amend: Lua,
    pub(super) appear: Lua,
    pub(super) stay: Lua,
    pub(super) depart: Lua,
    pub(super) read: Lua,
    pub(super) bind: Lua,
    pub(super) note_use: Lua,
}

/// A session script that looks at the queue, too.
macro_rules! queue_script {
    ($file:literal) => {
        concat!(
            include_str!("scripts/session.lua"),
            include_str!("scripts/queue.lua"),
            include_str!(concat!("scripts/", $file))
        )
    };
}

macro_rules! session_script {
    ($file:literal) => {
        concat!(include_str!("scripts/session.lua"), include_str!(concat!("scripts/", $file)))
    };
}

impl Scripts {
    /// The scripts of a log whose channels are `sharded`, as those of a cluster are.
    pub(super) fn new(sharded: bool) -> Self {
        let lua = |code| Lua::new(sharded, code);
        Scripts {
            append: lua(queue_script!("append.lua")),
            open: lua(queue_script!("open.lua")),
            takeover: lua(queue_script!("takeover.lua")),
            cancel: lua(queue_script!("cancel.lua")),
            start: lua(queue_script!("start.lua")),
            erase: lua(session_script!("erase.lua")),
            locate: lua(session_script!("locate.lua")),
            mend: lua(session_script!("mend.lua")),
            enlist: lua(include_str!("scripts/enlist.lua")),
            renew: lua(include_str!("scripts/renew.lua")),
            resign: lua(include_str!("scripts/resign.lua")),
            sweep: lua(include_str!("scripts/sweep.lua")),
            command: lua(include_str!("scripts/command.lua")),
            amend: lua(include_str!("scripts/amend.lua")),
            appear: lua(include_str!("scripts/appear.lua")),
            stay: lua(include_str!("scripts/stay.lua")),
            depart: lua(include_str!("scripts/depart.lua")),
            read: lua(session_script!("read.lua")),
            bind: lua(session_script!("bind.lua")),
            note_use: lua(include_str!("scripts/use.lua")),
        }
    }

    /// Loads all scripts, so that no first call of a token's path pays for it.
    pub(super) async fn load(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let all = [
            &self.append,
            &self.open,
            &self.takeover,
            &self.cancel,
            &self.start,
            &self.erase,
            &self.locate,
            &self.mend,
            &self.enlist,
            &self.renew,
            &self.resign,
            &self.sweep,
            &self.command,
            &self.amend,
            &self.appear,
            &self.stay,
            &self.depart,
            &self.read,
            &self.bind,
            &self.note_use,
        ];
        for lua in all {
            lua.script.load_async(connection).await?;
        }
        Ok(())
    }
}

impl Lua {
    /// A script that publishes over channels which are, in a cluster, of the slot of their keys.
    fn new(sharded: bool, code: &str) -> Self {
        let publish = if sharded { "SPUBLISH" } else { "PUBLISH" };
        Lua { script: Script::new(&format!("local PUBLISH = '{publish}'\n{code}")) }
    }

    /// A call with `keys`; the arguments are added by the caller. `weight`: about how many there
    /// will be, and of how many bytes.
    pub(super) fn call(&self, keys: &[&str], weight: (usize, usize)) -> Cmd {
        let mut command = Cmd::with_capacity(3 + keys.len() + weight.0, 128 + weight.1);
        command.arg("EVALSHA").arg(self.script.get_hash()).arg(keys.len()).arg(keys);
        command
    }

    /// Sends a call of this script.
    pub(super) async fn send<T: FromRedisValue>(
        &self,
        command: &Cmd,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<T> {
        match command.query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                // Not executed: nothing is written twice. Somebody flushed the scripts.
                self.script.load_async(connection).await?;
                command.query_async(connection).await
            }
            answer => answer,
        }
    }
}
