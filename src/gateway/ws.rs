//! The WebSocket connection: one task, several sessions, no queue per subscriber.
//!
//! The task asks its cursors for more only while everything sent before has left the process: a
//! slow client lags behind in the log, it does not fill memory. It is closed only when it is dead:
//! when neither a message came from it nor a byte went to it for two heartbeats.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::control::{Client, Control};
use crate::gateway::attachment::{Attachment, Coming, Filter, FrameText, here, own_cursor};
use crate::gateway::sharing::{Shares, Sharing};
use crate::gateway::socket::{Happened, Socket};
use crate::gateway::{Caller, Gateway};
use crate::hub::{Merge, NoSession, Subscription};
use crate::log::StoreHealth;
use crate::server::Problem;
use crate::session::SessionId;
use crate::wire::{Attach, ClientMessage, Code, Outcome, Reference, ServerMessage};

/// The WebSocket subprotocol of this protocol version.
pub const SUBPROTOCOL: &str = "sidestream.v1";

/// How long a closing handshake may take.
const CLOSING: Duration = Duration::from_secs(2);

/// How many messages of one socket may wait for their answers; more are refused.
const ASKED: usize = 64;

/// How often a filtered subscriber that gets nothing is told where it is.
const POSITION_EVERY: Duration = Duration::from_secs(5);

mod close {
    //! Close codes of the protocol.
    pub(super) const TOO_BIG: u16 = 1009;
    pub(super) const RESTART: u16 = 1012;
    pub(super) const NO_SESSION: u16 = 4404;
    pub(super) const HEARTBEAT_MISSED: u16 = 4408;
}

/// What a step of the connection's own work came to.
enum Step {
    Subscribed(Box<Asked>, Result<Subscription, NoSession>),
    Came(Box<Attachment>, Coming),
    /// What was asked for is done, or not: the encoded answer.
    Answer(String),
}

/// An `attach` on its way.
struct Asked {
    attach: Attach,
    reference: Option<Reference>,
}

type Steps = FuturesUnordered<Abortable<BoxFuture<'static, Step>>>;

struct Connection<S> {
    gateway: Arc<Gateway>,
    caller: Caller,
    client: Arc<Client>,
    sharing: Sharing,
    socket: Socket<S>,
    steps: Steps,
    attached: HashMap<SessionId, AbortHandle>,
    /// The session named in the URL: if it does not exist the connection is closed.
    required: Option<SessionId>,
    /// How many of its messages wait for their answers.
    asked: usize,
    heard: bool,
    missed: u32,
    /// What the client believes of the store.
    store_up: bool,
}

