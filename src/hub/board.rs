//! What the devices of a followed session share beside its entries, and the newest news of it.
//! Sans-I/O.
//!
//! Who is here and how far users have read are kept whole; news are kept in a small ring that all
//! subscribers share. A subscriber that lags behind the ring costs nothing: it is given the whole,
//! which is newer anyway, and misses what was only said.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytestring::ByteString;

use crate::log::{Ephemeral, Note, Present, ReadCursor, Shared, User};
use crate::session::ConnectionId;

/// News that are kept for subscribers that are behind.
const NEWS: usize = 256;

/// Bytes of them; the newest is kept whatever its size.
const NEWS_BYTES: usize = 128 << 10;

/// Something new beside the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A client has come.
    Joined(Present),
    /// A client says something else of itself.
    Changed(Present),
    /// A client has left.
    Left(Present),
    /// A user has read on.
    Read(ReadCursor),
    /// Somebody says something.
    Said(Ephemeral),
    /// What waits has changed.
    Queue,
}

/// News with their frame, which is encoded once for all subscribers.
#[derive(Debug)]
pub struct Item {
    news: News,
    frame: OnceLock<ByteString>,
}

impl Item {
    /// What is new.
    pub fn news(&self) -> &News {
        &self.news
    }

    /// Its frame; `encode` runs at most once, whoever asks first.
    pub fn frame(&self, encode: impl FnOnce(&News) -> String) -> &ByteString {
        self.frame.get_or_init(|| encode(&self.news).into())
    }

    fn weight(&self) -> usize {
        let texts = match &self.news {
            News::Joined(client) | News::Changed(client) | News::Left(client) => client.state.len(),
            News::Read(_) | News::Queue => 0,
            News::Said(said) => said.data.len() + said.event.as_deref().map_or(0, str::len),
        };
        2 * texts + 256
    }
}

/// All that is shared, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Who is here.
    pub present: Vec<Present>,
    /// The users' read cursors.
    pub cursors: Vec<ReadCursor>,
}

/// What a board has for a subscriber.
#[derive(Debug)]
pub(super) enum Behind {
    /// Nothing.
    Nothing,
    /// These news.
    News(Vec<Arc<Item>>),
    /// It is too far behind.
    TooFar,
}

/// The shared state of a session.
#[derive(Debug, Default)]
pub(super) struct Board {
    present: BTreeMap<ConnectionId, Present>,
    cursors: BTreeMap<User, ReadCursor>,
    news: VecDeque<Arc<Item>>,
    weight: usize,
    /// The number of the next news.
    next: u64,
}

impl Board {
    /// Takes a note. `false`: it says nothing new.
    pub(super) fn hear(&mut self, note: Note) -> bool {
        let news = match note {
            Note::Here(client) => match self.present.insert(client.connection.clone(), client.clone()) {
                Some(known) if known == client => return false,
                Some(_) => News::Changed(client),
                None => News::Joined(client),
            },
            Note::Left(connection) => match self.present.remove(&connection) {
                Some(client) => News::Left(client),
                None => return false,
            },
            Note::Read(cursor) => {
                let known = self.cursors.get(&cursor.user);
                if known.is_some_and(|known| known.offset >= cursor.offset) {
                    return false;
                }
                self.cursors.insert(cursor.user.clone(), cursor.clone());
                News::Read(cursor)
            }
            Note::Said(said) => News::Said(said),
            Note::Queue => News::Queue,
        };
        self.push(news);
        true
    }

    /// Takes all of it as the log has it; what differs is news. `false`: nothing does.
    pub(super) fn replace(&mut self, shared: Shared) -> bool {
        let before = self.next;
        let here = |connection: &ConnectionId| shared.present.iter().any(|client| client.connection == *connection);
        let left: Vec<_> = self.present.keys().filter(|connection| !here(connection)).cloned().collect();
        for connection in left {
            self.hear(Note::Left(connection));
        }
        for client in shared.present {
            self.hear(Note::Here(client));
        }
        // A store that went back in time may know of fewer.
        self.cursors.retain(|user, _| shared.cursors.iter().any(|cursor| cursor.user == *user));
        for cursor in shared.cursors {
            self.hear(Note::Read(cursor));
        }
        self.next != before
    }

    /// Whether somebody is here, so that a lease may end.
    pub(super) fn is_somebody_here(&self) -> bool {
        !self.present.is_empty()
    }

