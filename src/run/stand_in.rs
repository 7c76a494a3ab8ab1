//! What control does with what the lease brings; until it is there, this.

use crate::log::{Command, START_WITHIN, Starts};
use crate::run::Runs;
use crate::run::takeover::definite;
use crate::session::SessionId;

impl Runs {
    /// Does what this instance is told to.
    pub(super) fn obey(&self, command: Command) {
        let Command::Cancel { session, run, .. } = command;
        tracing::debug!(%session, %run, "told to cancel");
    }

    /// A run of the session has ended: others that wait may start.
    pub(super) async fn freed(&self, session: &SessionId) {
        let instance = self.instance();
        let Starts { yours, .. } = definite(|| self.log.start_queued(session, &instance, START_WITHIN)).await;
        tracing::debug!(%session, runs = yours.len(), "runs may start");
    }
}
