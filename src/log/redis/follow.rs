//! Who follows which session, and what they are told.
//!
//! Pushes come from two sides: the server's channel, and our own appends, whose answer says what
//! the push will say. Followers get both and check `prev`. There is no queue here: a follower's
//! own is bounded (it drops and owes a `Check`), and what a listener has to do is the set of
//! channels that changed hands.
//!
//! A channel is *carried* by the server that has its slot. Whenever nobody is sure that it was carried
//! without a break (a connection lost, a slot gone elsewhere), its followers are told to read once it is again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::floor::Floor;
use super::mailbox::Mailbox;
use super::push;
use super::slots::{Slot, SlotMap};
use crate::log::{Following, Push, PushSender, following};
use crate::session::{Entry, Offset};

/// Pushes that may wait for one follower; then they are dropped and a `Check` is owed.
const QUEUE: usize = 256;

/// All followed channels.
pub(super) struct Followers {
    channels: Mutex<Channels>,
    /// What pushes say of the time, too.
    floor: Arc<Floor>,
    /// Some listener has something to subscribe to or to leave.
    changed: watch::Sender<()>,
}

struct Channels {
    by_name: HashMap<String, Channel>,
    map: Arc<SlotMap>,
    /// Per node the channels that its listener must subscribe to or leave.
    changed: HashMap<u64, HashSet<String>>,
    closed: bool,
}

struct Channel {
    slot: Slot,
    /// The number of the node whose listener is to carry it.
    carrier: Option<u64>,
    followers: Vec<PushSender>,
    /// Of the instance whose channel this is.
    mailbox: Option<Arc<Mailbox>>,
    subscribed: watch::Sender<bool>,
    /// It was subscribed, and lost: pushes may be missing.
    lost: bool,
    /// The newest offset that followers were told of; [`Offset::ZERO`]: not known.
    told: Offset,
}

/// What a listener has to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) subscribe: Vec<String>,
    pub(super) leave: Vec<String>,
}

impl Followers {
    /// Nobody follows anything; channels will be carried as `map` says.
    pub(super) fn new(map: Arc<SlotMap>, floor: Arc<Floor>) -> Self {
        let channels = Channels { by_name: HashMap::new(), map, changed: HashMap::new(), closed: false };
        Followers { channels: Mutex::new(channels), floor, changed: watch::Sender::new(()) }
    }

    /// Adds a follower. The receiver says when the subscription is confirmed.
    pub(super) fn add(&self, channel: String) -> (Following, watch::Receiver<bool>) {
        let (sender, following) = following(QUEUE);
        (following, self.subscribe(channel, |channel| channel.followers.push(sender)))
    }

    /// Has an instance hear its channel. The receiver says when the subscription is confirmed.
    pub(super) fn add_mailbox(&self, channel: String, mailbox: Arc<Mailbox>) -> watch::Receiver<bool> {
        self.subscribe(channel, |channel| channel.mailbox = Some(mailbox))
    }

    fn subscribe(&self, name: String, add: impl FnOnce(&mut Channel)) -> watch::Receiver<bool> {
        let mut channels = self.lock();
        if channels.closed {
            return watch::Sender::new(false).subscribe();
        }
        let Channels { by_name, changed, map, .. } = &mut *channels;
        let entry = by_name.entry(name).or_insert_with_key(|name| {
            let slot = Slot::of(name);
            let carrier = map.node(slot).map(|node| node.number);
            if let Some(carrier) = carrier {
                changed.entry(carrier).or_default().insert(name.clone());
            }
            let subscribed = watch::Sender::new(false);
            Channel { slot, carrier, followers: Vec::new(), mailbox: None, subscribed, lost: false, told: Offset::ZERO }
        });
        add(entry);
        let subscribed = entry.subscribed.subscribe();
        drop(channels);
        self.changed.send_replace(());
        subscribed
    }

    /// Servers have changed hands: channels are to be carried by those that have their slots now.
    pub(super) fn assign(&self, map: Arc<SlotMap>) {
        let mut channels = self.lock();
        let Channels { by_name, changed, .. } = &mut *channels;
        for (name, channel) in by_name {
            let carrier = map.node(channel.slot).map(|node| node.number);
            if carrier == channel.carrier {
                continue;
            }
            for number in [channel.carrier, carrier].into_iter().flatten() {
                changed.entry(number).or_default().insert(name.clone());
            }
            channel.carrier = carrier;
            channel.lose();
        }
        changed.retain(|number, _| map.nodes().iter().any(|node| node.number == *number));
        channels.map = map;
        drop(channels);
        self.changed.send_replace(());
    }

    /// Whether anybody follows `channel`.
    pub(super) fn any(&self, channel: &str) -> bool {
        self.lock().by_name.contains_key(channel)
    }

