//! One session attached on one socket: which entries pass its filter, and the frames they become.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::hub::{Cursor, Delivery, Item, News, NewsItem, Whole};
use crate::log::{Present, ReadCursor, User};
use crate::session::{Entry, Offset, RunId, SessionId};
use crate::wire::{
    Attach, Change, Here, ServerMessage, entry_frame, ephemeral_frame, presence_frame, present_frame, queue_frame,
    read_frame, with_field,
};

/// A filtered subscriber is told where it is after so many entries that were not for it.
const SKIPPED_ENTRIES: u64 = 1_000;

/// A session that a socket follows.
pub(super) struct Attachment {
    cursor: Cursor,
    filter: Filter,
    /// Whose read cursor it is told of.
    user: Option<User>,
    /// The last offset that the client can know.
    told: Offset,
    told_at: Instant,
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
    pub(super) fn new(cursor: Cursor, filter: Filter, offset: Offset) -> Self {
        Attachment { cursor, filter, user: None, told: offset, told_at: Instant::now() }
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

    /// The attachment itself and what its cursor brings next. A subscriber whose filter has left
    /// out what came last is told where it is every `period`: an empty delivery.
    pub(super) async fn step(mut self, period: Duration) -> (Self, Delivery) {
        let untold = self.cursor.position() != self.told;
        let delivery = tokio::select! {
            delivery = self.cursor.next() => delivery,
            () = sleep_until(self.told_at + period), if untold => Delivery::Items(Vec::new()),
        };
        (self, delivery)
    }

    /// Waits for what comes next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Delivery {
        self.cursor.next().await
    }

    /// The frames of a delivery, in order, each with the position that its reader is at after it.
    pub(super) fn frames(&mut self, delivery: &Delivery, mut each: impl FnMut(Offset, FrameText<'_>)) {
        let told = self.told;
        match delivery {
            Delivery::Items(items) if items.is_empty() => {
                let at = self.at();
                each(self.told, FrameText::Note("at", at));
            }
            Delivery::Items(items) => items.iter().for_each(|item| self.item(item, &mut each)),
            Delivery::Live(offset) => {
                if self.told != *offset {
                    let at = self.at();
                    each(*offset, FrameText::Note("at", at));
                }
                let session = self.cursor.session();
                each(*offset, FrameText::Note("live", ServerMessage::Live { session, offset: *offset }.encode()));
            }
            Delivery::Gap(gap) => {
                let (session, filtered) = (self.cursor.session(), !self.filter.is_empty());
                each(gap.to, FrameText::Note("gap", ServerMessage::Gap { session, gap: *gap, filtered }.encode()));
                self.told = gap.to;
            }
            Delivery::News(news) => news.iter().for_each(|item| self.news(item, &mut each)),
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
        if self.told != told {
            self.told_at = Instant::now();
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

    fn item(&mut self, item: &Item, each: &mut impl FnMut(Offset, FrameText<'_>)) {
        if !self.filter.passes(item.entry()) {
            if item.offset().seq >= self.told.seq + SKIPPED_ENTRIES {
                let at = ServerMessage::At { session: self.cursor.session(), offset: item.offset(), prev: self.told };
                each(item.offset(), FrameText::Note("at", at.encode()));
                self.told = item.offset();
            }
            return;
        }
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
