//! What one socket does in its sessions beside runs: `publish`, `presence`, `read`.

use std::sync::Arc;

use bytestring::ByteString;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use crate::gateway::writing::known;
use crate::gateway::{Caller, Gateway};
use crate::log::{Appeared, Ephemeral, Marked, Present, ReadCursor, Unavailable, User};
use crate::session::{Kind, Record, SessionId};
use crate::sharing::{NotPublished, Seats};
use crate::wire::{Code, Outcome, Presence, Publish, ReadTo, Reference, ServerMessage};

/// What is asked for.
pub(super) enum Shares {
    /// Publish an event.
    Publish(Publish),
    /// Be here, or not; `attached`: whether this socket is attached to the session.
    Presence(Presence, bool),
    /// Move the user's read cursor.
    Read(ReadTo),
}

/// One socket's part in what its sessions share. Dropping it leaves them all.
pub(super) struct Sharing {
    gateway: Arc<Gateway>,
    caller: Caller,
    seats: Seats,
}

type Refusal = (Code, String);

/// What comes of it.
type Doing = BoxFuture<'static, Result<Option<Outcome>, Refusal>>;

impl Sharing {
    /// The part of `caller`, who is nowhere yet.
    pub(super) fn new(gateway: Arc<Gateway>, caller: Caller) -> Self {
        let seats = Seats::new(gateway.attendance.clone(), caller.connection.clone());
        Sharing { gateway, caller, seats }
    }

    /// Leaves `session`, where this socket is detached from it.
    pub(super) fn leave(&mut self, session: &SessionId) {
        self.seats.leave(session);
    }

    /// Does what is asked for; the encoded answer.
    pub(super) fn answer(&mut self, shares: Shares, reference: Option<Reference>) -> BoxFuture<'static, String> {
        let session = match &shares {
            Shares::Publish(Publish { session, .. }) => session.clone(),
            Shares::Presence(Presence { session, .. }, _) => session.clone(),
            Shares::Read(ReadTo { session, .. }) => session.clone(),
        };
        let doing = match shares {
            Shares::Publish(publish) => self.publish(publish),
            Shares::Presence(presence, attached) => self.be_here(presence, attached),
            Shares::Read(read) => self.read(read),
        };
        async move {
            let reference = reference.as_ref();
            match doing.await {
                Ok(outcome) => ServerMessage::Ack { reference, outcome: outcome.as_ref() }.encode(),
                Err((code, message)) => {
                    let (session, message) = (Some(&session), &*message);
                    ServerMessage::Error { reference, session, code, message }.encode()
                }
            }
        }
        .boxed()
    }

    fn publish(&self, publish: Publish) -> Doing {
        let Publish { session, event, data, ephemeral } = publish;
        let (gateway, caller) = (self.gateway.clone(), self.caller.clone());
        async move {
            if ephemeral {
                let said = Ephemeral { client: caller.client, event, data };
                gateway.log.say(&session, said).await.map_err(unavailable)?;
                return Ok(None);
            }
            known(&gateway, &session).await.map_err(|problem| (problem.code, problem.detail))?;
            let source = Some(ByteString::from(caller.client.as_str()));
            let record = Record { kind: Kind::Event, run: None, source, event, id: None, data };
            let published = gateway.publisher.publish(&session, record, caller.subject.as_ref()).await;
            let offset = published.map_err(|error| match &error {
                NotPublished::Erased => (Code::Gone, error.to_string()),
                NotPublished::Unavailable(_) => (Code::StoreUnavailable, error.to_string()),
            })?;
            Ok(Some(Outcome::At(offset)))
        }
        .boxed()
    }

    fn be_here(&mut self, presence: Presence, attached: bool) -> Doing {
        let Presence { session, state } = presence;
        let Some(state) = state else {
            self.seats.leave(&session);
            return ready(Ok(None)).boxed();
        };
        if !attached {
            return refuse(Code::NotFound, "this socket is not attached to it; attach first".into());
        }
        let Caller { connection, client, .. } = self.caller.clone();
        let taking = self.seats.take(session, Present { connection, client, state });
        async move {
            match taking.await.map_err(unavailable)? {
                Appeared::Here => Ok(None),
                Appeared::Full => Err((Code::TooMany, "as many clients are here as may be in one session".into())),
            }
        }
        .boxed()
    }

    fn read(&self, read: ReadTo) -> Doing {
        let ReadTo { session, offset } = read;
        let (gateway, user) = (self.gateway.clone(), self.caller.user());
        let client = self.caller.client.clone();
        async move {
            let Some(user) = user else {
                let wanted = gateway.principal.wanted();
                return Err((
                    Code::Forbidden,
                    format!("a read cursor is a user's: name the client (?client=), or: {wanted}"),
                ));
            };
            let cursor = ReadCursor { user, client, offset };
            match gateway.log.mark_read(&session, cursor).await.map_err(unavailable)? {
                Marked::At(offset) => Ok(Some(Outcome::At(offset))),
                Marked::Ahead => Err((Code::BadOffset, "the session has no entry as new as that".into())),
                Marked::NotFound => Err((Code::NotFound, "there is no such session".into())),
            }
        }
        .boxed()
    }
}

impl Caller {
    /// Whose read cursors it moves; `None`: it says neither whose it is nor what it is called.
    pub(super) fn user(&self) -> Option<User> {
        match &self.subject {
            Some(subject) => Some(User::Subject(subject.clone())),
            None => self.named.then(|| User::Client(self.client.clone())),
        }
    }
}

fn refuse(code: Code, message: String) -> Doing {
    ready(Err((code, message))).boxed()
}

fn unavailable(error: Unavailable) -> Refusal {
    (Code::StoreUnavailable, error.to_string())
}
