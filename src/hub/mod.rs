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
//! A reader may have deltas merged (`compacting`); that is a view of what its cursor brings, and changes nothing
//! of what others see.
//!
//! The hub never queues for a subscriber, never reorders, and never shows an entry that the log
//! has not acknowledged.

mod active;
mod board;
mod compacting;
mod cursor;
mod follower;
mod item;
mod pages;
mod ring;
mod run_dialects;
mod state;
mod subscribe;

pub use board::{Item as NewsItem, News, Whole};
pub use compacting::{Compacting, Merge};
pub use cursor::{Cursor, Delivery};
pub use item::Item;
pub use run_dialects::RunDialects;
pub use subscribe::{Hub, HubLimits, NoSession, Subscription};