/// Serves one upgraded connection of `caller` until it ends; `client` is what is needed to make requests
/// for it. `first` is the session named in its URL.
pub async fn serve<S>(io: S, gateway: Arc<Gateway>, caller: Caller, client: Client, first: Option<Attach>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let _counted = gateway.metrics.socket();
    let socket = Socket::new(io, gateway.settings.message_bytes).await;
    let connection = Connection {
        sharing: Sharing::new(gateway.clone(), caller.clone()),
        gateway,
        caller,
        client: Arc::new(client),
        socket,
        steps: FuturesUnordered::new(),
        attached: HashMap::new(),
        required: first.as_ref().filter(|attach| !attach.create).map(|attach| attach.session.clone()),
        asked: 0,
        heard: true,
        missed: 0,
        store_up: true,
    };
    connection.run(first).await;
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    async fn run(mut self, first: Option<Attach>) {
        let heartbeat = self.gateway.settings.heartbeat;
        let connection = self.caller.connection.clone();
        self.say(&ServerMessage::Welcome {
            connection: connection.as_str(),
            heartbeat_ms: u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX),
            max_message_bytes: self.gateway.settings.message_bytes,
        });
        if let Some(attach) = first {
            self.attach(attach, None);
        }
        let mut health = self.gateway.log.health();
        let present = health.borrow_and_update().clone();
        self.store_changed(&present);
        let shutdown = self.gateway.shutdown.clone();
        let mut beat = Instant::now() + heartbeat;
        let mut leave_at: Option<Instant> = None;
        loop {
            let ready = self.socket.drained() && !self.steps.is_empty();
            let closing = tokio::select! {
                happened = self.socket.next() => self.happened(happened),
                Some(step) = self.steps.next(), if ready => self.step(step),
                () = sleep_until(beat) => {
                    beat = Instant::now() + heartbeat;
                    self.beat()
                }
                Ok(()) = health.changed() => {
                    let health = health.borrow_and_update().clone();
                    self.store_changed(&health);
                    None
                }
                () = shutdown.draining(), if leave_at.is_none() => {
                    leave_at = Some(Instant::now() + crate::random::up_to(self.gateway.settings.spread));
                    None
                }
                () = sleep_until(leave_at.unwrap_or(beat)), if leave_at.is_some() => Some(self.go_away()),
                () = shutdown.closing() => Some(self.go_away()),
            };
            match closing {
                None => {}
                Some(Closing::Gone) => return,
                Some(Closing::With(code, reason)) => {
                    self.socket.send_close(code, reason);
                    let _ = timeout(CLOSING, self.see_out()).await;
                    return;
                }
            }
        }
    }

    /// Sends what is left and waits for the client's close.
    async fn see_out(&mut self) {
        while !matches!(self.socket.next().await, Happened::Closed) {}
    }

    fn happened(&mut self, happened: Happened) -> Option<Closing> {
        self.heard |= !matches!(happened, Happened::Drained);
        match happened {
            Happened::Text(text) => match ClientMessage::parse(&text) {
                Ok((message, reference)) => self.message(message, reference),
                Err(rejected) => self.error(rejected.reference.as_ref(), None, rejected.code, &rejected.message),
            },
            Happened::Binary => {
                self.error(None, None, Code::BadMessage, "messages are JSON in text frames, not binary");
            }
            Happened::Alive | Happened::Drained => {}
            Happened::TooLarge => {
                let limit = self.gateway.settings.message_bytes;
                self.error(None, None, Code::TooLarge, &format!("a message may have {limit} bytes"));
                return Some(Closing::With(close::TOO_BIG, "message too big"));
            }
            Happened::Closed => return Some(Closing::Gone),
        }
        None
    }

    fn message(&mut self, message: ClientMessage, reference: Option<Reference>) {
        match message {
            ClientMessage::Attach(attach) => self.attach(attach, reference),
            ClientMessage::Detach { session } => match self.attached.remove(&session) {
                Some(handle) => {
                    handle.abort();
                    self.sharing.leave(&session);
                    self.say(&ServerMessage::Ack { reference: reference.as_ref(), outcome: None });
                }
                None => {
                    self.error(reference.as_ref(), Some(&session), Code::NotFound, "this socket is not attached to it")
                }
            },
            ClientMessage::Publish(publish) => self.share(Shares::Publish(publish), reference),
            ClientMessage::Presence(presence) => {
                let attached = self.attached.contains_key(&presence.session);
                self.share(Shares::Presence(presence, attached), reference);
            }
            ClientMessage::Read(read) => self.share(Shares::Read(read), reference),
            ClientMessage::Ping => self.say(&ServerMessage::Pong { reference: reference.as_ref() }),
            ClientMessage::Pong => {}
            ClientMessage::Send(send) => {
                self.ask(reference, |control, client| async move { control.send(&client, *send).await });
            }
            ClientMessage::Cancel(cancel) => {
                self.ask(reference, |control, client| async move { control.cancel(&client, cancel).await });
            }
            ClientMessage::Steer(steer) => {
                self.ask(reference, |control, client| async move { control.steer(&client, steer).await });
            }
            ClientMessage::Queue { session } => {
                self.ask(reference, |control, _| async move { control.queue(&session).await });
            }
        }
    }

    /// Shares what the client asks to; the answer comes when it is done.
    fn share(&mut self, shares: Shares, reference: Option<Reference>) {
        if self.may_ask(reference.as_ref()) {
            let answer = self.sharing.answer(shares, reference);
            self.answer_later(answer);
        }
    }

    /// Does what the client asks, and answers when it is done. It is done even if the socket closes.
    fn ask<F>(&mut self, reference: Option<Reference>, work: impl FnOnce(Arc<Control>, Arc<Client>) -> F)
    where
        F: Future<Output = Result<Outcome, Problem>> + Send + 'static,
    {
        if !self.may_ask(reference.as_ref()) {
            return;
        }
        let work = tokio::spawn(work(self.gateway.control.clone(), self.client.clone()));
        self.answer_later(Box::pin(async move {
            let done = work.await.unwrap_or_else(|defect| Err(Problem::new(Code::Internal, defect.to_string())));
            let reference = reference.as_ref();
            match &done {
                Ok(outcome) => ServerMessage::Ack { reference, outcome: Some(outcome) }.encode(),
                Err(problem) => {
                    let (code, message) = (problem.code, &*problem.detail);
                    ServerMessage::Error { reference, session: None, code, message }.encode()
                }
            }
        }));
    }

    /// Whether one more message may wait for its answer; refuses it where not.
    fn may_ask(&mut self, reference: Option<&Reference>) -> bool {
        let may = self.asked < ASKED;
        if may {
            self.asked += 1;
        } else {
            let message = "too many of this socket's messages wait for their answers";
            self.error(reference, None, Code::TooMany, message);
        }
        may
    }

    fn answer_later(&mut self, answer: BoxFuture<'static, String>) {
        let answer: BoxFuture<'static, Step> = Box::pin(async move { Step::Answer(answer.await) });
        self.steps.push(Abortable::new(answer, AbortHandle::new_pair().1));
    }

    fn attach(&mut self, attach: Attach, reference: Option<Reference>) {
        let limit = self.gateway.settings.sessions_per_socket;
        if self.attached.contains_key(&attach.session) {
            let message = "already attached on this socket; detach first";
            return self.error(reference.as_ref(), Some(&attach.session), Code::Conflict, message);
        }
        if self.attached.len() >= limit {
            let message = format!("a socket may attach {limit} sessions; open another one");
            return self.error(reference.as_ref(), Some(&attach.session), Code::TooMany, &message);
        }
        let (handle, registration) = AbortHandle::new_pair();
        self.attached.insert(attach.session.clone(), handle);
        let hub = self.gateway.hub.clone();
        let subscribe: BoxFuture<'static, Step> = Box::pin(async move {
            let outcome = hub.subscribe(&attach.session, attach.after, attach.create).await;
            Step::Subscribed(Box::new(Asked { attach, reference }), outcome)
        });
        self.steps.push(Abortable::new(subscribe, registration));
    }

    fn step(&mut self, step: Result<Step, Aborted>) -> Option<Closing> {
        match step {
            Err(Aborted) => None,
            Ok(Step::Answer(text)) => {
                self.asked -= 1;
                self.socket.send(text.into());
                None
            }
            Ok(Step::Subscribed(asked, outcome)) => match outcome {
                Ok(subscription) => {
                    let Asked { attach, reference } = *asked;
                    let Subscription { cursor, offset, tail, active } = subscription;
                    let merge = Merge { replay: attach.compact, window: attach.rollup };
                    let compacting = self.gateway.compacting(&attach.session, merge);
                    let mut attachment = Attachment::new(cursor, Filter::of(&attach), compacting, offset);
                    let user = self.caller.user();
                    let whole = attachment.share(user.clone());
                    let present: Vec<_> = whole.present.iter().map(here).collect();
                    self.say(&ServerMessage::Attached {
                        reference: reference.as_ref(),
                        session: &attach.session,
                        offset,
                        tail,
                        runs: &active,
                        present: &present,
                        read: own_cursor(&whole, user.as_ref()).map(|cursor| cursor.offset),
                        replaying: offset.seq < tail.seq,
                    });
                    self.follow(attach.session, attachment);
                    None
                }
                Err(error) => self.refused(&asked.attach, asked.reference.as_ref(), &error),
            },
            Ok(Step::Came(mut attachment, coming)) => {
                let socket = &mut self.socket;
                attachment.frames(&coming, |_, frame| socket.send(text_of(frame)));
                let session = attachment.session().clone();
                if coming.is_erased() {
                    self.attached.remove(&session);
                    self.sharing.leave(&session);
                } else if self.attached.contains_key(&session) {
                    self.follow(session, *attachment);
                }
                None
            }
        }
    }

    /// Waits for the attachment's next delivery.
    fn follow(&mut self, session: SessionId, attachment: Attachment) {
        let (handle, registration) = AbortHandle::new_pair();
        self.attached.insert(session, handle);
        let step: BoxFuture<'static, Step> = Box::pin(async move {
            let (attachment, coming) = attachment.step(POSITION_EVERY).await;
            Step::Came(Box::new(attachment), coming)
        });
        self.steps.push(Abortable::new(step, registration));
    }

    fn refused(&mut self, attach: &Attach, reference: Option<&Reference>, error: &NoSession) -> Option<Closing> {
        self.attached.remove(&attach.session);
        let code = match error {
            NoSession::NotFound => Code::NotFound,
            NoSession::Future => Code::BadOffset,
            NoSession::Unavailable(_) => Code::StoreUnavailable,
        };
        self.error(reference, Some(&attach.session), code, &error.to_string());
        let required = matches!(error, NoSession::NotFound) && self.required.as_ref() == Some(&attach.session);
        required.then_some(Closing::With(close::NO_SESSION, "no such session"))
    }

    fn beat(&mut self) -> Option<Closing> {
        let alive = self.heard || self.socket.take_moved() && !self.socket.drained();
        self.heard = false;
        self.missed = if alive { 0 } else { self.missed + 1 };
        if self.missed >= 2 {
            return Some(Closing::With(close::HEARTBEAT_MISSED, "heartbeat missed"));
        }
        // Both kinds: libraries answer the frame by themselves, browsers see only the message.
        self.say(&ServerMessage::Ping);
        self.socket.send_ping();
        None
    }

    /// Says that the store has gone or has come back; why it is away may change without a word.
    fn store_changed(&mut self, health: &StoreHealth) {
        let up = *health == StoreHealth::Up;
        if std::mem::replace(&mut self.store_up, up) != up {
            self.say(match up {
                true => &ServerMessage::StatusOk,
                false => &ServerMessage::Status { code: Code::StoreUnavailable },
            });
        }
    }

    fn go_away(&mut self) -> Closing {
        let back = crate::random::up_to(self.gateway.settings.spread);
        let reconnect_after_ms = u64::try_from(back.as_millis()).unwrap_or(u64::MAX);
        self.say(&ServerMessage::GoAway { reason: "shutdown", reconnect_after_ms });
        Closing::With(close::RESTART, "restart")
    }

    fn error(&mut self, reference: Option<&Reference>, session: Option<&SessionId>, code: Code, message: &str) {
        self.say(&ServerMessage::Error { reference, session, code, message });
    }

    fn say(&mut self, message: &ServerMessage<'_>) {
        self.socket.send(message.encode().into());
    }
}

/// How a connection ends.
enum Closing {
    /// It has ended.
    Gone,
    /// We end it, with a close code.
    With(u16, &'static str),
}

fn text_of(frame: FrameText<'_>) -> Utf8Bytes {
    match frame {
        FrameText::Owned(text) | FrameText::Note(_, text) => text.into(),
        FrameText::Shared(text) => shared(text),
    }
}

/// The same bytes without a copy; they are UTF-8 by their type, so the check always passes.
fn shared(text: &ByteString) -> Utf8Bytes {
    Utf8Bytes::try_from(text.as_bytes().clone()).unwrap_or_default()
}
