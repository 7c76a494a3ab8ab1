//! Every key and channel that this store uses. A key that is not made here is a bug.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::slots::Slot;
use crate::session::{InstanceId, RunId, SessionId, Subject};

/// All sessions belong to this tenant until tenants exist.
const TENANT: &str = "default";

/// Slots that are tried for a probe channel: enough for one server in a thousand to have one of them.
const PROBE_ATTEMPTS: u64 = 10_000;

/// Makes keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    /// What the name of a session's channel ends with: all databases of a server share its channels.
    channel: String,
}

/// The keys of one session; all in one slot.
#[derive(Debug, Clone)]
pub(super) struct SessionKeys {
    /// Where they all are.
    pub(super) slot: Slot,
    /// The stream.
    pub(super) log: String,
    /// What the scripts know of it.
    pub(super) meta: String,
    /// Active runs and their owners.
    pub(super) active: String,
    /// What outlives it.
    pub(super) tomb: String,
    /// Where its entries are pushed.
    pub(super) channel: String,
    /// What was cancelled before it was there.
    pub(super) cancels: String,
    /// The runs that wait.
    pub(super) queue: String,
    /// What they wait with.
    pub(super) items: String,
    /// Who is here.
    pub(super) presence: String,
    /// How far each user has read.
    pub(super) cursors: String,
    /// Written to by a barrier; not a key of the scripts.
    pub(super) ack: String,
}

impl SessionKeys {
    /// In the order in which `session.lua` expects them.
    pub(super) fn all(&self) -> [&str; 10] {
        let [log, meta, active, tomb] = [&self.log, &self.meta, &self.active, &self.tomb];
        let [cancels, queue, items] = [&self.cancels, &self.queue, &self.items];
        [log, meta, active, tomb, &self.channel, cancels, queue, items, &self.presence, &self.cursors]
    }
}

impl Keys {
    /// Keys that begin with `prefix`, in database `db`.
    pub(super) fn new(prefix: &str, db: i64) -> Self {
        let channel = if db == 0 { "ch".to_owned() } else { format!("ch:{db}") };
        Keys { prefix: prefix.to_owned(), channel }
    }

    pub(super) fn session(&self, session: &SessionId) -> SessionKeys {
        let key = |name: &str| format!("{}:{{{TENANT}:{session}}}:{name}", self.prefix);
        SessionKeys {
            slot: Slot::of(&key("")),
            log: key("log"),
            meta: key("meta"),
            active: key("active"),
            tomb: key("tomb"),
            channel: key(&self.channel),
            cancels: key("cancels"),
            queue: key("queue"),
            items: key("items"),
            presence: key("presence"),
            cursors: key("cursors"),
            ack: key("ack"),
        }
    }

    /// The channel of a session.
    pub(super) fn channel(&self, session: &SessionId) -> String {
        format!("{}:{{{TENANT}:{session}}}:{}", self.prefix, self.channel)
    }

    /// Matches the meta keys of all sessions. The prefix holds no glob character.
    pub(super) fn meta_pattern(&self) -> String {
        format!("{}:{{{TENANT}:*}}:meta", self.prefix)
    }

    /// The session whose meta key this is.
    pub(super) fn session_of_meta(&self, key: &str) -> Option<SessionId> {
        let rest =
            key.strip_prefix(self.prefix.as_str())?.strip_prefix(":{")?.strip_prefix(TENANT)?.strip_prefix(':')?;
        SessionId::from_store(rest.strip_suffix("}:meta")?).ok()
    }

    /// The session of a run.
    pub(super) fn run(&self, run: &RunId) -> String {
        format!("{}:run:{run}", self.prefix)
    }

    /// The claim of an idempotency key, which may hold anything and is therefore hashed.
    pub(super) fn claim(&self, key: &str) -> String {
        format!("{}:idem:{}", self.prefix, URL_SAFE_NO_PAD.encode(Sha256::digest(key.as_bytes())))
    }

    /// What a barrier writes to for the claim with this key: in its slot.
    pub(super) fn claim_ack(&self, claim: &str) -> String {
        format!("{}:{{{claim}}}:ack", self.prefix)
    }

    /// The sessions of a subject.
    pub(super) fn subject(&self, subject: &Subject) -> String {
        format!("{}:subj:{}", self.prefix, subject.as_str())
    }

    /// An instance's lease.
    pub(super) fn alive(&self, instance: &InstanceId) -> String {
        format!("{}:{{inst}}:alive:{instance}", self.prefix)
    }

    /// The runs that an instance drives.
    pub(super) fn runs(&self, instance: &InstanceId) -> String {
        format!("{}:{{inst}}:runs:{instance}", self.prefix)
    }

    /// The commands that wait for an instance.
    pub(super) fn commands(&self, instance: &InstanceId) -> String {
        format!("{}:{{inst}}:cmds:{instance}", self.prefix)
    }

    /// The channel of an instance's commands.
    pub(super) fn commands_channel(&self, instance: &InstanceId) -> String {
        format!("{}:{{inst}}:ch:{instance}", self.prefix)
    }

    /// All instances.
    pub(super) fn all_instances(&self) -> String {
        format!("{}:{{inst}}:all", self.prefix)
    }

    /// Where all keys of instances are.
    pub(super) fn instances_slot(&self) -> Slot {
        Slot::of(&self.all_instances())
    }

    /// A channel over which a listener hears itself, in a slot that `serves`. `None`: hardly any does.
    pub(super) fn probe_channel(&self, random: u64, serves: impl Fn(Slot) -> bool) -> Option<String> {
        let channel = |salt: u64| format!("{}:probe:{{{:016x}}}", self.prefix, random.wrapping_add(salt));
        (0..PROBE_ATTEMPTS).map(channel).find(|channel| serves(Slot::of(channel)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_session_share_one_hash_tag() {
        let keys = Keys::new("ss", 0).session(&SessionId::parse("chat-1").expect("an id"));
        for key in keys.all() {
            assert!(key.starts_with("ss:{default:chat-1}:"), "{key}");
        }
    }

    #[test]
    fn a_meta_key_names_its_session() {
        let keys = Keys::new("ss", 0);
        let session = SessionId::from_digest_text("abc");
        assert_eq!(keys.session_of_meta(&keys.session(&session).meta), Some(session));
        assert_eq!(keys.session_of_meta("ss:{other:abc}:meta"), None);
    }
}
