//! Builds everything from the configuration, binds, serves, drains. The only module that knows all
//! parts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::Admin;
use crate::auth::Principal;
use crate::cli::Exit;
use crate::config::{self, Config, Routes, Secret, Store, StoreUrl};
use crate::control::Control;
use crate::gateway::{Gateway, Settings, Writers};
use crate::hub::{Hub, HubLimits};
use crate::intercept::Interceptor;
use crate::log::embedded::{EmbeddedLog, EmbeddedOptions, Location, OpenError};
use crate::log::redis::{Ack, ClientCertificate, Password, RedisLog, RedisOptions, RefusedStore};
use crate::log::{Log, Retention, StoreHealth};
use crate::proxy::Passthrough;
use crate::run::{Runs, RunsSettings, StartQueued, keep_lease};
use crate::server::{Manners, Peer, Router, serve};
use crate::sharing::{Attendance, Publisher};
use crate::shutdown::Shutdown;
use crate::telemetry::{Fact, Metrics, StoreChanged, install_panic_hook};

/// How long interrupted runs have to write their terminals.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// An outage that lasts so long does not pass by itself.
const REMIND_FIRST: Duration = Duration::from_secs(15);
/// How often it is said again then.
const REMIND_AGAIN: Duration = Duration::from_secs(60);

/// Why the process could not serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address cannot be had.
    #[error("cannot listen on {address}: {source}; choose another address with {option}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// The option that sets it.
        option: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The embedded store cannot be opened.
    #[error(transparent)]
    Embedded(#[from] OpenError),
    /// The Redis store refuses us or is not what we need.
    #[error(transparent)]
    Redis(#[from] RefusedStore),
    /// The signal handlers cannot be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// The upstream's settings do not work.
    #[error(transparent)]
    Upstream(#[from] crate::proxy::SetupError),
}

impl StartError {
    /// The exit code that says whose fault it is.
    pub fn exit(&self) -> Exit {
        match self {
            StartError::Bind { .. } => Exit::CannotBind,
            StartError::Embedded(_) | StartError::Redis(_) => Exit::StoreRefused,
            StartError::Upstream(_) => Exit::Usage,
            StartError::Signals(_) => Exit::Runtime,
        }
    }
}

/// The bound listeners.
pub struct Listeners {
    /// Clients.
    pub data: TcpListener,
    /// The platform.
    pub health: TcpListener,
    /// Operators.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds all three.
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Listeners {
            data: bind(config.listen, "--listen").await?,
            health: bind(config.health_listen, "--health-listen").await?,
            admin: bind(config.admin_listen, "--admin-listen").await?,
        })
    }
}

async fn bind(address: SocketAddr, option: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { address, option, source })
}

/// Opens the store that the configuration names.
pub async fn open_store(config: &Config) -> Result<Arc<dyn Log>, StartError> {
    let store = &config.store;
    let retention = Retention { ttl: store.ttl, max_entries: store.max_entries, max_bytes: store.max_bytes };
    let embedded =
        |location| EmbeddedOptions { retention, total_bytes: store.total_bytes, ..EmbeddedOptions::new(location) };
    Ok(match store.url.clone().unwrap_or(StoreUrl::Memory) {
        StoreUrl::Redis(url) => {
            RedisLog::connect(RedisOptions { retention, ..redis_options(store, url.text()) }).await?
        }
        StoreUrl::File(dir) => EmbeddedLog::open(embedded(Location::Dir(dir))).await?,
        StoreUrl::Memory => EmbeddedLog::open(embedded(Location::Memory)).await?,
    })
}

