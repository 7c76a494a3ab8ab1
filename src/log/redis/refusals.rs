//! A server that answers, and does not take what is written: full, without the replicas that it (or `store.ack`)
//! insists on, or with a disk that it cannot save to. Everybody waits then and nothing is away, so somebody has to say it.
//!
//! Must never: decide what becomes of a call; hold a payload (the server's reasons have none).

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::deployment::Address;

/// Who has refused nothing for so long refuses nothing any more, or is not asked.
const OVER: Duration = Duration::from_secs(5);
/// What lasts so long does not pass by itself.
const REMIND_FIRST: Duration = Duration::from_secs(15);
/// How often it is said again then.
const REMIND_AGAIN: Duration = Duration::from_secs(60);

/// What a refusal has in it, what is wrong then, and what to do about it.
const KINDS: [(&str, &str); 4] = [
    ("OOM ", "it is full; raise maxmemory, or lower store.ttl, store.max_entries and store.max_bytes"),
    ("NOREPLICAS ", "fewer replicas follow it than its min-replicas-to-write; attach one"),
    (
        "no replica had it",
        "no replica confirms it, which store.ack = \"replicated\" waits for; attach one, and see whether it keeps up",
    ),
    ("MISCONF ", "it cannot save to its disk; its own log says why"),
];

/// See the module.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Option<Spell>>);

/// Refusals without a pause.
struct Spell {
    began: Instant,
    newest: Instant,
    reminder: Duration,
    warning: String,
}

/// What is to be said of a refusal.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Begun,
    Lasting,
    None,
}

impl Refusals {
    /// Hears what the server at `address` has said to a call, and tells the operator where it is a refusal to write.
    pub(super) fn hear(&self, address: &Address, said: &str) {
        let Some((_, advice)) = KINDS.iter().find(|(kind, _)| said.contains(kind)) else { return };
        let warning = || format!("the Redis server at {address} does not take what is written: {advice}");
        match self.note(warning, Instant::now()) {
            News::Begun => tracing::warn!(reason = said, "{}; active runs wait", warning()),
            News::Lasting => tracing::error!(
                reason = said,
                "{}; runs are kept in memory alone and give up after store.outage_limit",
                warning()
            ),
            News::None => {}
        }
    }

    /// What the server refuses now.
    pub(super) fn warning(&self) -> Option<String> {
        let spell = self.0.lock().ok()?;
        spell.as_ref().filter(|spell| spell.newest.elapsed() < OVER).map(|spell| spell.warning.clone())
    }

    /// Tells the operator, once, that it is over. To be called now and then.
    pub(super) fn look(&self, address: &Address) {
        let Ok(mut spell) = self.0.lock() else { return };
        if let Some(over) = spell.take_if(|spell| spell.newest.elapsed() >= OVER) {
            let lasted_s = over.newest.duration_since(over.began).as_secs();
            tracing::info!(%address, lasted_s, "the Redis server takes what is written again, or nobody writes");
        }
    }

    fn note(&self, warning: impl FnOnce() -> String, now: Instant) -> News {
        let Ok(mut spell) = self.0.lock() else { return News::None };
        match &mut *spell {
            Some(spell) if now.duration_since(spell.newest) < OVER => {
                spell.newest = now;
                let lasts = now.duration_since(spell.began);
                if lasts < spell.reminder {
                    return News::None;
                }
                spell.reminder = lasts + REMIND_AGAIN;
                News::Lasting
            }
            spell => {
                *spell = Some(Spell { began: now, newest: now, reminder: REMIND_FIRST, warning: warning() });
                News::Begun
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_at_once_and_then_once_a_minute_however_many_there_are() {
        let (refusals, began) = (Refusals::default(), Instant::now());
        let told = |ms: u64| refusals.note(|| "full".into(), began + Duration::from_millis(ms));
        assert_eq!(told(0), News::Begun);
        assert_eq!(refusals.warning().as_deref(), Some("full"));
        let minutes = (1..135_000).step_by(100).filter(|ms| told(*ms) == News::Lasting).count();
        assert_eq!(minutes, 2, "after 15 s and a minute later");
        assert_eq!(told(140_500), News::Begun, "another spell after a pause");
    }

    #[test]
    fn only_refusals_to_write_are_meant() {
        let (refusals, address) = (Refusals::default(), Address { host: "h".into(), port: 1 });
        refusals.hear(&address, "h:1: NOSCRIPT No matching script");
        assert_eq!(refusals.warning(), None);
        refusals.hear(&address, "h:1: OOM command not allowed when used memory > 'maxmemory'.");
        assert!(refusals.warning().is_some_and(|warning| warning.contains("raise maxmemory")));
    }
}
