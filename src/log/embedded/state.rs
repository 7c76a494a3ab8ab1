//! What is stored of a session and of its runs, beside the entries.

use bytestring::ByteString;

use super::encoding::{Decoder, put_offset, put_optional, put_text, put_varint};
use super::error::Fault;
use crate::log::{Fence, Retention, RunFlags, RunInfo};
use crate::session::{InstanceId, Offset, RunId, SessionId, Subject, Terminal};

/// The format of every value in this file, in `control` and in `tomb`.
pub(super) const FORMAT: u8 = 1;

/// Bytes that an entry costs beside its texts: key, head, its share of the tree's pages.
const ENTRY_OVERHEAD: u64 = 64;

/// A session that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionState {
    /// Its number, part of the key of its entries. A session made anew has another.
    pub(super) number: u64,
    pub(super) created_ms: u64,
    /// When somebody last wrote to it.
    pub(super) written_ms: u64,
    pub(super) tail: Offset,
    pub(super) trimmed: Offset,
    /// Of the entries that are retained.
    pub(super) bytes: u64,
    pub(super) newest_run: Option<RunId>,
    /// Oldest first.
    pub(super) active: Vec<Run>,
    /// How many producers are remembered.
    pub(super) producers: u64,
    /// The runs that wait, first come first.
    pub(super) queue: Vec<Queued>,
    /// Whose it is.
    pub(super) subject: Option<Subject>,
}

/// A run that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) owner: InstanceId,
    /// Of who may append now.
    pub(super) fence: Fence,
    /// How many entries its owner has written. The terminal of a takeover does not count, so that
    /// it can never pass for an entry of the owner.
    pub(super) n: u64,
    /// The newest of those.
    pub(super) last: Offset,
    pub(super) started: Offset,
    pub(super) ended: Option<(Offset, Terminal)>,
    pub(super) parent: Option<RunId>,
    /// Of the `send` that asked for it.
    pub(super) key: Option<ByteString>,
    pub(super) route: ByteString,
    /// Who asked for its cancellation, if somebody did.
    pub(super) cancel: Option<ByteString>,
}

/// A run that waits. What it waits with is in a table of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) run: RunId,
    pub(super) key: Option<ByteString>,
    pub(super) route: ByteString,
    pub(super) client: Option<ByteString>,
    /// Of what it waits with.
    pub(super) bytes: u64,
    /// Who starts it, until when.
    pub(super) mark: Option<(InstanceId, u64)>,
}

/// Where a run is; the run itself is in its session while it is active, and here once it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunRow {
    pub(super) session: SessionId,
    /// The number of the session that the run was opened in.
    pub(super) number: u64,
    pub(super) ended: Option<Run>,
}

/// A writer without a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) epoch: u64,
    pub(super) n: u64,
    pub(super) last: Offset,
}

impl SessionState {
    /// A session without entries, whose offsets come after `last`.
    pub(super) fn new(number: u64, last: Offset, now_ms: u64) -> Self {
        SessionState {
            number,
            created_ms: now_ms,
            written_ms: now_ms,
            tail: last,
            trimmed: last,
            bytes: 0,
            newest_run: None,
            active: Vec::new(),
            producers: 0,
            queue: Vec::new(),
            subject: None,
        }
    }

    /// How many entries are retained.
    pub(super) fn entries(&self) -> u64 {
        self.tail.seq - self.trimmed.seq
    }

    /// What it counts towards the limit of all sessions together.
    pub(super) fn footprint(&self) -> u64 {
        let waiting: u64 = self.queue.iter().map(|queued| queued.bytes).sum();
        self.bytes + self.entries() * ENTRY_OVERHEAD + waiting
    }

    /// Whether nobody has written to it for its ttl. A session with an active run never expires.
    pub(super) fn has_expired(&self, retention: &Retention, now_ms: u64) -> bool {
        self.active.is_empty() && now_ms >= self.expires_ms(retention)
    }

