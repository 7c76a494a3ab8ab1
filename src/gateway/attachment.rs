//! One session attached on one socket: which entries pass its filter, and the frames they become.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::dialect::compact::{Compacted, Merged};
use crate::hub::{Compacting, Cursor, Delivery, Item, News, NewsItem, Whole};
use crate::log::{Present, ReadCursor, User};
use crate::session::{Entry, Offset, RunId, SessionId};
use crate::wire::{
    Attach, Change, Here, ServerMessage, entry_frame, ephemeral_frame, merged_frame, presence_frame, present_frame,
    queue_frame, read_frame, with_field,
};

/// A filtered subscriber is told where it is after so many entries that were not for it.
const SKIPPED_ENTRIES: u64 = 1_000;

/// A session that a socket follows.
pub(super) struct Attachment {
    cursor: Cursor,
    filter: Filter,
    /// What merges, where it wants that.
    compacting: Option<Compacting>,
    /// What its cursor has brought and was not taken yet.
    brought: Option<Delivery>,
    /// Whose read cursor it is told of.
    user: Option<User>,
    /// The last offset that the client can know.
    told: Offset,
    told_at: Instant,
}

/// What a subscriber has to be told next.
#[derive(Debug)]
pub(super) enum Coming {
    /// What its cursor has brought.
    Log(Delivery),
    /// What was held back to be merged.
    Due,
    /// Where it is.
    Position,
}

impl Coming {
    /// The replay is over.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Coming::Log(Delivery::Live(_)))
    }

    /// The session was erased: nothing follows.
    pub(super) fn is_erased(&self) -> bool {
        matches!(self, Coming::Log(Delivery::Erased))
    }
}

/// Which entries a subscriber wants. Both conditions must hold; `None` wants all.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// Only entries of these runs.
    pub(super) runs: Option<Vec<RunId>>,
    /// Only entries of these sources.
    pub(super) sources: Option<Vec<String>>,
}

impl Filter {
    /// The filter that an `attach` asks for.
    pub(super) fn of(attach: &Attach) -> Self {
        Filter { runs: attach.runs.clone(), sources: attach.sources.clone() }
    }

    /// Whether it leaves anything out.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_none() && self.sources.is_none()
    }

    /// Whether the entry passes.
    pub(super) fn passes(&self, entry: &Entry) -> bool {
        let record = &entry.record;
        let run = self.runs.as_ref().is_none_or(|runs| record.run.as_ref().is_some_and(|run| runs.contains(run)));
        let named = |sources: &Vec<String>| record.source.as_ref().is_some_and(|s| sources.iter().any(|x| **x == **s));
        run && self.sources.as_ref().is_none_or(named)
    }
}

impl Attachment {
    /// A subscription that begins after `offset`.
    pub(super) fn new(cursor: Cursor, filter: Filter, compacting: Option<Compacting>, offset: Offset) -> Self {
        Attachment { cursor, filter, compacting, brought: None, user: None, told: offset, told_at: Instant::now() }
    }

    /// All that the devices of the session share; from now on it is told what is new of it, for the
    /// devices of `user`.
    pub(super) fn share(&mut self, user: Option<User>) -> Whole {
        self.user = user;
        self.cursor.share()
    }

    /// Which session.
    pub(super) fn session(&self) -> &SessionId {
        self.cursor.session()
    }

    /// The attachment itself and what comes next. A subscriber whose filter has left out what came last is
    /// told where it is every `period`.
    pub(super) async fn step(mut self, period: Duration) -> (Self, Coming) {
        let untold = self.cursor.position() != self.told;
        let tell_at = self.told_at + period;
        let coming = tokio::select! {
            coming = self.next() => coming,
            () = sleep_until(tell_at), if untold => Coming::Position,
        };
        (self, coming)
    }

