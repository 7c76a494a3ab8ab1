//! Appending: one script, one round trip; a repeat finds what an earlier attempt stored.

use std::sync::Arc;

use redis::{Cmd, FromRedisValue};

use super::RedisLog;
use super::fields::{Batch, unexpected, word};
use super::keys::SessionKeys;
use super::link::Lane;
use super::scripts::Lua;
use crate::log::{Append, Appended, Closed, RunFlags, Unavailable, Writer};
use crate::session::{Entry, Offset, Record, RunId, SessionId, Terminal};

impl RedisLog {
    pub(super) async fn do_append(&self, append: Append) -> Result<Appended, Unavailable> {
        let Append { session, writer, first_n, records, seen, skips } = append;
        debug_assert!(!records.is_empty(), "an append has records");
        debug_assert!(records.iter().all(|record| record.run == records[0].run), "an append is of one run, or of none");
        let keys = self.keys.session(&session);
        let batch = Batch::of(&records, self.options.push_payload_limit);
        let terminal = terminal_of(&writer, &records);
        let lua = &self.servers.scripts().append;
        let answer: Vec<String> = self
            .session_script(&keys, lua, batch.weight(), |command| {
                match &writer {
                    Writer::Run { run, fence } => {
                        command.arg("run").arg(run.as_str()).arg(fence.counter).arg(word(&fence.nonce))
                    }
                    Writer::Producer { id, epoch } => {
                        let run = records[0].run.as_ref().map_or("", RunId::as_str);
                        command.arg("producer").arg(&**id).arg(*epoch).arg(run)
                    }
                };
                command.arg(first_n).arg(seen.map(|seen| seen.to_string()).unwrap_or_default());
                command.arg(terminal.map(Terminal::as_str).unwrap_or_default());
                command.arg(if skips { "1" } else { "" });
                batch.add_to(command, &records);
            })
            .await?;
        match answer_of(&answer)[..] {
            ["stored", first, last, prev, published, cancel, skipped, next] => {
                let (first, last) = (offset(first)?, self.heard(offset(last)?));
                self.stored(&session, &keys, prev, first, published, records, skipped.parse().unwrap_or(0))?;
                Ok(Appended::Stored { first, last, flags: flags(cancel), next: RunId::from_store(next).ok() })
            }
            ["duplicate", last, cancel] => {
                Ok(Appended::Duplicate { last: self.heard(offset(last)?), flags: flags(cancel) })
            }
            ["gap", n] => Ok(Appended::Gap { expected: n.parse().map_err(|_| unexpected("the append script"))? }),
            ["fenced"] => Ok(Appended::Fenced),
            ["rolled_back", tail, n] => {
                let n = n.parse().map_err(|_| unexpected("the append script"))?;
                Ok(Appended::RolledBack { tail: self.heard(offset(tail)?), n })
            }
            ref closed => Ok(Appended::Closed(self::closed(closed)?)),
        }
    }

    /// Runs a script of a session; `add` adds its own arguments to those that all begin with.
    pub(super) async fn session_script<T: FromRedisValue>(
        &self,
        keys: &SessionKeys,
        lua: &Lua,
        weight: (usize, usize),
        add: impl Fn(&mut Cmd),
    ) -> Result<T, Unavailable> {
        let request = |mut connection, identity: Arc<str>| {
            let mut command = lua.call(&keys.all(), weight);
            self.add_bounds(&mut command, &identity);
            add(&mut command);
            async move { lua.send(&command, &mut connection).await }
        };
        self.servers.call(keys.slot, Lane::Writes, Some(&keys.ack), request).await
    }

    /// The arguments that every session script begins with.
    fn add_bounds(&self, command: &mut Cmd, identity: &str) {
        let retention = &self.options.retention;
        let ttl = u64::try_from(retention.ttl.as_millis()).unwrap_or(u64::MAX);
        command.arg(identity).arg(ttl).arg(retention.max_entries).arg(retention.max_bytes).arg(self.floor.ms());
    }

    /// An offset that the server has given.
    pub(super) fn heard(&self, offset: Offset) -> Offset {
        self.floor.heard(offset);
        offset
    }

    /// Tells our own followers what an append has stored, without the way over the server's channel.
    #[expect(clippy::too_many_arguments, reason = "what the script answers, as it answers it")]
    pub(super) fn stored(
        &self,
        session: &SessionId,
        keys: &SessionKeys,
        prev: &str,
        first: Offset,
        published: &str,
        records: Vec<Record>,
        skipped: usize,
    ) -> Result<(), Unavailable> {
        let pushed = published == "1";
        if !pushed {
            self.unpublished(session);
        }
        if self.followers.any(&keys.channel) {
            let offsets = (first.seq..).map(|seq| Offset::new(first.ms, seq));
            let records = records.into_iter().skip(skipped);
            let entries = offsets.zip(records).map(|(offset, record)| Arc::new(Entry { offset, record })).collect();
            self.followers.stored(&keys.channel, offset(prev)?, entries, pushed);
        }
        Ok(())
    }
}

/// The terminal of the writer's own run, if the last record is one.
fn terminal_of(writer: &Writer, records: &[Record]) -> Option<Terminal> {
    let own: &RunId = match writer {
        Writer::Run { run, .. } => run,
        Writer::Producer { .. } => return None,
    };
    let last = records.last()?;
    (last.run.as_ref() == Some(own)).then(|| last.state()?.terminal()).flatten()
}

/// The words of a script's answer.
pub(super) fn answer_of(answer: &[String]) -> Vec<&str> {
    answer.iter().map(String::as_str).collect()
}

/// The flags as a script answers them: who asked for the run's cancellation, or nothing.
pub(super) fn flags(by: &str) -> RunFlags {
    RunFlags { cancel: (!by.is_empty()).then(|| by.into()) }
}

/// An offset as a script answers it.
pub(super) fn offset(text: &str) -> Result<Offset, Unavailable> {
    text.parse().map_err(|_| unexpected("a script"))
}

/// The answers that mean "closed", which all scripts share.
pub(super) fn closed(answer: &[&str]) -> Result<Closed, Unavailable> {
    match *answer {
        ["terminal", at, state] => Ok(Closed::Terminal {
            offset: offset(at)?,
            state: Terminal::parse(state).ok_or_else(|| unexpected("a script"))?,
        }),
        ["erased"] => Ok(Closed::Erased),
        ["expired"] => Ok(Closed::Expired),
        ["unknown"] => Ok(Closed::Unknown),
        _ => Err(unexpected("a script")),
    }
}
