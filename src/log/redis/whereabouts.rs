//! Where the server of a node is: always at one address, or wherever sentinels say.

use std::time::Duration;

use super::deployment::Address;
use super::sentinel::Sentinels;
use super::server::NoServer;
use super::target::Target;

/// How often sentinels are asked whether the primary is another: what is written to one that was replaced is lost
/// with it, and sent again by its owners.
const ASK_SENTINELS_EVERY: Duration = Duration::from_millis(500);

/// Where a node's server is.
pub(super) enum Whereabouts {
    /// Always here.
    At(Address),
    /// Wherever sentinels say.
    Named(Sentinels),
}

impl From<Address> for Whereabouts {
    fn from(address: Address) -> Self {
        Whereabouts::At(address)
    }
}

impl Whereabouts {
    /// Where the server is now.
    pub(super) async fn find(&self, target: &Target) -> Result<Address, NoServer> {
        match self {
            Whereabouts::At(address) => Ok(address.clone()),
            Whereabouts::Named(sentinels) => sentinels.primary(target).await,
        }
    }

    /// Until the server is known to be elsewhere than at `address`; says where.
    pub(super) async fn leave(&self, address: &Address, target: &Target) -> Address {
        match self {
            Whereabouts::At(_) => std::future::pending().await,
            Whereabouts::Named(sentinels) => loop {
                tokio::time::sleep(ASK_SENTINELS_EVERY).await;
                if let Some(primary) = sentinels.elsewhere(target, address).await {
                    return primary;
                }
            },
        }
    }
}
