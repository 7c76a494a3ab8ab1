//! Leases of instances, in memory.
//!
//! Only one process uses an embedded log, so that its own instance is the only one, and a restart
//! ends all runs anyway. The rules are still those of the contract, so that nothing above the log
//! has to know which store it runs on.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::log::{
    COMMANDS_WAITING, Command, CommandSender, Commands, DeadInstance, Renewal, Unavailable, commands as channel,
};
use crate::random;
use crate::session::{InstanceId, RunId, SessionId};

/// Commands that wait in the channel of a listener; more come with its next renewal.
const LISTENER: usize = 256;

/// How far apart an instance must have been absent twice to be dead.
const TWICE_APART: Duration = Duration::from_millis(500);

/// The instances and their leases.
pub(super) struct Leases {
    instances: Mutex<HashMap<InstanceId, Instance>>,
}

struct Instance {
    life: Life,
    runs: BTreeSet<(SessionId, RunId)>,
    /// Commands that nobody was handed yet.
    waiting: VecDeque<Command>,
    listener: Option<CommandSender>,
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
    /// No instance lives yet; what an earlier process left in queues is on the list of one that is
    /// dead, so that whoever sweeps first looks after it.
    pub(super) fn after(stranded: Vec<(SessionId, RunId)>) -> Self {
        let mut instances = HashMap::new();
        if !stranded.is_empty() {
            let dead = Instance { life: Life::Dead, runs: stranded.into_iter().collect(), ..Instance::unborn() };
            instances.insert(InstanceId::from_random(random::u128()), dead);
        }
        Leases { instances: Mutex::new(instances) }
    }

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

    pub(super) fn is_listed(&self, session: &SessionId, run: &RunId) -> bool {
        let member = (session.clone(), run.clone());
        self.lock().values().any(|instance| instance.runs.contains(&member))
    }

    pub(super) fn renew(&self, instance: &InstanceId, lease: Duration, now: Instant) -> Renewal {
        let mut instances = self.lock();
        let instance = instances.entry(instance.clone()).or_insert_with(Instance::unborn);
        if matches!(instance.life, Life::Dead) {
            return Renewal::Dead;
        }
        instance.life = Life::Leased { until: now + lease };
        Renewal::Alive { commands: instance.waiting.drain(..).collect() }
    }

    /// Hands a command to the instance's listener, or keeps it for the next renewal.
    pub(super) fn command(&self, instance: &InstanceId, command: Command) -> Result<bool, Unavailable> {
        let mut instances = self.lock();
        let instance = instances.entry(instance.clone()).or_insert_with(Instance::unborn);
        if matches!(instance.life, Life::Dead) {
            return Ok(false);
        }
        if instance.listener.as_ref().is_some_and(|listener| listener.send(command.clone())) {
            return Ok(true);
        }
        if instance.waiting.len() >= COMMANDS_WAITING {
            return Err(Unavailable::new("too many commands wait for the instance"));
        }
        instance.waiting.push_back(command);
        Ok(true)
    }

    /// Hears the instance's commands from now on; an earlier listener hears no more.
    pub(super) fn listen(&self, instance: &InstanceId) -> Commands {
        let (sender, commands) = channel(LISTENER);
        self.lock().entry(instance.clone()).or_insert_with(Instance::unborn).listener = Some(sender);
        commands
    }

    /// Ends all listening.
    pub(super) fn end(&self) {
        self.lock().values_mut().for_each(|instance| instance.listener = None);
    }

    pub(super) fn resign(&self, instance: &InstanceId) {
        let mut instances = self.lock();
        if instances.get(instance).is_some_and(|instance| !matches!(instance.life, Life::Dead)) {
            instances.remove(instance);
        }
    }

    /// Whom nobody here knows, an earlier process was, or one that has resigned.
    pub(super) fn is_dead(&self, instance: &InstanceId) -> bool {
        self.lock().get(instance).is_none_or(|instance| matches!(instance.life, Life::Dead))
    }

    /// Whom `by` finds dead: absent twice, half a second apart. The dead are found again while
    /// they have runs, for whoever found them first may have died as well.
    pub(super) fn sweep(&self, by: &InstanceId, now: Instant) -> Vec<DeadInstance> {
        let mut dead = Vec::new();
        for (id, instance) in self.lock().iter_mut().filter(|(id, _)| *id != by) {
            let found = match instance.life {
                Life::Leased { until } if now <= until => false,
                Life::Leased { .. } | Life::Unborn => {
                    instance.life = Life::Absent { since: now };
                    false
                }
                Life::Absent { since } if now - since >= TWICE_APART => {
                    instance.life = Life::Dead;
                    true
                }
                Life::Dead => !instance.runs.is_empty(),
                Life::Absent { .. } => false,
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
        Instance { life: Life::Unborn, runs: BTreeSet::new(), waiting: VecDeque::new(), listener: None }
    }
}
