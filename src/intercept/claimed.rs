//! What the claim of a key says, and how it stands in the log. Pure; `claim` has the meaning of its
//! states.

use bytestring::ByteString;

use crate::session::{InstanceId, RunId, SessionId};

/// What a claim says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) state: State,
    /// Where the run is, or is going to be.
    pub(super) session: SessionId,
    /// The run's id, chosen before anything is begun.
    pub(super) run: RunId,
    /// The claimant.
    pub(super) instance: InstanceId,
    pub(super) request: Request,
}

/// How far the call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Calling,
    Run,
    Lost,
}

/// What is known of the claimant's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Its body is still being read.
    Coming,
    /// Its fingerprint.
    Is(String),
    /// Its body was not read to its end: whether another request is the same one cannot be known.
    Never,
}

impl Claimed {
    /// A new claim.
    pub(super) fn calling(session: SessionId, run: RunId, instance: InstanceId) -> Self {
        Claimed { state: State::Calling, session, run, instance, request: Request::Coming }
    }

    /// As the store has it: `1 <state> <session> <run> <instance> <fingerprint>`, of which the last is
    /// `-` while it is not known, and `~` where it never will be.
    pub(super) fn to_text(&self) -> ByteString {
        let state = match self.state {
            State::Calling => "calling",
            State::Run => "run",
            State::Lost => "lost",
        };
        let request = match &self.request {
            Request::Coming => "-",
            Request::Is(fingerprint) => fingerprint,
            Request::Never => "~",
        };
        format!("1 {state} {} {} {} {request}", self.session, self.run, self.instance).into()
    }

    /// Reads a claim; `None` where another version has written it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut word = || words.next();
        if word()? != "1" {
            return None;
        }
        let state = match word()? {
            "calling" => State::Calling,
            "run" => State::Run,
            "lost" => State::Lost,
            _ => return None,
        };
        let session = SessionId::from_store(word()?).ok()?;
        let run = RunId::from_store(word()?).ok()?;
        let instance = InstanceId::from_store(word()?).ok()?;
        let request = match word()? {
            "-" => Request::Coming,
            "~" => Request::Never,
            fingerprint => Request::Is(fingerprint.to_owned()),
        };
        Some(Claimed { state, session, run, instance, request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_claim_says_is_read_as_it_was_written() {
        let session = SessionId::from_digest_text("abc");
        let claimed = Claimed::calling(session, RunId::from_random(1), InstanceId::from_random(2));
        for state in [State::Calling, State::Run, State::Lost] {
            for request in [Request::Coming, Request::Never, Request::Is("abc".into())] {
                let claimed = Claimed { state, request, ..claimed.clone() };
                assert_eq!(Claimed::parse(&claimed.to_text()), Some(claimed));
            }
        }
        assert_eq!(Claimed::parse("2 calling s r i -"), None);
    }
}
