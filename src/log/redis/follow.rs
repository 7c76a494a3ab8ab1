//! Who follows which session, and what they are told.
//!
//! Pushes come from two sides: the server's channel, and our own appends, whose answer says what
//! the push will say. Followers get both and check `prev`. There is no queue here: a follower's
//! own is bounded (it drops and owes a `Check`), and what the listener has to do is the set of
//! sessions that changed hands.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::mailbox::Mailbox;
use super::push;
use crate::log::{Following, Push, PushSender, following};
use crate::session::{Entry, Offset};

/// Pushes that may wait for one follower; then they are dropped and a `Check` is owed.
const QUEUE: usize = 256;

/// All followed channels.
#[derive(Default)]
pub(super) struct Followers {
    channels: Mutex<Channels>,
    /// The listener has something to subscribe to or to leave.
    changed: Notify,
}

#[derive(Default)]
struct Channels {
    by_name: HashMap<String, Channel>,
    /// Channels that must be subscribed to or left.
    changed: HashSet<String>,
    closed: bool,
}

struct Channel {
    followers: Vec<PushSender>,
    /// Of the instance whose channel this is.
    mailbox: Option<Arc<Mailbox>>,
    subscribed: watch::Sender<bool>,
    /// The newest offset that followers were told of; [`Offset::ZERO`]: not known.
    told: Offset,
}

/// What the listener has to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) subscribe: Vec<String>,
    pub(super) leave: Vec<String>,
}

impl Followers {
    /// Adds a follower. The receiver says when the subscription is confirmed.
    pub(super) fn add(&self, channel: String) -> (Following, watch::Receiver<bool>) {
        let (sender, following) = following(QUEUE);
        (following, self.subscribe(channel, |channel| channel.followers.push(sender)))
    }

    /// Has an instance hear its channel. The receiver says when the subscription is confirmed.
    pub(super) fn add_mailbox(&self, channel: String, mailbox: Arc<Mailbox>) -> watch::Receiver<bool> {
        self.subscribe(channel, |channel| channel.mailbox = Some(mailbox))
    }

    fn subscribe(&self, channel: String, add: impl FnOnce(&mut Channel)) -> watch::Receiver<bool> {
        let mut channels = self.lock();
        if channels.closed {
            return watch::Sender::new(false).subscribe();
        }
        let Channels { by_name, changed, .. } = &mut *channels;
        let entry = by_name.entry(channel).or_insert_with_key(|name| {
            changed.insert(name.clone());
            Channel { followers: Vec::new(), mailbox: None, subscribed: watch::Sender::new(false), told: Offset::ZERO }
        });
        add(entry);
        let subscribed = entry.subscribed.subscribe();
        drop(channels);
        self.changed.notify_one();
        subscribed
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
            if last <= channel.told {
                return; // our own append was faster
            }
            channel.told = last;
        }
        channel.tell(&push::decode(Bytes::from(message)));
    }

    /// Waits until there are changes.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes what is to be done. A channel without followers is forgotten here.
    pub(super) fn changes(&self) -> Changes {
        let mut channels = self.lock();
        let mut changes = Changes::default();
        for name in std::mem::take(&mut channels.changed) {
            match channels.by_name.get(&name) {
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

    /// All channels, for a connection that knows none of them; nobody counts as subscribed.
    pub(super) fn all(&self) -> Vec<String> {
        let mut channels = self.lock();
        channels.changed.clear();
        for channel in channels.by_name.values_mut() {
            channel.subscribed.send_replace(false);
            // Another server may be behind the new connection, and its clock behind the old one's.
            channel.told = Offset::ZERO;
        }
        channels.by_name.keys().cloned().collect()
    }

    /// These subscriptions are confirmed. `again`: they had been lost, so that pushes may be
    /// missing.
    pub(super) fn confirmed(&self, names: &[String], again: bool) {
        let mut channels = self.lock();
        for name in names {
            if let Some(channel) = channels.by_name.get_mut(name) {
                if again {
                    channel.tell(&Push::Check);
                }
                channel.subscribed.send_replace(true);
            }
        }
    }

    /// The connection is lost: new followers wait for the next.
    pub(super) fn lost(&self) {
        for channel in self.lock().by_name.values_mut() {
            channel.subscribed.send_replace(false);
        }
    }

    /// Forgets followers that are gone.
    pub(super) fn prune(&self) {
        let mut channels = self.lock();
        let Channels { by_name, changed, .. } = &mut *channels;
        for (name, channel) in by_name {
            channel.followers.retain(|follower| !follower.is_closed());
            if channel.is_deserted() {
                changed.insert(name.clone());
            }
        }
        if !channels.changed.is_empty() {
            self.changed.notify_one();
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

    fn tell(&mut self, push: &Push) {
        self.followers.retain(|follower| follower.send(push.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: &str = "ss:{default:s}:ch";

    #[test]
    fn followers_of_one_session_share_one_subscription_that_ends_with_the_last() {
        let followers = Followers::default();
        let (first, _) = followers.add(CHANNEL.into());
        let (second, _) = followers.add(CHANNEL.into());
        assert_eq!(followers.changes().subscribe, [CHANNEL]);
        followers.confirmed(&[CHANNEL.into()], false);
        drop(first);
        followers.prune();
        assert_eq!(followers.changes(), Changes::default());
        drop(second);
        followers.prune();
        assert_eq!(followers.changes().leave, [CHANNEL]);
        assert!(!followers.any(CHANNEL));
    }

    #[tokio::test]
    async fn a_lost_subscription_owes_everybody_a_check() {
        let followers = Followers::default();
        let (mut following, _) = followers.add(CHANNEL.into());
        followers.confirmed(&followers.all(), true);
        assert!(matches!(following.next().await, Some(Push::Check)));
    }

    #[tokio::test]
    async fn what_our_own_append_delivered_is_not_delivered_again() {
        let followers = Followers::default();
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
        let followers = Followers::default();
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
        let followers = Followers::default();
        let (mut following, _) = followers.add(CHANNEL.into());
        followers.close();
        assert!(following.next().await.is_none());
    }
}
