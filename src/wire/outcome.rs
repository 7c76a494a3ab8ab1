//! What live control and publishing came to: the members of an `ack`, and the JSON body of the answer over HTTP.

use bytestring::ByteString;

use crate::session::{Offset, RunId, SessionId};

/// What a message came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Of a `send`.
    Sent {
        /// Where the run is.
        session: SessionId,
        /// Which run.
        run: RunId,
        /// The run's `started` entry, once there is one.
        offset: Option<Offset>,
        /// What became of it.
        outcome: Sent,
        /// The runs that were cancelled for it.
        interrupted: Vec<RunId>,
    },
    /// Of a `cancel`: each run that it meant.
    Cancelled(Vec<CancelledRun>),
    /// Of a `cancel` with the key of a `send` that has not come: it will not begin.
    CancelledAhead,
    /// Of a `steer`.
    Steered {
        /// What became of it.
        outcome: Steered,
        /// The run that was steered, or that began instead.
        run: RunId,
        /// The id that the receipt in the log carries, where there will be one.
        receipt: Option<String>,
    },
    /// The answer to `queue`.
    Queue(Vec<QueuedItem>),
    /// Of a `publish`: the entry; of a `read`: where the user's cursor is now.
    At(Offset),
}

/// What became of a `send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Its run is open.
    Started,
    /// It waits its turn, at this place of its route.
    Queued(u64),
    /// It was cancelled before it began.
    Cancelled,
    /// An earlier one with the same key has begun this run.
    Joined,
}

/// What became of a `steer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steered {
    /// The upstream was told.
    Forwarded,
    /// It begins when the run has ended.
    Queued,
    /// The run was cancelled, and another has begun.
    Interrupted,
    /// The route does not steer, or the upstream refused.
    Rejected,
}

/// One run of a `cancel`.
#[derive(Clone, Debug, PartialEq)]
pub struct CancelledRun {
    /// Which.
    pub run: RunId,
    /// `cancelled`, `already_ended`, `withdrawn` (it waited, and never will begin) or `not_found`.
    pub outcome: &'static str,
    /// Its terminal.
    pub offset: Option<Offset>,
    /// What is known of its upstream connection, where it was cancelled.
    pub upstream: Option<Upstream>,
}

/// What is known of the upstream connection of a cancelled run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// Its owner has closed it.
    Closed,
    /// Its owner was dead, and its run was taken over.
    Unknown,
}

/// A `send` that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct QueuedItem {
    /// Its key, by which it can be withdrawn.
    pub key: Option<ByteString>,
    /// The run that it will be.
    pub run: RunId,
    /// Its size.
    pub bytes: u64,
    /// Who sent it.
    pub client: Option<ByteString>,
    /// Its place among those of its route, from 1.
    pub position: u64,
    /// What other devices will see of it when it begins: a JSON value.
    pub input: Option<ByteString>,
}

impl Outcome {
    /// The `outcome` of a `send` or a `steer`, which is one of a few words.
    pub fn word(&self) -> Option<&'static str> {
        match self {
            Outcome::Sent { outcome, .. } => Some(outcome.as_str()),
            Outcome::Steered { outcome, .. } => Some(outcome.as_str()),
            Outcome::Cancelled(_) | Outcome::CancelledAhead | Outcome::Queue(_) | Outcome::At(_) => None,
        }
    }

    /// The outcome as a JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::json;
        match self {
            Outcome::Sent { session, run, offset, outcome, interrupted } => {
                let mut members = json!({
                    "session": session.as_str(),
                    "run": run.as_str(),
                    "outcome": outcome.as_str(),
                });
                if let Some(offset) = offset {
                    members["offset"] = offset.to_string().into();
                }
                if let Sent::Queued(position) = outcome {
                    members["position"] = (*position).into();
                }
                if !interrupted.is_empty() {
                    members["interrupted"] = interrupted.iter().map(RunId::as_str).collect();
                }
                members
            }
            Outcome::Cancelled(runs) => {
                let of = |wanted: &str| runs.iter().any(|run| run.outcome == wanted);
                let outcome = match () {
                    () if of("cancelled") || of("withdrawn") => "cancelled",
                    () if of("already_ended") => "already_ended",
                    () => "not_found",
                };
                let mut members =
                    json!({"outcome": outcome, "runs": runs.iter().map(CancelledRun::to_json).collect::<Vec<_>>()});
                let known = runs.iter().filter_map(|run| run.upstream).reduce(|all, one| match (all, one) {
                    (Upstream::Closed, Upstream::Closed) => Upstream::Closed,
                    _ => Upstream::Unknown,
                });
                if let Some(upstream) = known {
                    members["upstream"] = upstream.as_str().into();
                }
                members
            }
            Outcome::CancelledAhead => json!({"outcome": "cancelled", "runs": []}),
            Outcome::Steered { outcome, run, receipt } => {
                let mut members = json!({"outcome": outcome.as_str(), "run": run.as_str()});
                if let Some(receipt) = receipt {
                    members["receipt"] = receipt.as_str().into();
                }
                members
            }
            Outcome::At(offset) => json!({"offset": offset.to_string()}),
            Outcome::Queue(items) => json!({"items": items.iter().map(QueuedItem::to_json).collect::<Vec<_>>()}),
        }
    }
}

impl CancelledRun {
    fn to_json(&self) -> serde_json::Value {
        let mut members = serde_json::json!({"run": self.run.as_str(), "outcome": self.outcome});
        if let Some(offset) = self.offset {
            members["offset"] = offset.to_string().into();
        }
        if let Some(upstream) = self.upstream {
            members["upstream"] = upstream.as_str().into();
        }
        members
    }
}

impl QueuedItem {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "key": self.key.as_deref(),
            "run": self.run.as_str(),
            "bytes": self.bytes,
            "client": self.client.as_deref(),
            "position": self.position,
            "input": self.input.as_deref().and_then(|input| serde_json::from_str::<serde_json::Value>(input).ok()),
        })
    }
}

impl Sent {
    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Sent::Started => "started",
            Sent::Queued(_) => "queued",
            Sent::Cancelled => "cancelled",
            Sent::Joined => "joined",
        }
    }
}

impl Steered {
    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Steered::Forwarded => "forwarded",
            Steered::Queued => "queued",
            Steered::Interrupted => "interrupted",
            Steered::Rejected => "rejected",
        }
    }
}

impl Upstream {
    fn as_str(self) -> &'static str {
        match self {
            Upstream::Closed => "closed",
            Upstream::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(outcome: &'static str, upstream: Option<Upstream>) -> CancelledRun {
        CancelledRun { run: RunId::from_random(1), outcome, offset: None, upstream }
    }

    #[test]
    fn a_cancel_is_summed_up_by_what_was_done() {
        let summed = |runs: &[CancelledRun]| {
            let json = Outcome::Cancelled(runs.to_vec()).to_json();
            (json["outcome"].as_str().unwrap().to_owned(), json["upstream"].as_str().map(str::to_owned))
        };
        let (closed, unknown) = (Some(Upstream::Closed), Some(Upstream::Unknown));
        assert_eq!(summed(&[]), ("not_found".into(), None));
        assert_eq!(summed(&[run("already_ended", None)]), ("already_ended".into(), None));
        assert_eq!(summed(&[run("already_ended", None), run("cancelled", closed)]).0, "cancelled");
        assert_eq!(summed(&[run("cancelled", closed), run("cancelled", unknown)]).1.as_deref(), Some("unknown"));
    }
}
