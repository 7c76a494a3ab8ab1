//! Which server has which key. A cluster divides its keys into 16,384 slots; a server that stands alone
//! has all of them.

use std::sync::Arc;

use super::deployment::Address;
use super::node::Node;

/// How many slots there are (Redis Cluster specification, "Key distribution model").
pub(super) const SLOTS: usize = 16_384;

/// The slot of a key or a sharded channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Slot(u16);

impl Slot {
    /// The slot of `key`: of what stands between its first `{` and the next `}`, where that is not empty, else of
    /// all of it (Redis Cluster specification, "Hash tags").
    pub(super) fn of(key: &str) -> Self {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
        Slot(crc16(hashed.as_bytes()) % SLOTS as u16)
    }

    /// The slot with this number; `None`: there is none.
    pub(super) fn from_number(number: u64) -> Option<Self> {
        u16::try_from(number).ok().filter(|number| usize::from(*number) < SLOTS).map(Slot)
    }
}

/// CRC-16/XMODEM (Redis Cluster specification, appendix A).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| crc << 8 ^ CRC16[usize::from(crc >> 8) ^ usize::from(*byte)])
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Ranges of slots, both ends included.
pub(super) type Ranges = Vec<(Slot, Slot)>;

/// Which server has which slot, as far as is known. Never changes: what is learned is another map.
pub(super) struct SlotMap {
    nodes: Vec<Arc<Node>>,
    /// Per slot the place of its node in `nodes`.
    owners: Owners,
}

#[derive(PartialEq, Eq)]
enum Owners {
    /// The one server has all.
    All,
    /// Per slot the place of its server; `None`: nobody is known to serve it.
    Each(Vec<Option<u16>>),
}

impl SlotMap {
    /// One server has all slots.
    pub(super) fn of_one(node: Arc<Node>) -> Self {
        SlotMap { nodes: vec![node], owners: Owners::All }
    }

    /// Servers with their slots.
    pub(super) fn of_ranges(nodes: Vec<(Arc<Node>, Ranges)>) -> Self {
        let mut owners = vec![None; SLOTS];
        for (place, (_, ranges)) in nodes.iter().enumerate() {
            for (first, last) in ranges {
                owners[usize::from(first.0)..=usize::from(last.0)].fill(u16::try_from(place).ok());
            }
        }
        SlotMap { nodes: nodes.into_iter().map(|(node, _)| node).collect(), owners: Owners::Each(owners) }
    }

    /// The server of a slot.
    pub(super) fn node(&self, slot: Slot) -> Option<&Arc<Node>> {
        match &self.owners {
            Owners::All => self.nodes.first(),
            Owners::Each(owners) => self.nodes.get(usize::from(owners[usize::from(slot.0)]?)),
        }
    }

    /// All servers.
    pub(super) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The server at `address`.
    pub(super) fn node_at(&self, address: &Address) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.is_at(address))
    }

    /// How many slots no server is known for.
    pub(super) fn unserved(&self) -> usize {
        match &self.owners {
            Owners::All => 0,
            Owners::Each(owners) => owners.iter().filter(|owner| owner.is_none()).count(),
        }
    }
}

impl PartialEq for SlotMap {
    fn eq(&self, other: &Self) -> bool {
        self.nodes.iter().map(|node| node.number).eq(other.nodes.iter().map(|node| node.number))
            && self.owners == other.owners
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The specification's own check value, and what `CLUSTER KEYSLOT` answers.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(Slot::of("foo"), Slot(12182));
        assert_eq!(Slot::of("ss:{foo}:log"), Slot::of("foo"));
    }

    #[test]
    fn an_empty_hash_tag_is_none_and_only_the_first_counts() {
        assert_eq!(Slot::of("foo{}{bar}"), Slot(crc16(b"foo{}{bar}") % 16384));
        assert_eq!(Slot::of("foo{{bar}}zap"), Slot::of("{bar"));
        assert_eq!(Slot::of("foo{bar}{zap}"), Slot::of("bar"));
        assert_eq!(Slot::of("{unclosed"), Slot(crc16(b"{unclosed") % 16384));
    }
}
