//! What is said of a panic: where, never what. A panic's message may quote the data that caused it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use super::metrics::Metrics;

/// From now on a panic is logged and counted, without its message. Install it after the logging.
pub fn install_panic_hook(metrics: Metrics) {
    std::panic::set_hook(Box::new(move |info| {
        metrics.count.panics.inc();
        tell(info);
    }));
}

fn tell(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    let frames = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(&backtrace));
    tracing::error!(location, thread, backtrace = frames, "panic: this is a defect of sidestream, please report it");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::config::LogSettings;

    /// Set in the child process in which the test runs itself again: hooks belong to a process.
    const CHILD: &str = "PANIC_TEST_CHILD";

    #[test]
    fn a_panic_is_logged_as_json_and_counted_without_its_message() {
        if std::env::var_os(CHILD).is_some() {
            let metrics = Metrics::new();
            crate::telemetry::init(&LogSettings::default());
            install_panic_hook(metrics.clone());
            let panicked = std::thread::spawn(|| panic!("what the user said")).join();
            assert!(panicked.is_err() && metrics.encode().contains("sidestream_panics_total 1"));
            return;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "telemetry::panics::tests::a_panic_is_logged_as_json_and_counted_without_its_message"])
            .arg("--nocapture")
            .env(CHILD, "1")
            .env_remove("RUST_BACKTRACE")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let line = said.lines().find(|line| line.starts_with('{')).expect("a line of JSON");
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert!(line["location"].as_str().unwrap().starts_with("src/telemetry/panics.rs:"), "{line}");
        assert!(!said.contains("what the user said"), "{said}");
    }
}