    /// Waits for what comes next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Coming {
        let Some(compacting) = &mut self.compacting else { return Coming::Log(self.cursor.next().await) };
        let brought = match &mut self.brought {
            Some(brought) => brought,
            none => {
                let due = compacting.due();
                let delivery = tokio::select! {
                    biased;
                    () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => return Coming::Due,
                    delivery = self.cursor.next() => delivery,
                };
                none.insert(delivery)
            }
        };
        if let Delivery::Items(items) = brought {
            for item in items.iter().filter(|item| self.filter.passes(item.entry())) {
                compacting.meet(item.entry()).await;
            }
        }
        match self.brought.take() {
            Some(delivery) => Coming::Log(delivery),
            None => Coming::Due,
        }
    }

    /// The frames of what came, in order, each with the position that its reader is at after it.
    pub(super) fn frames(&mut self, coming: &Coming, mut each: impl FnMut(Offset, FrameText<'_>)) {
        let told = self.told;
        match coming {
            Coming::Position => {
                self.release(Compacting::flush, &mut each);
                if self.cursor.position() != self.told {
                    let at = self.at();
                    each(self.told, FrameText::Note("at", at));
                }
            }
            Coming::Due => self.release(|compacting, out| compacting.elapse(Instant::now(), out), &mut each),
            Coming::Log(delivery) => self.delivered(delivery, &mut each),
        }
        if self.told != told {
            self.told_at = Instant::now();
        }
    }

    fn delivered(&mut self, delivery: &Delivery, each: &mut impl FnMut(Offset, FrameText<'_>)) {
        match delivery {
            Delivery::Items(items) => {
                items.iter().for_each(|item| self.item(item, each));
                self.release(|compacting, out| compacting.settle(Instant::now(), out), each);
            }
            Delivery::Live(offset) => {
                self.release(Compacting::now_live, each);
                if self.told != *offset {
                    let at = self.at();
                    each(*offset, FrameText::Note("at", at));
                }
                let session = self.cursor.session();
                each(*offset, FrameText::Note("live", ServerMessage::Live { session, offset: *offset }.encode()));
            }
            Delivery::Gap(gap) => {
                self.release(Compacting::flush, each);
                let (session, filtered) = (self.cursor.session(), !self.filter.is_empty());
                each(gap.to, FrameText::Note("gap", ServerMessage::Gap { session, gap: *gap, filtered }.encode()));
                self.told = gap.to;
            }
            Delivery::News(news) => news.iter().for_each(|item| self.news(item, each)),
            Delivery::Whole(whole) => {
                let session = self.cursor.session();
                let present = present_frame(session, whole.present.iter().map(here));
                each(self.told, FrameText::Note("presence", present));
                if let Some(cursor) = own_cursor(whole, self.user.as_ref()) {
                    let read = read_frame(session, &cursor.client, cursor.offset);
                    each(self.told, FrameText::Note("read", read));
                }
            }
            Delivery::Erased => {
                let erased = ServerMessage::Erased { session: self.cursor.session() };
                each(self.told, FrameText::Note("erased", erased.encode()));
            }
        }
    }

    fn news(&self, item: &NewsItem, each: &mut impl FnMut(Offset, FrameText<'_>)) {
        if matches!(item.news(), News::Read(cursor) if self.user.as_ref() != Some(&cursor.user)) {
            return;
        }
        let session = self.cursor.session();
        let frame = item.frame(|news| match news {
            News::Joined(client) => presence_frame(session, here(client), Change::Join),
            News::Changed(client) => presence_frame(session, here(client), Change::State),
            News::Left(client) => presence_frame(session, here(client), Change::Leave),
            News::Read(cursor) => read_frame(session, &cursor.client, cursor.offset),
            News::Queue => queue_frame(session),
            News::Said(said) => ephemeral_frame(session, &said.client, said.event.as_deref(), &said.data),
        });
        each(self.told, FrameText::Shared(frame));
    }

    fn item(&mut self, item: &Arc<Item>, each: &mut impl FnMut(Offset, FrameText<'_>)) {
        if self.filter.passes(item.entry()) {
            match &mut self.compacting {
                Some(_) => self.release(|compacting, out| compacting.push(item.clone(), out), each),
                None => self.entry(item, each),
            }
        } else if item.offset().seq >= self.told.seq + SKIPPED_ENTRIES {
            self.release(Compacting::flush, each);
            // What was held back may have told it enough.
            if item.offset().seq >= self.told.seq + SKIPPED_ENTRIES {
                let at = ServerMessage::At { session: self.cursor.session(), offset: item.offset(), prev: self.told };
                each(item.offset(), FrameText::Note("at", at.encode()));
                self.told = item.offset();
            }
        }
    }

    /// Tells what `from` gives out of what may be merged.
    fn release(
        &mut self,
        from: impl FnOnce(&mut Compacting, &mut Vec<Compacted<Arc<Item>>>),
        each: &mut impl FnMut(Offset, FrameText<'_>),
    ) {
        let Some(compacting) = &mut self.compacting else { return };
        let mut out = Vec::new();
        from(compacting, &mut out);
        for compacted in &out {
            match compacted {
                Compacted::Entry(item) => self.entry(item, each),
                Compacted::Merged(merged) => self.merged(merged, each),
            }
        }
    }

    fn entry(&mut self, item: &Item, each: &mut impl FnMut(Offset, FrameText<'_>)) {
        let session = self.cursor.session();
        let frame = item.frame(|entry| entry_frame(session, entry));
        let replay = self.cursor.is_replay(item.offset());
        let prev = (item.offset().seq != self.told.seq + 1).then(|| format!("\"{}\"", self.told));
        self.told = item.offset();
        let text = match (replay, prev) {
            (false, None) => FrameText::Shared(frame),
            (true, None) => FrameText::Owned(with_field(frame, "replay", "true")),
            (false, Some(prev)) => FrameText::Owned(with_field(frame, "prev", &prev)),
            (true, Some(prev)) => FrameText::Owned(with_field(&with_field(frame, "replay", "true"), "prev", &prev)),
        };
        each(item.offset(), text);
    }

    fn merged(&mut self, merged: &Merged, each: &mut impl FnMut(Offset, FrameText<'_>)) {
        let Merged { entry, first, part } = merged;
        let mut frame = merged_frame(self.cursor.session(), entry, *first, *part);
        if self.cursor.is_replay(entry.offset) {
            frame = with_field(&frame, "replay", "true");
        }
        // Every part: the reader's cursor moves with the last one.
        if first.seq != self.told.seq + 1 {
            frame = with_field(&frame, "prev", &format!("\"{}\"", self.told));
        }
        if part.0 == part.1 {
            self.told = entry.offset;
        }
        each(self.told, FrameText::Owned(frame));
    }

    fn at(&mut self) -> String {
        let offset = self.cursor.position();
        let at = ServerMessage::At { session: self.cursor.session(), offset, prev: self.told };
        let text = at.encode();
        self.told = offset;
        text
    }
}

/// A client as the protocol has it.
pub(super) fn here(client: &Present) -> Here<'_> {
    Here { connection: &client.connection, client: &client.client, state: &client.state }
}

/// How far `user` has read.
pub(super) fn own_cursor<'a>(whole: &'a Whole, user: Option<&User>) -> Option<&'a ReadCursor> {
    whole.cursors.iter().find(|cursor| Some(&cursor.user) == user)
}

/// A frame's text: shared by all subscribers, or this subscriber's own.
pub(super) enum FrameText<'a> {
    /// An entry's frame as all live subscribers get it.
    Shared(&'a bytestring::ByteString),
    /// An entry's frame with fields of this subscriber.
    Owned(String),
    /// Not an entry: its type, and the message.
    Note(&'static str, String),
}
