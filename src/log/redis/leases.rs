//! Instances: who is alive, what each drives, and who has died. All times are the server's.

use std::time::Duration;

use redis::Cmd;

use super::RedisLog;
use super::commands::COMMAND_TTL_MS;
use super::fields::unexpected;
use super::link::Lane;
use crate::log::{DeadInstance, Renewal, Unavailable};
use crate::session::{InstanceId, RunId, SessionId};

/// What is kept of an instance outlives its sessions by this.
const MARGIN: Duration = Duration::from_secs(60);

impl RedisLog {
    pub(super) async fn do_enlist(
        &self,
        instance: &InstanceId,
        session: &SessionId,
        run: &RunId,
    ) -> Result<bool, Unavailable> {
        let lua = &self.servers.scripts().enlist;
        let mut command = lua.call(&self.instance_keys(instance).each_ref().map(String::as_str), (3, 256));
        command.arg(instance.as_str()).arg(member(session, run)).arg(self.keep_ms());
        let listed: u8 = self.servers.script(self.keys.instances_slot(), lua, &command).await?;
        Ok(listed == 1)
    }

    pub(super) async fn do_unlist(
        &self,
        instance: &InstanceId,
        session: &SessionId,
        run: &RunId,
    ) -> Result<(), Unavailable> {
        let command = Cmd::new().arg("SREM").arg(self.keys.runs(instance)).arg(member(session, run)).take();
        self.servers.command(self.keys.instances_slot(), Lane::Writes, &command).await
    }

    pub(super) async fn do_is_listed(
        &self,
        instance: &InstanceId,
        session: &SessionId,
        run: &RunId,
    ) -> Result<bool, Unavailable> {
        let (all, member) = (self.keys.all_instances(), member(session, run));
        let mut pipeline = redis::pipe();
        pipeline.cmd("SISMEMBER").arg(self.keys.runs(instance)).arg(&member);
        pipeline.cmd("ZRANGE").arg(&all).arg(0).arg(-1);
        let (listed, instances): (bool, Vec<String>) =
            self.servers.pipeline(self.keys.instances_slot(), Lane::Writes, &pipeline).await?;
        // A list of an instance that is not among all of them is found by nobody.
        if listed && instances.iter().any(|id| id == instance.as_str()) {
            return Ok(true);
        }
        let others: Vec<InstanceId> = instances.iter().filter_map(|id| InstanceId::from_store(id).ok()).collect();
        if others.is_empty() {
            return Ok(false);
        }
        let mut pipeline = redis::pipe();
        for other in &others {
            pipeline.cmd("SISMEMBER").arg(self.keys.runs(other)).arg(&member);
        }
        let listed: Vec<bool> = self.servers.pipeline(self.keys.instances_slot(), Lane::Writes, &pipeline).await?;
        Ok(listed.contains(&true))
    }

    pub(super) async fn do_renew(&self, instance: &InstanceId, lease: Duration) -> Result<Renewal, Unavailable> {
        let lua = &self.servers.scripts().renew;
        let mailbox = self.mailboxes.of(instance);
        let heard = mailbox.heard();
        let [alive, runs, all] = self.instance_keys(instance);
        let keys = [&*alive, &runs, &all, &self.keys.commands(instance)];
        let mut command = lua.call(&keys, (4 + heard.len(), 256 + heard.iter().map(String::len).sum::<usize>()));
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1);
        command.arg(instance.as_str()).arg(lease_ms).arg(self.keep_ms().max(lease_ms)).arg(COMMAND_TTL_MS).arg(&heard);
        let answer: Vec<String> = self.servers.script(self.keys.instances_slot(), lua, &command).await?;
        match answer.split_first() {
            Some((state, waiting)) if state == "alive" => {
                Ok(Renewal::Alive { commands: mailbox.renewed(&heard, waiting) })
            }
            Some((state, _)) if state == "dead" => {
                self.mailboxes.forget(instance);
                Ok(Renewal::Dead)
            }
            _ => Err(unexpected("the renew script")),
        }
    }

    pub(super) async fn do_resign(&self, instance: &InstanceId) -> Result<(), Unavailable> {
        let lua = &self.servers.scripts().resign;
        let mut command = lua.call(&self.instance_keys(instance).each_ref().map(String::as_str), (2, 256));
        command.arg(instance.as_str()).arg(self.keep_ms());
        self.mailboxes.forget(instance);
        self.servers.script(self.keys.instances_slot(), lua, &command).await
    }

    pub(super) async fn do_is_dead(&self, instance: &InstanceId) -> Result<bool, Unavailable> {
        let command = Cmd::new().arg("GET").arg(self.keys.alive(instance)).take();
        let state: Option<String> = self.servers.command(self.keys.instances_slot(), Lane::Writes, &command).await?;
        // Without a state it may be a living one whose lease a server that was away has lost.
        Ok(state.as_deref() == Some("dead"))
    }

    pub(super) async fn do_sweep(&self, by: &InstanceId) -> Result<Vec<DeadInstance>, Unavailable> {
        let all = self.keys.all_instances();
        let members = Cmd::new().arg("ZRANGE").arg(&all).arg(0).arg(-1).take();
        let members: Vec<String> = self.servers.command(self.keys.instances_slot(), Lane::Writes, &members).await?;
        let others: Vec<InstanceId> =
            members.iter().filter_map(|id| InstanceId::from_store(id).ok()).filter(|id| id != by).collect();
        if others.is_empty() {
            return Ok(Vec::new());
        }
        let mut keys = vec![all, self.keys.alive(by)];
        for other in &others {
            keys.push(self.keys.alive(other));
            keys.push(self.keys.runs(other));
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let lua = &self.servers.scripts().sweep;
        let mut command = lua.call(&keys, (others.len() + 1, 64 * others.len()));
        command.arg(self.keep_ms());
        for other in &others {
            command.arg(other.as_str());
        }
        let dead: Vec<Vec<String>> = self.servers.script(self.keys.instances_slot(), lua, &command).await?;
        Ok(dead.iter().filter_map(|row| dead_instance(row)).collect())
    }

    fn instance_keys(&self, instance: &InstanceId) -> [String; 3] {
        [self.keys.alive(instance), self.keys.runs(instance), self.keys.all_instances()]
    }

    fn keep_ms(&self) -> u64 {
        u64::try_from((self.options.retention.ttl + MARGIN).as_millis()).unwrap_or(u64::MAX)
    }
}

fn member(session: &SessionId, run: &RunId) -> String {
    format!("{session} {run}")
}

fn dead_instance(row: &[String]) -> Option<DeadInstance> {
    let (id, members) = row.split_first()?;
    let runs = members.iter().filter_map(|member| {
        let (session, run) = member.split_once(' ')?;
        Some((SessionId::from_store(session).ok()?, RunId::from_store(run).ok()?))
    });
    Some(DeadInstance { instance: InstanceId::from_store(id).ok()?, runs: runs.collect() })
}
