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