    /// Entries that our own append has stored. `pushed`: the server's channel will carry them, too.
    pub(super) fn stored(&self, channel: &str, prev: Offset, entries: Vec<Arc<Entry>>, pushed: bool) {
        let Some(last) = entries.last().map(|entry| entry.offset) else { return };
        let mut channels = self.lock();
        let Some(channel) = channels.by_name.get_mut(channel) else { return };
        // Where another writer came between, the channel brings both in order, a moment later.
        let continues = channel.told == Offset::ZERO || channel.told == prev || !pushed;
        if last > channel.told && continues {
            channel.told = last;
            channel.tell(&Push::Entries { prev, entries });
        }
    }

    /// A message of the server's channel.
    pub(super) fn pushed(&self, channel: &str, message: Vec<u8>) {
        let mut channels = self.lock();
        let Some(channel) = channels.by_name.get_mut(channel) else { return };
        if let Some(mailbox) = &channel.mailbox {
            return mailbox.pushed(&message);
        }
        if let Some(last) = push::last_offset(&message) {
            self.floor.heard(last);
            if last <= channel.told {
                return; // our own append was faster
            }
            channel.told = last;
        }
        channel.tell(&push::decode(Bytes::from(message)));
    }

    /// Hears of changes.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes what the listener of node `number` is to do. A channel without followers is forgotten here.
    pub(super) fn changes(&self, number: u64) -> Changes {
        let mut channels = self.lock();
        let mut changes = Changes::default();
        for name in channels.changed.remove(&number).unwrap_or_default() {
            match channels.by_name.get(&name) {
                Some(channel) if channel.carrier != Some(number) => changes.leave.push(name),
                Some(channel) if channel.is_deserted() => {
                    channels.by_name.remove(&name);
                    changes.leave.push(name);
                }
                Some(channel) if !*channel.subscribed.borrow() => changes.subscribe.push(name),
                _ => {}
            }
        }
        changes
    }

    /// All channels that node `number` is to carry, for a connection that knows none of them; none counts as
    /// subscribed.
    pub(super) fn all(&self, number: u64) -> Vec<String> {
        let mut channels = self.lock();
        channels.changed.remove(&number);
        let mut names = Vec::new();
        for (name, channel) in &mut channels.by_name {
            if channel.carrier == Some(number) {
                channel.lose();
                names.push(name.clone());
            }
        }
        names
    }

    /// A subscription is confirmed at node `number`.
    pub(super) fn confirmed(&self, number: u64, name: &str) {
        let mut channels = self.lock();
        let Some(channel) = channels.by_name.get_mut(name).filter(|channel| channel.carrier == Some(number)) else {
            return;
        };
        if std::mem::take(&mut channel.lost) {
            channel.tell(&Push::Check);
        }
        channel.subscribed.send_replace(true);
    }

    /// Node `number` does not carry a channel any more, without having been asked to leave it.
    pub(super) fn dropped(&self, number: u64, name: &str) {
        let mut channels = self.lock();
        let Channels { by_name, changed, .. } = &mut *channels;
        if let Some(channel) = by_name.get_mut(name).filter(|channel| channel.carrier == Some(number)) {
            channel.lose();
            changed.entry(number).or_default().insert(name.to_owned());
        }
    }

    /// The subscriptions that node `number` has not confirmed are to be tried again, when its followers are looked
    /// after next.
    pub(super) fn later(&self, number: u64, names: &[String]) {
        self.lock().changed.entry(number).or_default().extend(names.iter().cloned());
    }

    /// The connection of node `number` is lost: new followers wait for the next.
    pub(super) fn lost(&self, number: u64) {
        for channel in self.lock().by_name.values_mut().filter(|channel| channel.carrier == Some(number)) {
            channel.lose();
        }
    }

    /// Forgets followers that are gone, of the channels of node `number`.
    pub(super) fn prune(&self, number: u64) {
        let mut channels = self.lock();
        let Channels { by_name, changed, .. } = &mut *channels;
        for (name, channel) in by_name.iter_mut().filter(|(_, channel)| channel.carrier == Some(number)) {
            channel.followers.retain(|follower| !follower.is_closed());
            if channel.is_deserted() {
                changed.entry(number).or_default().insert(name.clone());
            }
        }
        if changed.contains_key(&number) {
            self.changed.send_replace(());
        }
    }

