//! Subscribers of the hubs of both instances: they come at some moment, begin somewhere, and go on at
//! another instance where they were.

use std::sync::Arc;

use proptest::prelude::*;
use sidestream::hub::Delivery;
use sidestream::log::{PageLimits, Read};
use sidestream::session::{After, Entry, Offset};
use tokio::sync::watch;

use crate::plan::{Dice, give_way};
use crate::race::World;

/// Who reads.
#[derive(Clone, Debug)]
pub struct Reader {
    seed: u64,
    pauses: u64,
    begins: Begins,
    /// How often it comes back at the other instance.
    returns: u64,
}

#[derive(Clone, Copy, Debug)]
enum Begins {
    Start,
    End,
    Middle,
}

/// What one has read.
pub struct Seen {
    pub after: Offset,
    pub entries: Vec<Arc<Entry>>,
}

pub fn readers() -> impl Strategy<Value = Vec<Reader>> {
    let begins = prop_oneof![2 => Just(Begins::Start), 1 => Just(Begins::End), 1 => Just(Begins::Middle)];
    let reader = (any::<u64>(), 0..15u64, begins, 0..4u64);
    let reader = reader.prop_map(|(seed, pauses, begins, returns)| Reader { seed, pauses, begins, returns });
    prop::collection::vec(reader, 1..6)
}

/// Reads until it has the last entry there is, once that is known.
pub async fn reader(world: Arc<World>, reader: Reader, mut until: watch::Receiver<Option<Offset>>) -> Seen {
    let mut dice = Dice::new(reader.seed, 0);
    for _ in 0..reader.pauses {
        dice.pause().await;
    }
    let (mut at, mut returns) = (dice.below(2) as usize, reader.returns);
    let after = match reader.begins {
        Begins::Start => After::Start,
        Begins::End => After::End,
        Begins::Middle => somewhere(&world, at, &mut dice).await,
    };
    let mut subscription = world.hubs[at].subscribe(&world.session, after, true).await.unwrap();
    let mut seen = Seen { after: subscription.offset, entries: Vec::new() };
    let mut live = 0;
    loop {
        let cursor = &mut subscription.cursor;
        if *until.borrow_and_update() == Some(cursor.position()) {
            return seen;
        }
        let delivery = tokio::select! {
            delivery = cursor.next() => delivery,
            _ = until.changed() => continue,
        };
        match delivery {
            Delivery::Items(items) => seen.entries.extend(items.iter().map(|item| Arc::new(item.entry().clone()))),
            Delivery::Live(offset) => {
                live += 1;
                assert_eq!((live, offset), (1, cursor.position()), "live once, where it is");
            }
            other => panic!("nothing was lost or erased: {other:?}"),
        }
        match dice.below(4) {
            0 if returns > 0 => {
                (at, returns, live) = (1 - at, returns - 1, 0);
                let position = cursor.position();
                let after = if position == Offset::ZERO { After::Start } else { After::Offset(position) };
                // The old one may still be there when the new one comes.
                let old = std::mem::replace(
                    &mut subscription,
                    world.hubs[at].subscribe(&world.session, after, true).await.unwrap(),
                );
                drop(old);
            }
            turns => give_way(turns).await,
        }
    }
}

/// Some entry that is in the log now.
async fn somewhere(world: &World, at: usize, dice: &mut Dice) -> After {
    match world.logs[at].read(&world.session, Offset::ZERO, PageLimits::default()).await.unwrap() {
        Read::Page(page) if !page.entries.is_empty() => {
            After::Offset(page.entries[dice.below(page.entries.len() as u64) as usize].offset)
        }
        _ => After::Start,
    }
}
