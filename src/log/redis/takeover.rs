//! Ending a run whose owner is gone: fence and terminal in one script.

use super::RedisLog;
use super::append::{answer_of, closed, offset};
use super::fields::{unexpected, word};
use crate::log::{Closed, TakenOver, Takeover, Unavailable};
use crate::session::{Record, RunState, Terminal};

impl RedisLog {
    pub(super) async fn do_takeover(&self, takeover: Takeover) -> Result<TakenOver, Unavailable> {
        let Takeover { session, run, nonce, details } = takeover;
        let keys = self.keys.session(&session);
        let lua = &self.servers.scripts().takeover;
        let answer: Vec<String> = self
            .session_script(&keys, lua, (8, details.len() + 512), |command| {
                command.arg(run.as_str()).arg(word(&nonce)).arg(&*details).arg(self.options.push_payload_limit);
            })
            .await?;
        match answer_of(&answer)[..] {
            ["stored", first, _, prev, published, state, whole] => {
                let (first, state) = (self.heard(offset(first)?), terminal(state)?);
                let record = Record::run_state(run, RunState::Ended(state), whole.to_owned());
                self.stored(&session, &keys, prev, first, published, vec![record], 0)?;
                Ok(TakenOver::Ended { offset: first, state })
            }
            ["ended", at, state] => Ok(TakenOver::Ended { offset: self.heard(offset(at)?), state: terminal(state)? }),
            ["queued"] => Ok(TakenOver::Queued),
            ["never"] => Ok(TakenOver::NeverStarted),
            ref other => Ok(match closed(other)? {
                Closed::Terminal { offset, state } => TakenOver::AlreadyEnded { offset, state },
                gone => TakenOver::Closed(gone),
            }),
        }
    }
}

fn terminal(name: &str) -> Result<Terminal, Unavailable> {
    Terminal::parse(name).ok_or_else(|| unexpected("the takeover script"))
}
