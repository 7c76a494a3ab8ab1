//! The hub: followed sessions and the cursors that read them. The join of history and live tail
//! exists once, here.
//!
//! A followed session keeps its newest entries in a ring (`ring`); one task per followed session
//! (`follower`) fills it from the log's pushes and repairs it by reading. A [`Cursor`] is all
//! that a subscriber is: its position. Inside the ring it costs the store nothing; behind the ring
//! it reads pages that all subscribers of the session share (`pages`).
//!
//! What devices share beside the entries (who is here, read cursors, what is said) is a `board` of the
//! followed session; its news reach the subscribers that ask for them, in no order relative to
//! entries.
//!
//! The hub never queues for a subscriber, never reorders, and never shows an entry that the log
//! has not acknowledged.

mod active;
mod board;
mod cursor;
mod follower;
mod item;
mod pages;
mod ring;
mod state;
mod subscribe;

pub use board::{Item as NewsItem, News, Whole};
pub use cursor::{Cursor, Delivery};
pub use item::Item;
pub use subscribe::{Hub, HubLimits, NoSession, Subscription};
