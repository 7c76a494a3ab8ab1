//! What is said to an instance. Documented in `docs/store-layout.md`.
//!
//! ```text
//! <id> 1 cancel <session> <run> <by>
//! <id> 1 steer <session> <run> <receipt> <client> <body>
//! <id> 1 came <session> <run> <caller>
//! <id> 1 left <session> <run> <caller>
//! ```
//!
//! `<id>`: 16 random hexadecimal digits, so that two equal commands are two; `1`: the version of what
//! follows; `<client>` is percent-encoded; `<by>` and `<body>`: everything to the end.

use super::RedisLog;
use super::fields::{unword, word};
use crate::log::{COMMANDS_WAITING, Command, Commands, SteerOrder, Unavailable};
use crate::random;
use crate::session::{InstanceId, RunId, SessionId};

/// How long a command waits for an instance that does not renew its lease.
pub(super) const COMMAND_TTL_MS: u64 = 60_000;

/// The version of the encoding.
const VERSION: &str = "1";

impl RedisLog {
    pub(super) async fn do_command(&self, instance: &InstanceId, command: Command) -> Result<bool, Unavailable> {
        let keys = [self.keys.alive(instance), self.keys.commands(instance), self.keys.commands_channel(instance)];
        let element = encode(&command);
        let lua = &self.servers.scripts().command;
        let mut command = lua.call(&keys.each_ref().map(String::as_str), (3, element.len() + 256));
        command.arg(element).arg(COMMAND_TTL_MS).arg(COMMANDS_WAITING);
        let kept: String = self.servers.script(self.keys.instances_slot(), lua, &command).await?;
        match &*kept {
            "kept" => Ok(true),
            "dead" => Ok(false),
            _ => Err(Unavailable::new("too many commands wait for the instance")),
        }
    }

    pub(super) async fn do_commands(&self, instance: &InstanceId) -> Result<Commands, Unavailable> {
        let mailbox = self.mailboxes.of(instance);
        let commands = mailbox.listen();
        let subscribed = self.followers.add_mailbox(self.keys.commands_channel(instance), mailbox);
        self.confirmed(self.keys.instances_slot(), subscribed).await?;
        Ok(commands)
    }
}

/// A command as it stands in the list and in the channel.
pub(super) fn encode(command: &Command) -> String {
    let id = random::u64();
    match command {
        Command::Cancel { session, run, by } => format!("{id:016x} {VERSION} cancel {session} {run} {by}"),
        Command::Caller { session, run, caller, here } => {
            let verb = if *here { "came" } else { "left" };
            format!("{id:016x} {VERSION} {verb} {session} {run} {caller}")
        }
        Command::Steer(SteerOrder { session, run, receipt, client, body }) => {
            format!("{id:016x} {VERSION} steer {session} {run} {receipt} {} {body}", word(client))
        }
    }
}

/// The command in `element`; `None`: of a newer version.
pub(super) fn decode(element: &str) -> Option<Command> {
    let (_id, rest) = element.split_once(' ')?;
    let (verb, rest) = rest.strip_prefix(VERSION)?.strip_prefix(' ')?.split_once(' ')?;
    match verb {
        "cancel" => {
            let mut words = rest.splitn(3, ' ');
            let session = SessionId::from_store(words.next()?).ok()?;
            let run = RunId::from_store(words.next()?).ok()?;
            Some(Command::Cancel { session, run, by: words.next()?.into() })
        }
        "came" | "left" => {
            let mut words = rest.splitn(3, ' ');
            let session = SessionId::from_store(words.next()?).ok()?;
            let run = RunId::from_store(words.next()?).ok()?;
            Some(Command::Caller { session, run, caller: words.next()?.into(), here: verb == "came" })
        }
        "steer" => {
            let mut words = rest.splitn(5, ' ');
            Some(Command::Steer(SteerOrder {
                session: SessionId::from_store(words.next()?).ok()?,
                run: RunId::from_store(words.next()?).ok()?,
                receipt: words.next()?.into(),
                client: unword(words.next()?)?,
                body: words.next()?.into(),
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_comes_back_as_it_was() {
        for by in ["", r#"{"client":"a b"}"#] {
            let (session, run) = (SessionId::from_digest_text("abc"), RunId::from_random(1));
            let command = Command::Cancel { session, run, by: by.into() };
            assert_eq!(decode(&encode(&command)), Some(command));
        }
        for here in [true, false] {
            let (session, run) = (SessionId::from_digest_text("abc"), RunId::from_random(1));
            let command = Command::Caller { session, run, caller: "c1".into(), here };
            assert_eq!(decode(&encode(&command)), Some(command));
        }
    }

    #[test]
    fn an_order_comes_back_as_it_was() {
        let (session, run) = (SessionId::from_digest_text("abc"), RunId::from_random(1));
        let (client, body) = ("a b".into(), r#"{"text": "go on"}"#.into());
        let command = Command::Steer(SteerOrder { session, run, receipt: "r1".into(), client, body });
        assert_eq!(decode(&encode(&command)), Some(command));
    }

    #[test]
    fn what_another_version_says_is_not_guessed() {
        for element in ["", "00 1", "00 1 dance s r", "00 2 cancel s r {}", "00 11 cancel s r {}", "00 1 cancel s r"] {
            assert_eq!(decode(element), None, "{element:?}");
        }
    }
}
