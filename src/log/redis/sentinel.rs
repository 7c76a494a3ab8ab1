//! Where the primary is that sentinels watch over: asked before every attempt to connect, and again and again
//! while there is a connection, because a primary that was replaced may go on answering.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisError};
use tokio::time::timeout;

use super::deployment::Address;
use super::options::{RefusedStore, plain_reason};
use super::server::{NoServer, judge_sentinel, newest};
use super::target::Target;

/// How long a sentinel may take to answer, connection included.
const PATIENCE: Duration = Duration::from_millis(800);

/// The sentinels of a primary.
pub(super) struct Sentinels {
    addresses: Vec<Address>,
    master: String,
    /// The epoch of the opinion that was followed last.
    followed: AtomicU64,
    connections: Mutex<HashMap<Address, MultiplexedConnection>>,
}

/// What one sentinel knows.
#[derive(Debug, PartialEq, Eq)]
struct Opinion {
    primary: Address,
    /// Grows with every failover; sentinels that were away have an older one.
    epoch: u64,
}

impl Opinion {
    /// Whether who is at `address`, by an opinion of epoch `followed`, is to leave it.
    fn leaves(&self, address: &Address, followed: u64) -> bool {
        self.primary != *address && self.epoch >= followed
    }
}

impl Sentinels {
    /// Sentinels that call the primary `master`.
    pub(super) fn new(addresses: Vec<Address>, master: String) -> Self {
        Sentinels { addresses, master, followed: AtomicU64::new(0), connections: Mutex::default() }
    }

    /// Where the primary is, by the newest opinion of those that answer.
    ///
    /// # Errors
    /// None answers, or none knows the primary.
    pub(super) async fn primary(&self, target: &Target) -> Result<Address, NoServer> {
        let Opinion { primary, epoch } = self.newest(target).await?;
        self.followed.store(epoch, Ordering::Relaxed);
        Ok(primary)
    }

    /// Where the primary is, if not at `address`, which was the answer last. Not by an opinion that is older than that
    /// one: a sentinel that was away would have a primary left for the one before it.
    pub(super) async fn elsewhere(&self, target: &Target, address: &Address) -> Option<Address> {
        let newest = self.newest(target).await.ok()?;
        newest.leaves(address, self.followed.load(Ordering::Relaxed)).then_some(newest.primary)
    }

    async fn newest(&self, target: &Target) -> Result<Opinion, NoServer> {
        let asked = join_all(self.addresses.iter().map(|sentinel| self.ask(target, sentinel))).await;
        newest(asked, |opinion| opinion.epoch).map_err(|none| match none {
            NoServer::Away(reasons) => NoServer::Away(format!("no sentinel answers: {reasons}")),
            refused => refused,
        })
    }

    async fn ask(&self, target: &Target, sentinel: &Address) -> Result<Opinion, NoServer> {
        let answer = timeout(PATIENCE, self.opinion(target, sentinel)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(NoServer::Away(format!("{sentinel}: no answer within {PATIENCE:?}"))));
        if answer.is_err() {
            self.connections.lock().unwrap_or_else(PoisonError::into_inner).remove(sentinel);
        }
        answer
    }

    async fn opinion(&self, target: &Target, sentinel: &Address) -> Result<Opinion, NoServer> {
        let away = |error: RedisError| self.judge(sentinel, target, &error);
        let kept = self.connections.lock().unwrap_or_else(PoisonError::into_inner).get(sentinel).cloned();
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
                let client = target.sentinel(sentinel)?;
                let connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(away)?;
                let mut kept = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
                kept.insert(sentinel.clone(), connection.clone());
                connection
            }
        };
        let ask = Cmd::new().arg("SENTINEL").arg("MASTER").arg(&self.master).take();
        let fields: HashMap<String, String> = ask.query_async(&mut connection).await.map_err(away)?;
        opinion(&fields).ok_or_else(|| NoServer::Away(format!("{sentinel}: an answer that is none")))
    }

    fn judge(&self, sentinel: &Address, target: &Target, error: &RedisError) -> NoServer {
        match plain_reason(error) {
            reason if reason.contains("No such master") => {
                let (address, master) = (sentinel.to_string(), self.master.clone());
                NoServer::Refused(RefusedStore::Master { address, master })
            }
            _ => judge_sentinel(error, target, sentinel),
        }
    }
}

fn opinion(fields: &HashMap<String, String>) -> Option<Opinion> {
    let (host, port) = (fields.get("ip")?.clone(), fields.get("port")?.parse().ok()?);
    let epoch = fields.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    Some(Opinion { primary: Address { host, port }, epoch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentinel_that_missed_a_failover_leads_nobody_back() {
        let at = |port| Address { host: "127.0.0.1".into(), port };
        let opinion = |port, epoch| Opinion { primary: at(port), epoch };
        assert!(opinion(2, 7).leaves(&at(1), 6), "a failover");
        assert!(!opinion(1, 6).leaves(&at(2), 7), "one that is long over");
        assert!(!opinion(2, 7).leaves(&at(2), 7));
    }
}