    pub(super) fn expires_ms(&self, retention: &Retention) -> u64 {
        self.written_ms.saturating_add(u64::try_from(retention.ttl.as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether nothing is active and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.active.is_empty() && self.queue.is_empty()
    }

    pub(super) fn active_run(&self, id: &RunId) -> Option<usize> {
        self.active.iter().position(|run| run.id == *id)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = vec![FORMAT];
        for number in [self.number, self.created_ms, self.written_ms, self.bytes, self.producers] {
            put_varint(&mut value, number);
        }
        put_offset(&mut value, self.tail);
        put_offset(&mut value, self.trimmed);
        put_text(&mut value, self.newest_run.as_ref().map_or("", RunId::as_str));
        put_varint(&mut value, self.active.len() as u64);
        for run in &self.active {
            run.encode(&mut value);
        }
        put_varint(&mut value, self.queue.len() as u64);
        for queued in &self.queue {
            queued.encode(&mut value);
        }
        if let Some(subject) = &self.subject {
            put_text(&mut value, subject.as_str());
        }
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Fault> {
        let mut from = decoder(value, "session")?;
        let (number, created_ms, written_ms) = (from.varint()?, from.varint()?, from.varint()?);
        let (bytes, producers) = (from.varint()?, from.varint()?);
        let (tail, trimmed) = (from.offset()?, from.offset()?);
        let newest_run = match &*from.text()? {
            "" => None,
            run => Some(RunId::from_store(run).map_err(|_| from.damaged())?),
        };
        if trimmed.seq > tail.seq {
            return Err(from.damaged());
        }
        let count = from.varint()?;
        let active = (0..count).map(|_| Run::decode(&mut from)).collect::<Result<_, _>>()?;
        let count = from.varint()?;
        let queue = (0..count).map(|_| Queued::decode(&mut from)).collect::<Result<_, _>>()?;
        // Nothing follows in a session that is nobody's.
        let subject = match from.remaining() {
            0 => None,
            _ => Some(Subject::parse(&from.text()?).ok_or(from.damaged())?),
        };
        Ok(SessionState {
            number,
            created_ms,
            written_ms,
            tail,
            trimmed,
            bytes,
            newest_run,
            active,
            producers,
            queue,
            subject,
        })
    }
}

impl Run {
    /// What its owner is told.
    pub(super) fn flags(&self) -> RunFlags {
        RunFlags { cancel: self.cancel.clone() }
    }

    pub(super) fn info(&self) -> RunInfo {
        RunInfo {
            run: self.id.clone(),
            owner: self.owner.clone(),
            started: self.started,
            last: self.last,
            ended: self.ended,
            parent: self.parent.clone(),
            cancel: self.cancel.clone(),
        }
    }

    fn encode(&self, value: &mut Vec<u8>) {
        put_text(value, self.id.as_str());
        put_text(value, self.owner.as_str());
        put_varint(value, self.fence.counter);
        put_text(value, &self.fence.nonce);
        put_varint(value, self.n);
        put_offset(value, self.last);
        put_offset(value, self.started);
        match self.ended {
            None => put_text(value, ""),
            Some((offset, terminal)) => {
                put_text(value, terminal.as_str());
                put_offset(value, offset);
            }
        }
        put_optional(value, self.parent.as_ref().map(RunId::as_str));
        put_optional(value, self.key.as_deref());
        put_text(value, &self.route);
        put_optional(value, self.cancel.as_deref());
    }

    fn decode(from: &mut Decoder) -> Result<Self, Fault> {
        let id = RunId::from_store(&from.text()?).map_err(|_| from.damaged())?;
        let owner = InstanceId::from_store(&from.text()?).map_err(|_| from.damaged())?;
        let fence = Fence { counter: from.varint()?, nonce: own(from.text()?) };
        let (n, last, started) = (from.varint()?, from.offset()?, from.offset()?);
        let ended = match &*from.text()? {
            "" => None,
            name => {
                let terminal = Terminal::parse(name).ok_or(from.damaged())?;
                Some((from.offset()?, terminal))
            }
        };
        let parent = match from.optional()? {
            None => None,
            Some(parent) => Some(RunId::from_store(&parent).map_err(|_| from.damaged())?),
        };
        let (key, route, cancel) = (from.optional()?.map(own), own(from.text()?), from.optional()?.map(own));
        Ok(Run { id, owner, fence, n, last, started, ended, parent, key, route, cancel })
    }
}

impl RunRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = vec![FORMAT];
        put_text(&mut value, self.session.as_str());
        put_varint(&mut value, self.number);
        if let Some(run) = &self.ended {
            run.encode(&mut value);
        }
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Fault> {
        let mut from = decoder(value, "run")?;
        let session = SessionId::from_store(&from.text()?).map_err(|_| from.damaged())?;
        let number = from.varint()?;
        let ended = if from.remaining() == 0 { None } else { Some(Run::decode(&mut from)?) };
        Ok(RunRow { session, number, ended })
    }
}

impl Producer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = vec![FORMAT];
        put_varint(&mut value, self.epoch);
        put_varint(&mut value, self.n);
        put_offset(&mut value, self.last);
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Fault> {
        let mut from = decoder(value, "producer")?;
        Ok(Producer { epoch: from.varint()?, n: from.varint()?, last: from.offset()? })
    }
}

impl Queued {
    fn encode(&self, value: &mut Vec<u8>) {
        put_text(value, self.run.as_str());
        put_optional(value, self.key.as_deref());
        put_text(value, &self.route);
        put_optional(value, self.client.as_deref());
        put_varint(value, self.bytes);
        put_optional(value, self.mark.as_ref().map(|(owner, _)| owner.as_str()));
        if let Some((_, until_ms)) = self.mark {
            put_varint(value, until_ms);
        }
    }