    /// All of it, and the number of the news that come after.
    pub(super) fn whole(&self) -> (Whole, u64) {
        let present = self.present.values().cloned().collect();
        (Whole { present, cursors: self.cursors.values().cloned().collect() }, self.next)
    }

    /// The number of the next news.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// What a subscriber has not had whose next is number `from`.
    pub(super) fn since(&self, from: u64) -> Behind {
        let missing = usize::try_from(self.next - from).unwrap_or(usize::MAX);
        match self.news.len().checked_sub(missing) {
            _ if missing == 0 => Behind::Nothing,
            Some(start) => Behind::News(self.news.range(start..).cloned().collect()),
            None => Behind::TooFar,
        }
    }

    fn push(&mut self, news: News) {
        let item = Arc::new(Item { news, frame: OnceLock::new() });
        self.weight += item.weight();
        self.news.push_back(item);
        self.next += 1;
        while (self.news.len() > NEWS || self.weight > NEWS_BYTES)
            && self.news.len() > 1
            && let Some(oldest) = self.news.pop_front()
        {
            self.weight -= oldest.weight();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{ClientName, Offset};

    fn client(connection: &str, state: &str) -> Present {
        let (connection, client) = (ConnectionId::parse(connection).unwrap(), ClientName::parse("phone").unwrap());
        Present { connection, client, state: state.into() }
    }

    fn read(seq: u64) -> ReadCursor {
        let client = ClientName::parse("phone").unwrap();
        ReadCursor { user: User::Client(client.clone()), client, offset: Offset::new(seq, seq) }
    }

    fn said(data: String) -> Note {
        let client = ClientName::parse("phone").unwrap();
        Note::Said(Ephemeral { client, event: None, data: data.into() })
    }

    fn news(board: &Board, from: u64) -> Option<Vec<News>> {
        match board.since(from) {
            Behind::Nothing => Some(Vec::new()),
            Behind::News(items) => Some(items.iter().map(|item| item.news().clone()).collect()),
            Behind::TooFar => None,
        }
    }

    #[test]
    fn who_comes_changes_and_leaves_is_news_once() {
        let mut board = Board::default();
        assert!(board.hear(Note::Here(client("a", "1"))));
        assert!(!board.hear(Note::Here(client("a", "1"))));
        assert!(board.hear(Note::Here(client("a", "2"))));
        assert!(board.hear(Note::Left(client("a", "2").connection)));
        assert!(!board.hear(Note::Left(client("a", "2").connection)));
        let expected = [News::Joined(client("a", "1")), News::Changed(client("a", "2")), News::Left(client("a", "2"))];
        assert_eq!(news(&board, 0).unwrap(), expected);
        assert_eq!(news(&board, 3).unwrap(), []);
    }

    #[test]
    fn what_was_missed_is_news_when_all_of_it_is_read_again() {
        let mut board = Board::default();
        board.hear(Note::Here(client("gone", "1")));
        board.hear(Note::Here(client("stays", "1")));
        board.hear(Note::Read(read(3)));
        let present = vec![client("new", "1"), client("stays", "1")];
        let shared = Shared { present: present.clone(), lease_ends_in: None, cursors: vec![read(5)] };
        assert!(board.replace(shared.clone()));
        let expected = [News::Left(client("gone", "1")), News::Joined(client("new", "1")), News::Read(read(5))];
        assert_eq!(news(&board, 3).unwrap(), expected);
        assert!(!board.replace(shared), "nothing is new");
        assert_eq!(board.whole(), (Whole { present, cursors: vec![read(5)] }, 6));
    }

    #[test]
    fn a_cursor_that_comes_late_is_no_news() {
        let mut board = Board::default();
        assert!(board.hear(Note::Read(read(5))));
        assert!(!board.hear(Note::Read(read(4))));
        assert!(!board.hear(Note::Read(read(5))));
    }

    #[test]
    fn who_is_far_behind_is_told_so_and_nothing_grows() {
        let mut board = Board::default();
        for i in 0..10_000 {
            board.hear(said(i.to_string()));
        }
        assert!(news(&board, 0).is_none());
        assert_eq!(news(&board, 9_990).unwrap().len(), 10);
        assert!(board.news.len() <= NEWS && board.weight <= NEWS_BYTES);
        board.hear(said("x".repeat(NEWS_BYTES)));
        assert_eq!((board.news.len(), news(&board, 10_000).unwrap().len()), (1, 1));
        assert!(news(&board, 9_999).is_none());
    }
}
