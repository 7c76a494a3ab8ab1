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
        Lua::new(concat!(
            include_str!("scripts/session.lua"),
            include_str!("scripts/queue.lua"),
            include_str!(concat!("scripts/", $file))
        ))
    };
}

macro_rules! session_script {
    ($file:literal) => {
        Lua::new(concat!(include_str!("scripts/session.lua"), include_str!(concat!("scripts/", $file))))
    };
}

impl Scripts {
    pub(super) fn new() -> Self {
        Scripts {
            append: queue_script!("append.lua"),
            open: queue_script!("open.lua"),
            takeover: queue_script!("takeover.lua"),
            cancel: queue_script!("cancel.lua"),
            start: queue_script!("start.lua"),
            erase: session_script!("erase.lua"),
            locate: session_script!("locate.lua"),
            mend: session_script!("mend.lua"),
            enlist: Lua::new(include_str!("scripts/enlist.lua")),
            renew: Lua::new(include_str!("scripts/renew.lua")),
            resign: Lua::new(include_str!("scripts/resign.lua")),
            sweep: Lua::new(include_str!("scripts/sweep.lua")),
            command: Lua::new(include_str!("scripts/command.lua")),
            amend: Lua::new(include_str!("scripts/amend.lua")),
            appear: Lua::new(include_str!("scripts/appear.lua")),
            stay: Lua::new(include_str!("scripts/stay.lua")),
            depart: Lua::new(include_str!("scripts/depart.lua")),
            read: session_script!("read.lua"),
            bind: session_script!("bind.lua"),
            note_use: Lua::new(include_str!("scripts/use.lua")),
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
    fn new(code: &str) -> Self {
        Lua { script: Script::new(code) }
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
