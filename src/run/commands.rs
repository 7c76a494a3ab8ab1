//! Hearing the commands for this instance as they come. What is lost on this way comes with the next
//! renewal, see `lease`.

use std::time::Duration;

use tokio::time::sleep;

use crate::run::Runs;
use crate::run::runs::Life;
use crate::session::InstanceId;

/// Before we listen again where listening failed or ended.
const AGAIN: Duration = Duration::from_millis(500);

/// Hears and obeys, in one life of this instance after the other, until it is told to leave.
pub(super) async fn hear(runs: &Runs) {
    loop {
        let Life { instance, interrupt } = runs.life();
        tokio::select! {
            () = listen(runs, &instance) => sleep(AGAIN).await,
            () = interrupt.cancelled() => {}
        }
        if interrupt.is_cancelled() && runs.instance() == instance {
            // Not the end of a life but of the process: no run is left that could be told anything.
            return;
        }
    }
}

async fn listen(runs: &Runs, instance: &InstanceId) {
    let Ok(mut commands) = runs.log.commands(instance).await else { return };
    while let Some(command) = commands.next().await {
        runs.obey(command);
    }
}
