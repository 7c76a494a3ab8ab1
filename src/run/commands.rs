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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::watch;
    use tokio::time::timeout;

    use super::*;
    use crate::log::commands;
    use crate::log::scripted::{Scripted, now};

    use crate::run::fixtures::runs_on;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn an_instance_that_starts_over_hears_what_is_said_to_its_new_life() {
        let log = Arc::new(Scripted::default());
        let (said, mut listening) = watch::channel(None);
        log.commands.answers(move |instance| {
            let (sender, commands) = commands(1);
            said.send_replace(Some((instance, sender)));
            now(commands)
        });
        let runs = runs_on(log, PATIENCE);
        let hearing = tokio::spawn({
            let runs = runs.clone();
            async move { hear(&runs).await }
        });
        for life in 0..2 {
            let instance = runs.instance();
            let ours = |said: &Option<(InstanceId, _)>| said.as_ref().is_some_and(|(id, _)| *id == instance);
            let heard = timeout(PATIENCE, listening.wait_for(ours)).await;
            assert!(heard.is_ok(), "nobody listens in life {life}");
            drop(heard);
            if life == 0 {
                runs.start_over();
            }
        }
        runs.interrupt();
        timeout(PATIENCE, hearing).await.expect("it listens on though the process leaves").unwrap();
    }
}
