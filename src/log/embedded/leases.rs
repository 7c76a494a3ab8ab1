//! Leases of instances, in memory.
//!
//! Only one process uses an embedded log, so that its own instance is the only one, and a restart
//! ends all runs anyway. The rules are still those of the contract, so that nothing above the log
//! has to know which store it runs on.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::log::{DeadInstance, Renewal};
use crate::session::{InstanceId, RunId, SessionId};

/// How far apart an instance must have been absent twice to be dead.
const TWICE_APART: Duration = Duration::from_millis(500);

/// The instances and their leases.
#[derive(Default)]
pub(super) struct Leases {
    instances: Mutex<HashMap<InstanceId, Instance>>,
}

struct Instance {
    life: Life,
    runs: BTreeSet<(SessionId, RunId)>,
}

enum Life {
    /// Listed runs, but has not renewed yet.
    Unborn,
    /// Holds a lease.
    Leased {
        until: Instant,
    },
    /// Was found without a lease.
    Absent {
        since: Instant,
    },
    Dead,
}

impl Leases {
    pub(super) fn enlist(&self, instance: &InstanceId, session: &SessionId, run: &RunId) -> bool {
        let mut instances = self.lock();
        let instance = instances.entry(instance.clone()).or_insert_with(Instance::unborn);
        let may = !matches!(instance.life, Life::Dead);
        if may {
            instance.runs.insert((session.clone(), run.clone()));
        }
        may
    }

    pub(super) fn unlist(&self, instance: &InstanceId, session: &SessionId, run: &RunId) {
        if let Some(instance) = self.lock().get_mut(instance) {
            instance.runs.remove(&(session.clone(), run.clone()));
        }
    }

    pub(super) fn renew(&self, instance: &InstanceId, lease: Duration, now: Instant) -> Renewal {
        let mut instances = self.lock();
        let instance = instances.entry(instance.clone()).or_insert_with(Instance::unborn);
        if matches!(instance.life, Life::Dead) {
            return Renewal::Dead;
        }
        instance.life = Life::Leased { until: now + lease };
        Renewal::Alive
    }

    pub(super) fn resign(&self, instance: &InstanceId) {
        let mut instances = self.lock();
        if instances.get(instance).is_some_and(|instance| !matches!(instance.life, Life::Dead)) {
            instances.remove(instance);
        }
    }

    /// Whom `by` finds dead: absent twice, half a second apart. The dead are found again while
    /// they have runs, for whoever found them first may have died as well.
    pub(super) fn sweep(&self, by: &InstanceId, now: Instant) -> Vec<DeadInstance> {
        let mut dead = Vec::new();
        for (id, instance) in self.lock().iter_mut().filter(|(id, _)| *id != by) {
            let found = match instance.life {
                Life::Leased { until } if until < now => {
                    instance.life = Life::Absent { since: now };
                    false
                }
                Life::Absent { since } if now - since >= TWICE_APART => {
                    instance.life = Life::Dead;
                    true
                }
                Life::Dead => !instance.runs.is_empty(),
                Life::Unborn | Life::Leased { .. } | Life::Absent { .. } => false,
            };
            if found {
                dead.push(DeadInstance { instance: id.clone(), runs: instance.runs.iter().cloned().collect() });
            }
        }
        dead
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, Instance>> {
        // No operation panics halfway.
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instance {
    fn unborn() -> Self {
        Instance { life: Life::Unborn, runs: BTreeSet::new() }
    }
}
