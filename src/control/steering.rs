//! `steer`: gives a running run something new to work on, in the way that its route knows.

use bytestring::ByteString;
use http::Method;
use tokio::time::{Instant, timeout_at};

use crate::config::SteerPolicy;
use crate::control::request::sha256;
use crate::control::root::ANSWER_WITHIN;
use crate::control::{Client, Control};
use crate::hub::Delivery;
use crate::log::{Bounds, Command, RunInfo, SteerOrder};
use crate::run::Started;
use crate::server::Problem;
use crate::session::{After, BusyPolicy, Kind, RunId, RunState, SessionId};
use crate::telemetry::{Fact, SteerAnswered};
use crate::wire::{Code, Outcome, RunName, SendRun, Sent, Steer, Steered};

/// The largest body that is forwarded to a running run: it travels to the run's owner.
const STEER_BYTES: usize = 64 << 10;

impl Control {
    /// Steers a run. Like [`Control::send`], it must not be abandoned halfway.
    ///
    /// # Errors
    /// No such run is active; the upstream refuses; the store is away.
    pub async fn steer(&self, client: &Client, steer: Steer) -> Result<Outcome, Problem> {
        let session = steer.session.clone();
        let answer = self.given(client, steer).await;
        let outcome = answer.as_ref().ok().and_then(Outcome::word);
        SteerAnswered { session: &session, client: &client.name, outcome }.emit(&self.metrics);
        answer
    }

    async fn given(&self, client: &Client, steer: Steer) -> Result<Outcome, Problem> {
        let (info, repeated) = self.aimed(&steer).await?;
        let head = self.log.entry(&steer.session, info.started).await.map_err(Problem::store_unavailable)?;
        let head = head.map(|entry| Started::parse(&entry.record.data)).unwrap_or_default();
        let method = head.method.parse().unwrap_or(Method::POST);
        let policy = self.routes.steering(self.routes.of(&method, &head.path, None));
        let (outcome, on_busy) = match policy {
            SteerPolicy::Forward(_) => return self.forward(client, steer, info, repeated).await,
            SteerPolicy::Reject => {
                return Ok(Outcome::Steered { outcome: Steered::Rejected, run: info.run, receipt: None });
            }
            SteerPolicy::Queue => (Steered::Queued, BusyPolicy::Queue),
            SteerPolicy::Interrupt => (Steered::Interrupted, BusyPolicy::Parallel),
        };
        let send = SendRun {
            session: Some(steer.session),
            body: steer.body,
            method: Some(head.method),
            path: Some(head.path),
            headers: Vec::new(),
            key: steer.key,
            on_busy: Some(on_busy),
            source: None,
            parent: None,
        };
        let instead_of = (outcome == Steered::Interrupted).then_some(&info.run);
        match self.sent(client, send, instead_of).await? {
            Outcome::Sent { run, outcome: Sent::Cancelled, .. } => {
                Ok(Outcome::Steered { outcome: Steered::Rejected, run, receipt: None })
            }
            Outcome::Sent { run, .. } => Ok(Outcome::Steered { outcome, run, receipt: None }),
            other => Ok(other),
        }
    }

    /// The run that is meant, and whether an equal `steer` with this key has come before. A repeat means
    /// the run that the first one meant, whatever is active now and even if that one has ended: `active`
    /// may be the very run that the first one began.
    async fn aimed(&self, steer: &Steer) -> Result<(RunInfo, bool), Problem> {
        let found = self.steered(steer).await;
        let Some(key) = &steer.key else { return found.map(|info| (info, false)) };
        let name = format!("steer\nsession {}\n{key}", steer.session);
        let digest = match &steer.run {
            RunName::Id(run) => sha256(&format!("{run}\n{}", steer.body)),
            RunName::Active => sha256(&format!("active\n{}", steer.body)),
        };
        // Where nothing can be steered only a repeat is of interest: the claim is given back.
        let run = found.as_ref().map_or_else(|_| RunId::from_random(crate::random::u128()), |info| info.run.clone());
        // Two that mean the same run are told apart.
        let nonce = format!("{:032x}", crate::random::u128());
        let key = self.claim(name, &steer.session, &run, digest, &nonce).await?;
        match found {
            found if key.is_taken => {
                let first = self.log.run(&key.session, &key.run).await.map_err(Problem::store_unavailable)?;
                first.map_or(found, Ok).map(|info| (info, true))
            }
            Ok(info) => Ok((info, false)),
            Err(problem) => {
                // Left behind it names a run that nobody has, which a repeat takes for none.
                let _ = key.free(&*self.log).await;
                Err(problem)
            }
        }
    }

