//! [`RedisLog`]: the contract's operations, each of which stands in its own file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::floor::Floor;
use super::follow::Followers;
use super::keys::Keys;
use super::listener::Listener;
use super::mailbox::Mailboxes;
use super::options::{Ack, RedisOptions, RefusedStore};
use super::read::Sizes;
use super::servers::Servers;
use super::slots::Slot;
use crate::log::{
    Answer, Appeared, Append, Appended, Bounds, CancelRequest, Cancelled, Claim, Command, Commands, DeadInstance,
    Ephemeral, Following, Log, Marked, OpenRun, Opened, OwnSession, PageLimits, Place, Present, QueuedRun, Read,
    ReadCursor, Renewal, RunInfo, SessionRow, Shared, Starts, StoreHealth, TakenOver, Takeover, Unavailable, Used,
};
use crate::session::{ConnectionId, Entry, InstanceId, Offset, RunId, SessionId, Subject};

/// The log on a Redis server.
pub struct RedisLog {
    pub(super) options: RedisOptions,
    pub(super) keys: Keys,
    pub(super) servers: Arc<Servers>,
    pub(super) followers: Arc<Followers>,
    pub(super) mailboxes: Mailboxes,
    pub(super) sizes: Sizes,
    pub(super) floor: Arc<Floor>,
    unpublished: AtomicU64,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl RedisLog {
    /// Connects. A server that is merely unreachable gives a log whose health is `Down` and that
    /// goes on trying.
    ///
    /// # Errors
    /// Something must be changed: the options, or the server.
    pub async fn connect(mut options: RedisOptions) -> Result<Arc<RedisLog>, RefusedStore> {
        if options.ack == Ack::Replicated {
            // A push is heard before a replica has its entries: it says only that there are some, and they are read.
            options.push_payload_limit = 0;
        }
        let target = options.target()?;
        let keys = Keys::new(&options.key_prefix, target.db);
        let stop = CancellationToken::new();
        let servers = Servers::start(target, options.deadline, keys.instances_slot(), stop.clone()).await?;
        let floor = Arc::<Floor>::default();
        let followers = Arc::new(Followers::new(servers.map().borrow().clone(), floor.clone()));
        Listener::start(servers.clone(), followers.clone(), keys.clone(), stop.clone());
        Ok(Arc::new(RedisLog {
            options,
            keys,
            servers,
            followers,
            mailboxes: Mailboxes::default(),
            sizes: Sizes::default(),
            floor,
            unpublished: AtomicU64::new(0),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        }))
    }

    /// How many appends were stored and not pushed, because the server refused the publication.
    pub fn unpublished_appends(&self) -> u64 {
        self.unpublished.load(Ordering::Relaxed)
    }

    /// The retention's ttl in milliseconds.
    pub(super) fn ttl_ms(&self) -> u64 {
        u64::try_from(self.options.retention.ttl.as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts an append that was stored and not pushed.
    pub(super) fn unpublished(&self, session: &SessionId) {
        if self.unpublished.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(%session, "Redis stored an append and refused to publish it; other instances see it late");
        }
    }

    async fn do_follow(&self, session: &SessionId) -> Result<Following, Unavailable> {
        let channel = self.keys.channel(session);
        let (following, subscribed) = self.followers.add(channel.clone());
        self.confirmed(Slot::of(&channel), subscribed).await?;
        Ok(following)
    }

    /// Waits until the subscription of a channel in `slot` is confirmed.
    pub(super) async fn confirmed(&self, slot: Slot, mut subscribed: watch::Receiver<bool>) -> Result<(), Unavailable> {
        if let Some(unavailable) = self.servers.away(slot) {
            return Err(unavailable);
        }
        match tokio::time::timeout(self.options.deadline, subscribed.wait_for(|subscribed| *subscribed)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Unavailable::new("closed")),
            Err(_) => Err(Unavailable::new("the subscription was not confirmed in time")),
        }
    }
}

impl Log for RedisLog {
    fn open_run(&self, open: OpenRun) -> Answer<'_, Opened> {
        self.do_open_run(open).boxed()
    }

