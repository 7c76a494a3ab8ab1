//! The demo agent: an ordinary backend that streams recorded answers of real services, for the demo
//! and for tests that want a real process behind the sidecar.
//!
//! It uses none of Sidestream's code, and behaves like the legacy backends that Sidestream stands in
//! front of: when its client goes away, it stops. Only its team knows of Sidestream, by three headers.

mod answer;
mod fault;
mod ledger;
mod lorem;
mod pace;
mod query;
mod recordings;
mod routes;
mod socket;
mod team;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

use crate::recordings::Recordings;
use crate::routes::Agent;
use crate::socket::Socket;

/// A backend that streams recorded answers of real services.
#[derive(Parser)]
#[command(name = "demo-agent")]
struct Args {
    /// Where to listen; port 0 takes a free one. The address is printed once it is bound.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The folder of recordings.
    #[arg(long, default_value = "tests/data/sse/visible")]
    recordings: PathBuf,
    /// Events per second, with jitter; 0: as fast as possible. Default: 20 to 80, another for each answer.
    #[arg(long)]
    rate: Option<f64>,
    /// Seed of jitter and rates: the same seed and the same requests give the same timing.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let recordings = Recordings::load(&args.recordings)
        .with_context(|| format!("cannot read recordings in {} (see --recordings)", args.recordings.display()))?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("demo-agent listening on http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    serve(listener, Arc::new(Agent::new(recordings, args.rate, args.seed))).await
}

async fn serve(listener: TcpListener, agent: Arc<Agent>) -> anyhow::Result<()> {
    loop {
        // Out of file descriptors or the like: what is open goes on, and frees some.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let agent = agent.clone();
        tokio::spawn(async move {
            let (socket, reset) = Socket::new(stream);
            let service = service_fn(move |request| {
                let (agent, reset) = (agent.clone(), reset.clone());
                async move { Ok::<_, std::convert::Infallible>(agent.answer(request, reset).await) }
            });
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new());
            // Errors are the business of the client that caused them, or were asked for.
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}