    /// The run that is meant, which is active: the newest root, where it is not named.
    async fn steered(&self, steer: &Steer) -> Result<RunInfo, Problem> {
        let session = &steer.session;
        match &steer.run {
            RunName::Id(run) => {
                let info = self.log.run(session, run).await.map_err(Problem::store_unavailable)?;
                let info = info.ok_or_else(|| Problem::new(Code::NotFound, "there is no such run in this session"))?;
                match info.ended {
                    None => Ok(info),
                    Some((_, state)) => {
                        let detail = format!("the run has ended ({state}); begin another with `send`");
                        Err(Problem::new(Code::Conflict, detail))
                    }
                }
            }
            RunName::Active => {
                let active = match self.log.bounds(session).await.map_err(Problem::store_unavailable)? {
                    Bounds::Live(bounds) => bounds.active,
                    Bounds::Expired { .. } => Vec::new(),
                    Bounds::Erased | Bounds::NotFound => {
                        return Err(Problem::new(Code::NotFound, "there is no such session"));
                    }
                };
                let root = active.iter().rfind(|run| run.parent.is_none()).or(active.last()).cloned();
                root.ok_or_else(|| Problem::new(Code::Conflict, "no run is active; begin one with `send`"))
            }
        }
    }

    /// Has the run's owner call the upstream, whose backend holds the run, and waits for its receipt.
    /// What is `repeated` may have its receipt already; the owner does an order once.
    async fn forward(&self, client: &Client, steer: Steer, info: RunInfo, repeated: bool) -> Result<Outcome, Problem> {
        if steer.body.len() > STEER_BYTES {
            return Err(Problem::new(Code::TooLarge, format!("a `steer` may have {STEER_BYTES} bytes")));
        }
        let deadline = Instant::now() + ANSWER_WITHIN;
        let unconfirmed = || Problem::new(Code::NotConfirmed, "the run's owner has not confirmed in time");
        let (session, run) = (steer.session, info.run);
        let after = if repeated { After::Offset(info.started) } else { After::End };
        let subscription = self.hub.subscribe(&session, after, false).await;
        let mut cursor = subscription.map_err(Problem::store_unavailable)?.cursor;
        let receipt = match &steer.key {
            Some(key) => sha256(&format!("{run}\n{key}"))[..32].to_owned(),
            None => format!("{:032x}", crate::random::u128()),
        };
        let order = SteerOrder {
            session: session.clone(),
            run: run.clone(),
            receipt: receipt.clone().into(),
            client: client.name.clone(),
            body: steer.body,
        };
        let heard = match info.ended {
            None => self.log.command(&info.owner, Command::Steer(order)).await.map_err(Problem::store_unavailable)?,
            Some(_) => false,
        };
        if !heard && !repeated {
            return Err(Problem::new(Code::Conflict, "the run's owner is gone; the run is about to end"));
        }
        loop {
            let items = match timeout_at(deadline, cursor.next()).await.map_err(|_| unconfirmed())? {
                Delivery::Items(items) => items,
                Delivery::Live(_) | Delivery::News(_) | Delivery::Whole(_) => continue,
                Delivery::Gap(_) | Delivery::Erased => return Err(unconfirmed()),
            };
            for record in items.iter().map(|item| &item.entry().record).filter(|r| r.run.as_ref() == Some(&run)) {
                let ours = record.kind == Kind::Steer && receipt_of(&record.data).as_deref() == Some(&*receipt);
                if ours {
                    let forwarded = record.event.as_deref() == Some(Steered::Forwarded.as_str());
                    let outcome = if forwarded { Steered::Forwarded } else { Steered::Rejected };
                    return Ok(Outcome::Steered { outcome, run, receipt: Some(receipt) });
                }
                if record.state().and_then(RunState::terminal).is_some() {
                    return Err(ended_first(&session));
                }
            }
        }
    }
}

fn receipt_of(data: &str) -> Option<ByteString> {
    let data: serde_json::Value = serde_json::from_str(data).ok()?;
    Some(data["receipt"].as_str()?.into())
}

fn ended_first(session: &SessionId) -> Problem {
    Problem::new(Code::Conflict, "the run ended first; begin another with `send`").with("session", session.as_str())
}
