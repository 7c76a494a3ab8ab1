//! What others ask of a run that this instance drives, on its way to the run's owner.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytestring::ByteString;
use tokio::sync::{mpsc, watch};

use crate::run::call::{self, Values};
use crate::run::seats::Seats;
use crate::run::{Seat, SideCall};
use crate::session::{Record, RunId};

/// Records of others that wait to be written into a run; more have to wait with whoever has them.
const NOTES: usize = 16;

/// Orders that are recognised when they come again.
const ORDERS_REMEMBERED: usize = 64;

/// The owner's end.
#[derive(Debug)]
pub(super) struct Orders {
    cancel: watch::Receiver<Option<ByteString>>,
    notes: mpsc::Receiver<Record>,
    seats: Option<Seats>,
}

/// What the owner is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// End the run; who asks for it, as a JSON object.
    Cancel(ByteString),
    /// Write this into the run.
    Note(Record),
    /// All callers have left a run that is to end with them.
    Abandoned,
}

/// The other end: a run that is driven here.
#[derive(Clone, Debug)]
pub struct Driven {
    cancel: Arc<watch::Sender<Option<ByteString>>>,
    notes: mpsc::Sender<Record>,
    values: Arc<Mutex<Values>>,
    steer: Option<SideCall>,
    seats: Seats,
    done: Arc<Mutex<VecDeque<ByteString>>>,
}

/// Both ends, for a run whose events give `values`, whose route steers by `steer`, and whose callers
/// have `seats`.
pub(super) fn orders(values: Arc<Mutex<Values>>, steer: Option<SideCall>, seats: Seats) -> (Driven, Orders) {
    let (cancel, cancelled) = watch::channel(None);
    let (notes, noted) = mpsc::channel(NOTES);
    let orders = Orders { cancel: cancelled, notes: noted, seats: Some(seats.clone()) };
    (Driven { cancel: Arc::new(cancel), notes, values, steer, seats, done: Arc::default() }, orders)
}

impl Orders {
    /// The next of them. Cancel-safe; to be asked no more once the run has its end.
    pub(super) async fn next(&mut self) -> Order {
        let cancelled = async {
            let by = self.cancel.wait_for(Option::is_some).await.ok().and_then(|by| by.clone());
            // Without a sender nobody will ask any more.
            if by.is_none() { std::future::pending().await } else { by.unwrap_or_default() }
        };
        let abandoned = async {
            match &self.seats {
                Some(seats) => seats.abandoned().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            by = cancelled => Order::Cancel(by),
            Some(record) = self.notes.recv() => Order::Note(record),
            () = abandoned => Order::Abandoned,
        }
    }

    /// A record of others that waits still, once the run is about to end; more of them do not come.
    pub(super) fn last_note(&mut self) -> Option<Record> {
        self.notes.close();
        self.notes.try_recv().ok()
    }

    /// Whether callers are there says nothing any more.
    pub(super) fn go_on_without_callers(&mut self) {
        self.seats = None;
    }
}

impl Driven {
    /// Ends the run as cancelled. Of several who ask, the first counts.
    pub fn cancel(&self, by: ByteString) {
        self.cancel.send_if_modified(|asked| {
            let first = asked.is_none();
            if first {
                *asked = Some(by);
            }
            first
        });
    }

    /// A seat for a caller that has come back; `None`: the run does not end with its callers.
    pub fn seat(&self) -> Option<Seat> {
        self.seats.take()
    }

    /// What another instance says of a caller that came back there.
    pub(super) fn caller(&self, caller: ByteString, here: bool) {
        match here {
            true => self.seats.came(caller),
            false => self.seats.left(&caller),
        }
    }

    /// Writes `record` into the run. `false`: the run has ended.
    pub async fn note(&self, record: Record) -> bool {
        self.notes.send(record).await.is_ok()
    }

    /// Whether an order comes for the first time; of many the newest are remembered, for one that comes
    /// twice does so within seconds.
    pub(super) fn first_order(&self, receipt: &ByteString) -> bool {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if done.contains(receipt) {
            return false;
        }
        if done.len() == ORDERS_REMEMBERED {
            done.pop_front();
        }
        done.push_back(receipt.clone());
        true
    }

    /// How the run is steered, where its upstream has a call for that.
    pub fn steering(&self) -> Option<(SideCall, Values)> {
        Some((self.steer.clone()?, call::lock(&self.values).clone()))
    }
}

/// The runs that this instance drives.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<HashMap<RunId, Driven>>);

impl Registry {
    /// Enters a run. `false`: it is driven here already.
    pub(super) fn enter(&self, run: &RunId, driven: Driven) -> bool {
        match self.lock().entry(run.clone()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(driven);
                true
            }
        }
    }

    /// The run, where it is driven here.
    pub(super) fn of(&self, run: &RunId) -> Option<Driven> {
        self.lock().get(run).cloned()
    }

    pub(super) fn leave(&self, run: &RunId) {
        self.lock().remove(run);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Driven>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
