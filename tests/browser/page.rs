//! The demo page in a browser, read through what it shows and through `window.sidestreamDemo`.

use std::cell::RefCell;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{Sidecar, SidecarOptions, until};
use crate::webdriver::Browser;

/// What the page knows.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) session: String,
    pub(crate) state: String,
    pub(crate) connections: u32,
    pub(crate) entries: u64,
    pub(crate) missing: u64,
    pub(crate) duplicated: u64,
    pub(crate) replayed: u64,
    pub(crate) offsets: Vec<String>,
    pub(crate) runs: Vec<Run>,
    /// What this device is called.
    pub(crate) name: String,
    pub(crate) here: Vec<Here>,
    pub(crate) waiting: Vec<Waiting>,
    /// What it has asked the sidecar for and got no answer to.
    pub(crate) unanswered: u32,
}

/// A device that is here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Here {
    pub(crate) client: String,
    pub(crate) doing: String,
}

/// A question that waits its turn.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) question: Option<String>,
}

/// One answer as the page shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Run {
    pub(crate) run: Option<String>,
    pub(crate) state: String,
    pub(crate) question: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) parent: Option<String>,
    pub(crate) text: String,
    pub(crate) trouble: String,
}

/// A sidecar that serves the page, with the configuration that the demo has.
pub(crate) fn sidecar_with_page(upstream: &str) -> SidecarOptions {
    Sidecar::of(upstream).config("[server]\ndemo = true").config(include_str!("../../demo/sidestream.toml"))
}

/// Opens the page.
pub(crate) async fn open(browser: &Browser, sidecar: &Sidecar) -> Seen {
    browser.open(&format!("{}/_sidestream/demo", sidecar.url())).await;
    seen(browser, "is attached", |seen| seen.state == "live").await
}

/// Opens the page at a session, as whoever was sent its address.
pub(crate) async fn open_at(browser: &Browser, sidecar: &Sidecar, session: &str) -> Seen {
    browser.open(&format!("{}/_sidestream/demo#{session}", sidecar.url())).await;
    seen(browser, "is attached", |seen| seen.state == "live").await
}

/// Asks as a person does, for an answer of about `rate` events a second.
pub(crate) async fn ask(browser: &Browser, question: &str, rate: u32) {
    browser.script(&format!("document.getElementById('rate').options[0].value = '{rate}'")).await;
    browser.type_into("#message", question).await;
    browser.click("form [type=submit]").await;
}

/// Waits until the page in the current tab is as `is` says.
pub(crate) async fn seen(browser: &Browser, what: &str, is: impl Fn(&Seen) -> bool) -> Seen {
    let awaited = Awaited { what, last: RefCell::default() };
    until(&awaited, async || {
        let now = browser.script("return window.sidestreamDemo").await;
        let seen = serde_json::from_value::<Seen>(now.clone()).ok().filter(&is);
        awaited.last.replace(now);
        seen
    })
    .await
}

/// What is waited for, and what there was instead.
struct Awaited<'a> {
    what: &'a str,
    last: RefCell<Value>,
}

impl fmt::Display for &Awaited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a page that {}; the last look was {}", self.what, self.last.borrow())
    }
}

impl Seen {
    /// Fails unless the view is an exact slice of the log from its first entry on.
    pub(crate) fn assert_exact(&self) {
        assert_eq!((self.missing, self.duplicated), (0, 0), "{self:?}");
        let seqs = self.offsets.iter().map(|offset| offset.rsplit_once('-').unwrap().1.parse().unwrap());
        assert_eq!(seqs.collect::<Vec<u64>>(), (1..=self.entries).collect::<Vec<_>>());
    }

    /// The only answer.
    pub(crate) fn only_run(&self) -> &Run {
        assert_eq!(self.runs.len(), 1, "{:?}", self.runs);
        &self.runs[0]
    }

    /// Whether all answers have come to this state.
    pub(crate) fn all(&self, state: &str) -> bool {
        !self.runs.is_empty() && self.runs.iter().all(|run| run.state == state)
    }
}

impl Run {
    /// The digest of the text, as the recordings' index has it.
    pub(crate) fn text_sha256(&self) -> String {
        Sha256::digest(self.text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
