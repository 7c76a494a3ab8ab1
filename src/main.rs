//! The `sidestream` binary: reads what is asked for and does it.

use sidestream::app::{self, Listeners};
use sidestream::cli::{self, Command, Exit};
use sidestream::config::{self, Config};
use sidestream::shutdown::Shutdown;
use sidestream::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Exit {
    match cli::parse() {
        Ok(Command::Serve(config)) => serve(*config),
        Ok(Command::CheckConfig(summary)) => cli::print(&summary),
        Ok(Command::DefaultConfig) => cli::print(&config::default_file()),
        Ok(Command::Dialects(text) | Command::Presets(text)) => cli::print(&text),
        Ok(Command::Completions(shell)) => cli::print(&cli::completions(shell)),
        Err(exit) => exit,
    }
}

#[tokio::main]
async fn serve(config: Config) -> Exit {
    telemetry::init(&config.log);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    match start(config).await {
        Ok(()) => Exit::Ok,
        Err(error) => {
            tracing::error!("{error}");
            error.exit()
        }
    }
}

async fn start(config: Config) -> Result<(), app::StartError> {
    let shutdown = Shutdown::new();
    shutdown.install_signals().map_err(app::StartError::Signals)?;
    let listeners = Listeners::bind(&config).await?;
    let log = app::open_store(&config).await?;
    app::run(config, listeners, log, shutdown).await
}
