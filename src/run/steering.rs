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
