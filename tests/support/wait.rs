//! Waiting: for what must happen, with a cap that only a defect reaches.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Far longer than anything takes on a machine that is busy with other tests; longer than the
/// heartbeat.
const PATIENCE: Duration = Duration::from_secs(40);

/// Between two looks at a condition that cannot be waited on.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What `future` brings; fails with the words of `what` where it does not come.
pub(crate) async fn within<F: Future>(what: impl Display, future: F) -> F::Output {
    match timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {} s for {what}", PATIENCE.as_secs()),
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: impl Display, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    within(what, asking).await
}