    /// Ends all following.
    pub(super) fn close(&self) {
        let mut channels = self.lock();
        channels.closed = true;
        channels.by_name.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Channels> {
        // Nothing here panics while it holds the lock.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channel {
    fn is_deserted(&self) -> bool {
        self.followers.is_empty() && self.mailbox.as_ref().is_none_or(|mailbox| mailbox.is_deserted())
    }

    /// Nobody carries it for sure.
    fn lose(&mut self) {
        self.lost |= self.subscribed.send_replace(false);
        // Another server may carry it next, and its clock be behind that of the last.
        self.told = Offset::ZERO;
    }

    fn tell(&mut self, push: &Push) {
        self.followers.retain(|follower| follower.send(push.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::log::redis::RedisOptions;
    use crate::log::redis::deployment::Address;
    use crate::log::redis::link::Common;
    use crate::log::redis::node::Node;
    use crate::log::redis::scripts::Scripts;

    const CHANNEL: &str = "ss:{default:s}:ch";

    /// Followers whose channels are carried by one node, and its number.
    fn followers() -> (Followers, u64) {
        let node = node();
        let number = node.number;
        (Followers::new(Arc::new(SlotMap::of_one(node)), Arc::default()), number)
    }

    fn node() -> Arc<Node> {
        let target = RedisOptions::new("redis://127.0.0.1").target().expect("a target");
        let common = Common { target, scripts: Scripts::new(false), deadline: Duration::ZERO };
        let address = Address { host: "127.0.0.1".into(), port: 1 };
        Node::new(Arc::new(common), address.into(), CancellationToken::new())
    }

    #[test]
    fn followers_of_one_session_share_one_subscription_that_ends_with_the_last() {
        let (followers, node) = followers();
        let (first, _) = followers.add(CHANNEL.into());
        let (second, _) = followers.add(CHANNEL.into());
        assert_eq!(followers.changes(node).subscribe, [CHANNEL]);
        followers.confirmed(node, CHANNEL);
        drop(first);
        followers.prune(node);
        assert_eq!(followers.changes(node), Changes::default());
        drop(second);
        followers.prune(node);
        assert_eq!(followers.changes(node).leave, [CHANNEL]);
        assert!(!followers.any(CHANNEL));
    }

    #[tokio::test]
    async fn a_lost_subscription_owes_everybody_a_check() {
        let (followers, node) = followers();
        let (mut following, _) = followers.add(CHANNEL.into());
        followers.confirmed(node, CHANNEL);
        assert_eq!(followers.all(node), [CHANNEL]);
        followers.confirmed(node, CHANNEL);
        assert!(matches!(following.next().await, Some(Push::Check)));
    }

    #[tokio::test]
    async fn what_our_own_append_delivered_is_not_delivered_again() {
        let (followers, _) = followers();
        let (mut following, _) = followers.add(CHANNEL.into());
        let message = b"entries 5-1 7-2\n4,2\ndatahi".to_vec();
        let Push::Entries { prev, entries } = push::decode(message.clone().into()) else { panic!("no entries") };
        followers.stored(CHANNEL, prev, entries.clone(), true);
        followers.pushed(CHANNEL, message);
        followers.stored(CHANNEL, prev, entries, true);
        followers.pushed(CHANNEL, b"check".to_vec());
        assert!(matches!(following.next().await, Some(Push::Entries { .. })));
        assert!(matches!(following.next().await, Some(Push::Check)));
    }

    #[tokio::test]
    async fn an_append_that_overtook_another_writers_push_waits_for_the_channel() {
        let (followers, _) = followers();
        let (mut following, _) = followers.add(CHANNEL.into());
        let pushes = ["entries 5-1 7-2\n4,2\ndatahi", "entries 7-2 7-3\n4,2\ndatayo", "entries 7-3 7-4\n4,2\ndataho"];
        let Push::Entries { prev, entries } = push::decode(Bytes::from(pushes[2])) else { panic!("no entries") };
        followers.pushed(CHANNEL, pushes[0].into());
        followers.stored(CHANNEL, prev, entries, true);
        followers.pushed(CHANNEL, pushes[1].into());
        followers.pushed(CHANNEL, pushes[2].into());
        for seq in 2..=4 {
            let Some(Push::Entries { entries, .. }) = following.next().await else { panic!("no entries") };
            assert_eq!(entries[0].offset.seq, seq);
        }
    }

    #[tokio::test]
    async fn closing_ends_all_following() {
        let (followers, _) = followers();
        let (mut following, _) = followers.add(CHANNEL.into());
        followers.close();
        assert!(following.next().await.is_none());
    }

    #[tokio::test]
    async fn a_channel_whose_slot_has_gone_to_another_server_is_carried_there_and_owes_a_check() {
        let (followers, before) = followers();
        let (mut following, subscribed) = followers.add(CHANNEL.into());
        followers.confirmed(before, CHANNEL);
        let after = node();
        followers.assign(Arc::new(SlotMap::of_one(after.clone())));
        assert!(!*subscribed.borrow());
        assert_eq!(followers.changes(after.number).subscribe, [CHANNEL]);
        followers.confirmed(before, CHANNEL);
        assert!(!*subscribed.borrow(), "a confirmation of the server that had it means nothing");
        followers.confirmed(after.number, CHANNEL);
        assert!(*subscribed.borrow());
        assert!(matches!(following.next().await, Some(Push::Check)));
    }

    #[test]
    fn a_channel_that_the_server_has_dropped_is_subscribed_to_again() {
        let (followers, node) = followers();
        let (_following, subscribed) = followers.add(CHANNEL.into());
        followers.changes(node);
        followers.confirmed(node, CHANNEL);
        assert_eq!(followers.changes(node), Changes::default());
        followers.dropped(node, CHANNEL);
        assert!(!*subscribed.borrow());
        assert_eq!(followers.changes(node).subscribe, [CHANNEL]);
    }
}