fn redis_options(store: &Store, url: &str) -> RedisOptions {
    let password = |secret: &Secret| match secret {
        Secret::Variable { value, .. } => Password::Text(value.clone()),
        Secret::File(path) => Password::File(path.clone()),
    };
    let certificate = store.cert_file.clone().zip(store.key_file.clone());
    RedisOptions {
        password: store.password.as_ref().map(password),
        sentinel_username: store.sentinel_username.clone(),
        sentinel_password: store.sentinel_password.as_ref().map(password),
        key_prefix: store.key_prefix.clone(),
        ca_file: store.ca_file.clone(),
        client_certificate: certificate.map(|(cert_file, key_file)| ClientCertificate { cert_file, key_file }),
        ack: match store.ack {
            config::Ack::Memory => Ack::Memory,
            config::Ack::Replicated => Ack::Replicated,
        },
        ..RedisOptions::new(url)
    }
}

/// Serves until the shutdown has run its course.
pub async fn run(
    config: Config,
    listeners: Listeners,
    log: Arc<dyn Log>,
    shutdown: Shutdown,
) -> Result<(), StartError> {
    let metrics = Metrics::new();
    install_panic_hook(metrics.clone());
    let runs = Runs::new(log.clone(), runs_settings(&config), metrics.clone());
    let tasks = TaskTracker::new();
    let limits = HubLimits { ring_bytes: config.limits.ring_bytes };
    let farewells = TaskTracker::new();
    let attendance = Attendance::new(log.clone(), farewells.clone());
    let (hub, attended) = Hub::new(log.clone(), limits, metrics.clone(), TaskTracker::new());
    let proxy = Passthrough::new(&config.upstream, config.server.trusted_proxies.clone(), Vec::new())?;
    let proxy = Arc::new(proxy);
    let control = Control::new(log.clone(), hub.clone(), runs.clone(), proxy.clone(), &config, metrics.clone());
    let starter: Arc<dyn StartQueued> = control.clone();
    runs.queued_start_by(Arc::downgrade(&starter));
    let publisher = Arc::new(Publisher::new(log.clone(), runs.doubts()));
    let gateway = Arc::new(Gateway {
        hub,
        control,
        credentials: config.send.credentials.clone(),
        routes: Routes::new(&config),
        dialects: Arc::new(config.dialects.clone()),
        log: log.clone(),
        writers: Writers::new(runs.clone(), &config),
        settings: Settings::new(&config),
        shutdown: shutdown.clone(),
        metrics: metrics.clone(),
        attendance: attendance.clone(),
        publisher: publisher.clone(),
        principal: Principal::new(config.auth.principal.clone()),
        cors_origins: config.server.cors_origins.clone(),
        tasks: tasks.clone(),
        places: Arc::new(Semaphore::new(config.limits.sockets)),
    });
    let interceptor = Arc::new(Interceptor::new(proxy, runs.clone(), gateway.clone(), &config));
    let router = Arc::new(Router::new(config.server.prefix.clone(), config.server.demo, gateway, interceptor));
    let admin = Arc::new(Admin {
        log: log.clone(),
        runs: runs.clone(),
        shutdown: shutdown.clone(),
        metrics: metrics.clone(),
        run_deadline: config.shutdown.run_deadline,
        had_store: AtomicBool::new(false),
    });

    for (what, listener) in [("data", &listeners.data), ("health", &listeners.health), ("admin", &listeners.admin)] {
        let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        tracing::info!(listener = what, address, "listening");
    }
    tracing::info!(upstream = %config.upstream.url, "ready to forward");

    let (stop, stop_health) = (CancellationToken::new(), CancellationToken::new());
    let manners = Manners { drain: config.shutdown.run_deadline + LAST_WORDS, ..Manners::default() };
    let lease = tokio::spawn(keep_lease(runs.clone(), attended));
    let presence = tokio::spawn(attendance.keep());
    let published = tokio::spawn(async move { publisher.look_after().await });
    let watch = tokio::spawn(watch_store(admin.clone(), metrics));
    let health = tokio::spawn({
        let admin = admin.clone();
        let service = move |request, _: Peer| {
            let admin = admin.clone();
            async move { admin.health(request).await }
        };
        serve(listeners.health, Manners::default(), service, stop_health.clone())
    });
    let operators = tokio::spawn({
        let service = move |request, _: Peer| {
            let admin = admin.clone();
            async move { admin.admin(request).await }
        };
        serve(listeners.admin, Manners::default(), service, stop_health.clone())
    });
    let data = tokio::spawn({
        let service = move |request, peer| {
            let router = router.clone();
            async move { router.answer(request, peer).await }
        };
        serve(listeners.data, manners, service, stop.clone())
    });

    drain(&config, &shutdown, &runs, &tasks, &stop).await;
    // Both listeners' tasks end by themselves once told to; an error would be a defect of theirs.
    let _ = data.await;
    // The last answers may have begun runs, which end at once but have to say so.
    let _ = timeout(LAST_WORDS, runs.idle()).await;
    presence.abort();
    published.abort();
    farewells.close();
    let _ = timeout(LAST_WORDS, farewells.wait()).await;
    stop_health.cancel();
    lease.abort();
    watch.abort();
    let _ = log.resign(&runs.instance()).await;
    log.close().await;
    let _ = timeout(LAST_WORDS, async { (health.await, operators.await) }).await;
    tracing::info!("everything is written; leaving");
    Ok(())
}