    fn decode(from: &mut Decoder) -> Result<Self, Fault> {
        let run = RunId::from_store(&from.text()?).map_err(|_| from.damaged())?;
        let (key, route, client) = (from.optional()?.map(own), own(from.text()?), from.optional()?.map(own));
        let bytes = from.varint()?;
        let mark = match from.optional()? {
            None => None,
            Some(owner) => Some((InstanceId::from_store(&owner).map_err(|_| from.damaged())?, from.varint()?)),
        };
        Ok(Queued { run, key, route, client, bytes, mark })
    }
}

/// A decoder of a value in our format.
pub(super) fn decoder(value: &[u8], what: &'static str) -> Result<Decoder, Fault> {
    let mut from = Decoder::new(value, what);
    if from.byte()? == FORMAT { Ok(from) } else { Err(from.damaged()) }
}

/// A text that keeps no larger value in memory.
fn own(text: ByteString) -> ByteString {
    ByteString::from(&*text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::embedded::control::EarlyCancel;
    use crate::log::embedded::tomb::{Tomb, TombReason};

    fn offset() -> impl Strategy<Value = Offset> {
        (any::<u64>(), any::<u64>()).prop_map(|(ms, seq)| Offset { ms, seq })
    }

    fn run() -> impl Strategy<Value = Run> {
        let terminal = prop_oneof![Just(Terminal::Completed), Just(Terminal::Interrupted)];
        let ended = proptest::option::of((offset(), terminal));
        let fence = (any::<u64>(), any::<String>());
        let asked = any::<(Option<u128>, Option<String>, String, Option<String>)>();
        (any::<u128>(), any::<u128>(), fence, any::<u64>(), offset(), offset(), ended, asked).prop_map(
            |(id, owner, (counter, nonce), n, last, started, ended, (parent, key, route, cancel))| Run {
                id: RunId::from_random(id),
                owner: InstanceId::from_random(owner),
                fence: Fence { counter, nonce: nonce.into() },
                n,
                last,
                started,
                ended,
                parent: parent.map(RunId::from_random),
                key: key.map(Into::into),
                route: route.into(),
                cancel: cancel.map(Into::into),
            },
        )
    }

    fn queued() -> impl Strategy<Value = Queued> {
        let texts = any::<(Option<String>, String, Option<String>)>();
        (any::<u128>(), texts, any::<u64>(), any::<Option<(u128, u64)>>()).prop_map(
            |(run, (key, route, client), bytes, mark)| Queued {
                run: RunId::from_random(run),
                key: key.map(Into::into),
                route: route.into(),
                client: client.map(Into::into),
                bytes,
                mark: mark.map(|(owner, until_ms)| (InstanceId::from_random(owner), until_ms)),
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_stored_of_a_session_comes_back(
            numbers: [u64; 5],
            tail in offset(),
            trimmed in offset(),
            newest: Option<u128>,
            active in proptest::collection::vec(run(), 0..4),
            queue in proptest::collection::vec(queued(), 0..4),
            subject: Option<[u8; 32]>,
        ) {
            let state = SessionState {
                number: numbers[0],
                created_ms: numbers[1],
                written_ms: numbers[2],
                bytes: numbers[3],
                producers: numbers[4],
                tail: Offset::new(tail.ms, tail.seq.max(trimmed.seq)),
                trimmed,
                newest_run: newest.map(RunId::from_random),
                active,
                queue,
                subject: subject.map(Subject::from_digest),
            };
            prop_assert_eq!(SessionState::decode(&state.encode()).unwrap(), state);
        }

        #[test]
        fn what_is_stored_of_runs_producers_and_the_dead_comes_back(
            number: u64,
            ended in proptest::option::of(run()),
            epoch: u64,
            n: u64,
            last in offset(),
            erased: bool,
        ) {
            let row = RunRow { session: SessionId::from_digest_text("abc"), number, ended };
            prop_assert_eq!(RunRow::decode(&row.encode()).unwrap(), row);
            let producer = Producer { epoch, n, last };
            prop_assert_eq!(Producer::decode(&producer.encode()).unwrap(), producer);
            let cancelled = EarlyCancel { until_ms: n, by: "{}".into(), withdrawn: Some(RunId::from_random(1)) };
            prop_assert_eq!(EarlyCancel::decode(&cancelled.encode()).unwrap(), cancelled);
            let reason = if erased { TombReason::Erased } else { TombReason::Expired };
            let tomb = Tomb { last, buried_ms: n, reason };
            prop_assert_eq!(Tomb::decode(&tomb.encode()).unwrap(), tomb);
        }
    }
}
