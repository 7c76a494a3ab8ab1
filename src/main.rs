//! The `sidestream` binary: reads what is asked for and does it.

use sidestream::cli::{self, Command, Exit};
use sidestream::config::{self, Config};
use sidestream::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Exit {
    match cli::parse() {
        Ok(Command::Serve(config)) => serve(*config),
        Ok(Command::CheckConfig(summary)) => cli::print(&summary),
        Ok(Command::DefaultConfig) => cli::print(&config::default_file()),
        Ok(Command::Completions(shell)) => cli::print(&cli::completions(shell)),
        Err(exit) => exit,
    }
}

fn serve(config: Config) -> Exit {
    telemetry::init(&config.log);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    tracing::error!("this build has no server yet: only the configuration was checked");
    Exit::Runtime
}
