//! A headless Chromium, driven through chromedriver (W3C WebDriver). Only what the tests need, and
//! no package: the protocol is JSON over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{Ask, Process, until};

/// How long a browser may take to go when a test has ended.
const FAREWELL: Duration = Duration::from_secs(5);

/// The name under which WebDriver wraps an element's id.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Headless, no traffic of its own, and able to run as root in a container.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
];

/// A running browser with a profile of its own; gone when dropped.
pub(crate) struct Browser {
    _driver: Process,
    url: String,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// A browser, where this machine has one. `CI=true` or `SIDESTREAM_REQUIRE_BROWSER` make it an
    /// error to have none; else the test says that it was skipped.
    pub(crate) async fn start() -> Option<Self> {
        if let Some(missing) = ["chromedriver", "chromium"].into_iter().find(|program| !runs(program)) {
            let required = std::env::var_os("SIDESTREAM_REQUIRE_BROWSER").is_some()
                || std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!required, "{missing} is not installed (on Debian: apt-get install chromium chromium-driver)");
            println!("SKIPPED: {missing} is not installed (on Debian: apt-get install chromium chromium-driver)");
            return None;
        }
        let driver = Process::spawn("chromedriver", Command::new("chromedriver").arg("--port=0"));
        let port = until("chromedriver's port", async || {
            let said = driver.output();
            let (_, rest) = said.split_once("successfully on port ")?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u16>().ok()
        });
        let url = format!("http://127.0.0.1:{}", port.await);
        let profile = tempfile::tempdir().unwrap();
        let flags = FLAGS.map(str::to_owned).into_iter();
        let flags: Vec<_> = flags.chain([format!("--user-data-dir={}", profile.path().display())]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = call(&url, Method::POST, "/session", Some(wanted)).await;
        let session = session["sessionId"].as_str().unwrap().to_owned();
        Some(Browser { _driver: driver, url, session, _profile: profile })
    }

    /// Goes to a page and waits until it has loaded.
    pub(crate) async fn open(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
    }

    /// What a function body returns in the page.
    pub(crate) async fn script(&self, body: &str) -> Value {
        self.post("/execute/sync", json!({"script": body, "args": []})).await
    }

    /// Clicks what a person would click.
    pub(crate) async fn click(&self, css: &str) {
        let element = self.element(css).await;
        self.post(&format!("/element/{element}/click"), json!({})).await;
    }

    /// Types into a field.
    pub(crate) async fn type_into(&self, css: &str, text: &str) {
        let element = self.element(css).await;
        self.post(&format!("/element/{element}/value"), json!({"text": text})).await;
    }

    /// The text that is seen in an element.
    pub(crate) async fn seen(&self, css: &str) -> String {
        let element = self.element(css).await;
        self.get(&format!("/element/{element}/text")).await.as_str().unwrap().to_owned()
    }

    /// All tabs, in the order in which they were opened.
    pub(crate) async fn tabs(&self) -> Vec<String> {
        serde_json::from_value(self.get("/window/handles").await).unwrap()
    }

    /// Turns to a tab.
    pub(crate) async fn turn_to(&self, tab: &str) {
        self.post("/window", json!({"handle": tab})).await;
    }

    /// Shows the page as on a screen of this size, in CSS pixels.
    pub(crate) async fn screen(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": true});
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.post("/goog/cdp/execute", command).await;
    }

    /// What the page has complained of at the console.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        log.as_array().unwrap().iter().map(|line| line["message"].to_string()).collect()
    }

    async fn element(&self, css: &str) -> String {
        let found = self.post("/element", json!({"using": "css selector", "value": css})).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        call(&self.url, Method::POST, &format!("/session/{}{path}", self.session), Some(body)).await
    }

    async fn get(&self, path: &str) -> Value {
        call(&self.url, Method::GET, &format!("/session/{}{path}", self.session), None).await
    }
}

impl Drop for Browser {
    /// A driver that is killed leaves its browser running: the browser is told to go first.
    fn drop(&mut self) {
        let authority = self.url.trim_start_matches("http://");
        let farewell = || -> std::io::Result<()> {
            let mut stream = TcpStream::connect(authority)?;
            stream.set_read_timeout(Some(FAREWELL))?;
            write!(stream, "DELETE /session/{} HTTP/1.1\r\nhost: {authority}\r\n\r\n", self.session)?;
            stream.read(&mut [0; 64]).map(drop)
        };
        if let Err(error) = farewell() {
            eprintln!("the browser was not told to go: {error}");
        }
    }
}

fn runs(program: &str) -> bool {
    let command = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    command.is_ok_and(|status| status.success())
}

async fn call(url: &str, method: Method, path: &str, body: Option<Value>) -> Value {
    let what = format!("{method} {path}");
    let mut ask = Ask::new(method, url, path);
    if let Some(body) = body {
        ask = ask.header("content-type", "application/json").body(body.to_string());
    }
    let answer = ask.send().await;
    let ok = answer.status.is_success();
    let value = answer.json().await["value"].take();
    assert!(ok, "{what}: {value}");
    value
}
