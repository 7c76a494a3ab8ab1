//! What others ask of a run or of an instance, and every definite answer.
//!
//! A cancellation is a flag on the run first, and only then a message to whoever drives it: the
//! flag is in the store before anybody is answered, so that neither a lost message nor the death
//! of an instance loses it. A takeover of a flagged run writes `cancelled`.

use bytestring::ByteString;
use tokio::sync::mpsc;

use crate::session::{InstanceId, Offset, RunId, SessionId, Terminal};

/// Asks for the end of runs. Idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    /// Where.
    pub session: SessionId,
    /// Which runs.
    pub target: CancelTarget,
    /// Who asks, for the run's terminal: a JSON object. Where several ask, the first stays.
    pub by: ByteString,
}

/// Which runs are to be cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelTarget {
    /// This one, and not its children.
    Run(RunId),
    /// Every active run of the session: the roots, their children, and children whose root has ended.
    Active,
    /// The run of the `send` with this key. Where there is none yet, the key is remembered for ten
    /// minutes: a run that is opened with it is flagged from its first moment.
    Key(ByteString),
}

/// The definite answers to [`CancelRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// What became of each run, oldest first. Empty: [`CancelTarget::Active`], and none is.
    Runs(Vec<(RunId, CancelOutcome)>),
    /// No run has this key yet. One that comes with it will be flagged at once.
    Remembered,
}

/// What a cancellation came to for one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The flag is set (now, or it was), and the owner is told. Exactly one terminal follows; it is
    /// not `cancelled` where another was faster.
    Requested {
        /// Who drives the run.
        owner: InstanceId,
    },
    /// The run had its terminal.
    AlreadyEnded {
        /// Where.
        offset: Offset,
        /// Which.
        state: Terminal,
    },
    /// The run waited in the queue, and never will start.
    Withdrawn,
    /// The session has no such run.
    NotFound,
}

/// What an instance is told to do. It comes at least once: through [`Log::commands`] at once, or
/// with the next [`Log::renew`]. It may come twice, and it may come after the run has ended.
///
/// [`Log::commands`]: super::Log::commands
/// [`Log::renew`]: super::Log::renew
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// End this run, which is flagged: close its upstream, then write its terminal.
    Cancel {
        /// Where.
        session: SessionId,
        /// The run.
        run: RunId,
        /// Who asks, as [`CancelRequest::by`] had it.
        by: ByteString,
    },
    /// Give this run something new to work on.
    Steer(SteerOrder),
    /// A caller has come back for this run at another instance, or has left again.
    Caller {
        /// Where.
        session: SessionId,
        /// The run.
        run: RunId,
        /// The caller: random, and without spaces.
        caller: ByteString,
        /// It is there.
        here: bool,
    },
}

/// What a run is to be given, in the way that its upstream has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteerOrder {
    /// Where.
    pub session: SessionId,
    /// The run.
    pub run: RunId,
    /// The id of this order, which the receipt in the log carries.
    pub receipt: ByteString,
    /// The name of the client that asks.
    pub client: ByteString,
    /// What the run is given: a JSON value.
    pub body: ByteString,
}

/// Commands that wait for an instance; who wants to add one more is told `Unavailable`, so that no
/// command is dropped after its sender was told that it is there.
pub const COMMANDS_WAITING: usize = 1000;

/// The receiving end of [`Log::commands`]. Dropping it ends the delivery; renewals go on.
///
/// The channel is bounded; what does not fit comes with a renewal.
///
/// [`Log::commands`]: super::Log::commands
#[derive(Debug)]
pub struct Commands(mpsc::Receiver<Command>);

/// The sending end of [`Commands`], kept by the store's implementation.
#[derive(Clone, Debug)]
pub struct CommandSender(mpsc::Sender<Command>);

/// A bounded channel of commands.
pub fn commands(capacity: usize) -> (CommandSender, Commands) {
    let (sender, receiver) = mpsc::channel(capacity);
    (CommandSender(sender), Commands(receiver))
}

impl Commands {
    /// The next command; `None` when the store has shut down.
    pub async fn next(&mut self) -> Option<Command> {
        self.0.recv().await
    }
}

impl CommandSender {
    /// Hands `command` over. `false`: there is no room, or nobody listens any more.
    pub fn send(&self, command: Command) -> bool {
        self.0.try_send(command).is_ok()
    }

    /// Whether nobody listens any more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}
