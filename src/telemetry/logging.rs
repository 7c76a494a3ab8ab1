//! Log lines: where they go and what shape they have. They go to standard error, so that standard
//! output stays free for what commands print.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::{LogFormat, LogSettings};

/// From now on the process logs as `settings` say. A second call changes nothing.
pub fn init(settings: &LogSettings) {
    // The configuration has been checked; whoever built one by hand falls back to `info`.
    let filter = EnvFilter::builder().parse(&settings.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = lines(settings.format, std::io::stderr().is_terminal());
    // An error means that the process logs already (a test that has its own subscriber).
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

fn lines(format: LogFormat, terminal: bool) -> Box<dyn Layer<Registry> + Send + Sync> {
    let plain = fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    match format {
        LogFormat::Json => plain.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Auto if !terminal => lines(LogFormat::Json, terminal),
        LogFormat::Auto | LogFormat::Pretty => plain.with_target(false).boxed(),
    }
}