    fn append(&self, append: Append) -> Answer<'_, Appended> {
        self.do_append(append).boxed()
    }

    fn takeover(&self, takeover: Takeover) -> Answer<'_, TakenOver> {
        self.do_takeover(takeover).boxed()
    }

    fn cancel(&self, request: CancelRequest) -> Answer<'_, Cancelled> {
        self.do_cancel(request).boxed()
    }

    fn queue<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Vec<QueuedRun>> {
        self.do_queue(session).boxed()
    }

    fn withdraw<'a>(&'a self, session: &'a SessionId, key: &'a str) -> Answer<'a, Option<RunId>> {
        self.do_withdraw(session, key).boxed()
    }

    fn start_queued<'a>(&'a self, session: &'a SessionId, by: &'a InstanceId, hold: Duration) -> Answer<'a, Starts> {
        self.do_start_queued(session, by, hold).boxed()
    }

    fn read<'a>(&'a self, session: &'a SessionId, after: Offset, limits: PageLimits) -> Answer<'a, Read> {
        self.do_read(session, after, limits).boxed()
    }

    fn locate<'a>(&'a self, session: &'a SessionId, place: Place) -> Answer<'a, Option<Offset>> {
        self.do_locate(session, place).boxed()
    }

    fn follow<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Following> {
        self.do_follow(session).boxed()
    }

    fn bounds<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Bounds> {
        self.do_bounds(session).boxed()
    }

    fn entry<'a>(&'a self, session: &'a SessionId, offset: Offset) -> Answer<'a, Option<Arc<Entry>>> {
        self.do_entry(session, offset).boxed()
    }

    fn run<'a>(&'a self, session: &'a SessionId, run: &'a RunId) -> Answer<'a, Option<RunInfo>> {
        self.do_run(session, run).boxed()
    }

    fn session_of<'a>(&'a self, run: &'a RunId) -> Answer<'a, Option<SessionId>> {
        self.do_session_of(run).boxed()
    }

    fn sessions(&self, limit: usize) -> Answer<'_, Vec<SessionRow>> {
        self.do_sessions(limit).boxed()
    }

    fn erase<'a>(&'a self, session: &'a SessionId) -> Answer<'a, bool> {
        self.do_erase(session).boxed()
    }

    fn appear<'a>(&'a self, session: &'a SessionId, client: Present, lease: Duration) -> Answer<'a, Appeared> {
        self.do_appear(session, client, lease).boxed()
    }

    fn stay<'a>(
        &'a self,
        session: &'a SessionId,
        connections: Vec<ConnectionId>,
        lease: Duration,
    ) -> Answer<'a, Vec<ConnectionId>> {
        self.do_stay(session, connections, lease).boxed()
    }

    fn depart<'a>(&'a self, session: &'a SessionId, connection: &'a ConnectionId) -> Answer<'a, ()> {
        self.do_depart(session, connection).boxed()
    }

    fn mark_read<'a>(&'a self, session: &'a SessionId, cursor: ReadCursor) -> Answer<'a, Marked> {
        self.do_mark_read(session, cursor).boxed()
    }

    fn say<'a>(&'a self, session: &'a SessionId, said: Ephemeral) -> Answer<'a, ()> {
        self.do_say(session, said).boxed()
    }

    fn shared<'a>(&'a self, session: &'a SessionId) -> Answer<'a, Shared> {
        self.do_shared(session).boxed()
    }

    fn bind<'a>(&'a self, session: &'a SessionId, subject: &'a Subject) -> Answer<'a, bool> {
        self.do_bind(session, subject).boxed()
    }

    fn sessions_of<'a>(
        &'a self,
        subject: &'a Subject,
        limit: usize,
        before: Option<Used>,
    ) -> Answer<'a, Vec<OwnSession>> {
        self.do_sessions_of(subject, limit, before).boxed()
    }

    fn claim<'a>(&'a self, key: &'a str, value: ByteString) -> Answer<'a, Claim> {
        self.do_claim(key, value).boxed()
    }

    fn amend<'a>(&'a self, key: &'a str, from: ByteString, to: Option<ByteString>) -> Answer<'a, bool> {
        self.do_amend(key, from, to).boxed()
    }

    fn enlist<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, bool> {
        self.do_enlist(instance, session, run).boxed()
    }

    fn unlist<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, ()> {
        self.do_unlist(instance, session, run).boxed()
    }

    fn is_listed<'a>(&'a self, instance: &'a InstanceId, session: &'a SessionId, run: &'a RunId) -> Answer<'a, bool> {
        self.do_is_listed(instance, session, run).boxed()
    }

    fn command<'a>(&'a self, instance: &'a InstanceId, command: Command) -> Answer<'a, bool> {
        self.do_command(instance, command).boxed()
    }

    fn commands<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, Commands> {
        self.do_commands(instance).boxed()
    }

    fn renew<'a>(&'a self, instance: &'a InstanceId, lease: Duration) -> Answer<'a, Renewal> {
        self.do_renew(instance, lease).boxed()
    }

    fn resign<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, ()> {
        self.do_resign(instance).boxed()
    }

    fn is_dead<'a>(&'a self, instance: &'a InstanceId) -> Answer<'a, bool> {
        self.do_is_dead(instance).boxed()
    }

    fn sweep<'a>(&'a self, by: &'a InstanceId) -> Answer<'a, Vec<DeadInstance>> {
        self.do_sweep(by).boxed()
    }

    fn steady_for(&self) -> Duration {
        self.servers.steady_for()
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.servers.health()
    }

    fn health_of(&self, session: &SessionId) -> StoreHealth {
        match self.servers.away(self.keys.session(session).slot) {
            Some(Unavailable { detail: reason }) => StoreHealth::Down { reason },
            None => StoreHealth::Up,
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.servers.warnings()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.stop.cancel();
            self.followers.close();
            self.mailboxes.end();
        }
        .boxed()
    }
}
