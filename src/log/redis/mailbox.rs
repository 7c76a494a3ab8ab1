//! The commands of the instances of this process: heard from the channel or from a renewal,
//! whichever is first, and handed over once.
//!
//! The list in Redis is the truth, the channel a hint. What was heard is said with the next renewal,
//! which removes it; until then it may come again, and is known here.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::commands::decode;
use crate::log::{Command, CommandSender, Commands, commands};
use crate::session::InstanceId;

/// Commands that wait in the channel of a listener; what does not fit comes with a renewal.
const LISTENER: usize = 256;

/// The mailboxes of this process.
#[derive(Default)]
pub(super) struct Mailboxes {
    by_instance: Mutex<HashMap<InstanceId, Arc<Mailbox>>>,
}

/// The mailbox of one instance.
#[derive(Default)]
pub(super) struct Mailbox {
    state: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    listener: Option<CommandSender>,
    /// Handed over, and still in the list as far as we know. Bounded as the list is.
    heard: HashSet<String>,
}

impl Mailboxes {
    pub(super) fn of(&self, instance: &InstanceId) -> Arc<Mailbox> {
        self.lock().entry(instance.clone()).or_default().clone()
    }

    /// Forgets an instance, whose id is never used again.
    pub(super) fn forget(&self, instance: &InstanceId) {
        if let Some(mailbox) = self.lock().remove(instance) {
            mailbox.end();
        }
    }

    /// Ends all listening.
    pub(super) fn end(&self) {
        self.lock().values().for_each(|mailbox| mailbox.end());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, Arc<Mailbox>>> {
        self.by_instance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    /// Hears commands from now on; an earlier listener hears no more.
    pub(super) fn listen(&self) -> Commands {
        let (sender, commands) = commands(LISTENER);
        self.lock().listener = Some(sender);
        commands
    }

    /// Whether nobody listens.
    pub(super) fn is_deserted(&self) -> bool {
        self.lock().listener.as_ref().is_none_or(CommandSender::is_closed)
    }

    /// A message of the channel.
    pub(super) fn pushed(&self, message: &[u8]) {
        let Ok(message) = str::from_utf8(message) else { return };
        let Some(command) = decode(message) else { return };
        let mut state = self.lock();
        if !state.heard.contains(message) && state.listener.as_ref().is_some_and(|listener| listener.send(command)) {
            state.heard.insert(message.to_owned());
        }
    }

    /// What the next renewal may remove.
    pub(super) fn heard(&self) -> Vec<String> {
        self.lock().heard.iter().cloned().collect()
    }

    /// A renewal has removed `said` and answered `waiting`; the commands that are new.
    pub(super) fn renewed(&self, said: &[String], waiting: &[String]) -> Vec<Command> {
        let mut state = self.lock();
        for element in said {
            state.heard.remove(element);
        }
        let new = waiting.iter().filter(|element| state.heard.insert((*element).clone()));
        let known = |element: &String| {
            let command = decode(element);
            if command.is_none() {
                tracing::warn!("a command for this instance is not known to this version: upgrade it");
            }
            command
        };
        new.filter_map(known).collect()
    }

    fn end(&self) {
        self.lock().listener = None;
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        // Nothing here panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::redis::commands::encode;
    use crate::session::{RunId, SessionId};

    fn cancel() -> (String, Command) {
        let (session, run) = (SessionId::parse("s").expect("an id"), RunId::parse("r").expect("an id"));
        let command = Command::Cancel { session, run, by: "{}".into() };
        (encode(&command), command)
    }

    #[tokio::test]
    async fn a_command_that_was_pushed_does_not_come_with_the_renewal() {
        let mailbox = Mailbox::default();
        let mut commands = mailbox.listen();
        let (element, command) = cancel();
        mailbox.pushed(element.as_bytes());
        mailbox.pushed(element.as_bytes());
        assert_eq!(mailbox.renewed(&[], std::slice::from_ref(&element)), vec![]);
        assert_eq!(mailbox.heard(), [element]);
        assert_eq!(commands.next().await, Some(command));
        drop(mailbox);
        assert_eq!(commands.next().await, None, "it came once");
    }

    #[test]
    fn a_command_that_nobody_was_there_to_hear_comes_with_the_renewal_once() {
        let mailbox = Mailbox::default();
        let (element, command) = cancel();
        mailbox.pushed(element.as_bytes());
        assert_eq!(mailbox.renewed(&[], std::slice::from_ref(&element)), vec![command]);
        // The renewal that says so got no answer: the next one finds the command again.
        assert_eq!(mailbox.renewed(&[], std::slice::from_ref(&element)), vec![]);
        let said = mailbox.heard();
        assert_eq!(said, [element]);
        assert_eq!(mailbox.renewed(&said, &[]), vec![]);
        assert!(mailbox.heard().is_empty());
    }

    #[test]
    fn a_command_of_a_newer_version_is_taken_out_of_the_list() {
        let mailbox = Mailbox::default();
        let element = "0123456789abcdef 2 dance".to_owned();
        assert_eq!(mailbox.renewed(&[], std::slice::from_ref(&element)), vec![]);
        assert_eq!(mailbox.heard(), [element]);
    }
}