/// Waits for the drain to begin and leads it to its end: new requests for a while (load balancers
/// learn late), then runs until they end or their deadline, then what is left of the connections.
async fn drain(config: &Config, shutdown: &Shutdown, runs: &Runs, tasks: &TaskTracker, stop: &CancellationToken) {
    shutdown.draining().await;
    tracing::info!(runs = runs.active(), sockets = tasks.len(), "draining");
    let accept_for = if shutdown.is_hasty() { Duration::ZERO } else { config.shutdown.accept_for };
    let deadline = Instant::now() + config.shutdown.run_deadline.max(accept_for);
    sleep(accept_for).await;
    stop.cancel();
    tasks.close();
    let _ = timeout_at(deadline, runs.idle()).await;
    runs.interrupt();
    let _ = timeout(LAST_WORDS, runs.idle()).await;
    let spread = if shutdown.is_hasty() { Duration::ZERO } else { config.shutdown.spread };
    let _ = timeout(spread.saturating_sub(accept_for), tasks.wait()).await;
    shutdown.close();
    let _ = timeout(LAST_WORDS, tasks.wait()).await;
}

/// Says when the store goes away, that it still is, and when it comes back; remembers that it was there.
async fn watch_store(admin: Arc<Admin>, metrics: Metrics) {
    let mut health = admin.log.health();
    let mut since: Option<Instant> = None;
    let mut reminder = REMIND_FIRST;
    loop {
        let now = health.borrow_and_update().clone();
        match (now, since) {
            (StoreHealth::Up, None) if admin.had_store.load(Ordering::Relaxed) => {}
            (StoreHealth::Up, _) => {
                admin.had_store.store(true, Ordering::Relaxed);
                let away = since.take().map(|since| since.elapsed());
                StoreChanged::Up { away }.emit(&metrics);
            }
            (StoreHealth::Down { reason }, None) => {
                (since, reminder) = (Some(Instant::now()), REMIND_FIRST);
                StoreChanged::Down { reason: &reason }.emit(&metrics);
            }
            // Another reason of the same outage is no news; that it lasts is.
            (StoreHealth::Down { reason }, Some(since)) => {
                let away = since.elapsed();
                if away >= reminder {
                    reminder = away + REMIND_AGAIN;
                    StoreChanged::StillDown { reason: &reason, away }.emit(&metrics);
                }
            }
        }
        let remind = async {
            match since {
                Some(since) => sleep_until(since + reminder).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = health.changed() => if changed.is_err() { return },
            () = remind => {}
        }
    }
}

fn runs_settings(config: &Config) -> RunsSettings {
    let (limits, store) = (&config.limits, &config.store);
    let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    RunsSettings {
        dialects: Arc::new(config.dialects.clone()),
        event_bytes: bytes(limits.event_bytes),
        pending_bytes: limits.pending_bytes,
        run_duration: limits.run_duration,
        caller_buffer: bytes(limits.caller_buffer),
        eager_after: store.eager_after,
        outage_limit: store.outage_limit,
    }
}
