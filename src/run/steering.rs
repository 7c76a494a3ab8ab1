//! Steering a run whose upstream has a call for that, at its owner: the call, then the receipt.

use serde_json::json;

use crate::log::SteerOrder;
use crate::run::{CallFailed, Driven, SideAnswer};
use crate::session::{Kind, Record};

/// Calls the upstream and writes the receipt into the run. An order that comes twice is done once.
pub(super) async fn steer(driven: Driven, order: SteerOrder) {
    let SteerOrder { run, receipt, client, body, .. } = order;
    if !driven.first_order(&receipt) {
        return;
    }
    let answer = match driven.steering() {
        Some((call, values)) => call.make(values, Some(body.into_bytes())).await,
        None => Err(CallFailed { reason: "not_configured" }),
    };
    let (event, mut data) = match answer {
        Ok(SideAnswer { status, body }) => {
            let mut data = json!({"status": status});
            let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            if let Some(consumed) = said["consumed"].as_bool() {
                data["consumed"] = consumed.into();
            }
            (if (200..300).contains(&status) { "forwarded" } else { "rejected" }, data)
        }
        Err(failed) => ("rejected", json!({"reason": failed.reason})),
    };
    data["receipt"] = (*receipt).into();
    let record = Record {
        kind: Kind::Steer,
        run: Some(run),
        source: Some(client),
        event: Some(event.into()),
        id: None,
        data: data.to_string().into(),
    };
    // A run that has ended takes no receipt; who waits for one sees its terminal.
    driven.note(record).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::sync::{oneshot, watch};
    use tokio::time::timeout;

    use super::*;
    use crate::log::scripted::{Scripted, now};
    use crate::log::{Append, Appended, Opened, RunFlags};
    use crate::run::fixtures::{runs_on, spec};

    use crate::run::Call;
    use crate::session::{Offset, RunId};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// The symptom: the upstream took what it was steered by, then ended, and there was no receipt.
    #[tokio::test]
    async fn a_receipt_that_is_there_when_the_upstream_ends_comes_before_the_terminal() {
        for _ in 0..20 {
            let log = Arc::new(Scripted::default());
            log.open_run.answers(|_| now(Opened::Open { started: Offset::new(1, 1), flags: RunFlags::default() }));
            log.run.answers(|_| now(None));
            let (kept, mut appends) = watch::channel(Vec::new());
            log.append.answers(move |append: Append| {
                kept.send_modify(|kept: &mut Vec<_>| kept.extend(append.records.iter().map(|record| record.kind)));
                let (first, flags) = (Offset::new(1, 2), RunFlags::default());
                now(Appended::Stored { first, last: first, flags, next: None })
            });
            let (runs, run) = (runs_on(log, PATIENCE), RunId::from_random(7));
            let (end, ends) = oneshot::channel::<()>();
            let call: Call = Box::new(|| {
                async {
                    let _ = ends.await;
                    Err(crate::run::CallFailed { reason: "over" })
                }
                .boxed()
            });
            runs.open(spec(&run, PATIENCE), call).unwrap().await.unwrap();
            let receipt = Record {
                kind: Kind::Steer,
                run: Some(run.clone()),
                source: None,
                event: None,
                id: None,
                data: "{}".into(),
            };
            runs.driven(&run).unwrap().note(receipt).await;
            end.send(()).unwrap();
            let ended = timeout(PATIENCE, appends.wait_for(|kinds| kinds.contains(&Kind::Run))).await;
            let kinds = ended.expect("it ends").unwrap().clone();
            assert_eq!(kinds, [Kind::Steer, Kind::Run]);
        }
    }
}
