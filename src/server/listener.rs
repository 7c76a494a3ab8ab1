//! The accept loop. Bounded in connections and in the time a client may take to say what it wants.
//! Must never wait for a client while it could accept another.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Version, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::Body;
use super::connection::{Connection, EndsConnection, Reset};
use super::late_abort::{Flushes, LateAbort};

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The other end of the connection: the client, or the proxy in front of us.
    pub addr: SocketAddr,
}

/// How the listener treats connections.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Sockets open at once, upgraded ones included. Above it new ones wait in the kernel's
    /// backlog, and are refused there.
    pub connections: usize,
    /// Time from the accept to the first complete request head. A silent socket ends here too.
    pub first_request: Duration,
    /// Time from the end of an answer to the next complete request head. Longer than the 60 s that
    /// load balancers keep an idle connection, so that they close first.
    pub next_request: Duration,
    /// Time that answers may take to end once the listener was told to stop.
    pub drain: Duration,
}

impl Default for Manners {
    fn default() -> Self {
        Manners {
            connections: 32_768,
            first_request: Duration::from_secs(20),
            next_request: Duration::from_secs(75),
            drain: Duration::from_secs(25),
        }
    }
}

/// How often a peer that has gone without a word is looked for.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new().with_time(Duration::from_secs(30));

/// Serves `listener` until `stop` is cancelled: then accepts no more, closes idle connections,
/// lets answers end, and after [`Manners::drain`] drops what is left. Returns when nothing of it
/// runs any more; upgraded connections belong to those who upgraded them.
pub async fn serve<S, F>(listener: TcpListener, manners: Manners, service: S, stop: CancellationToken)
where
    S: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(manners.connections));
    let tracker = TaskTracker::new();
    let cut = CancellationToken::new();
    while let Some((stream, addr, permit)) = accept(&listener, &places, &stop).await {
        let (manners, service) = (manners.clone(), service.clone());
        let (stop, cut) = (stop.clone(), cut.clone());
        tracker.spawn(async move {
            tokio::select! {
                () = connection(stream, Peer { addr }, permit, manners, service, stop) => {}
                () = cut.cancelled() => {}
            }
        });
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(manners.drain, tracker.wait()).await.is_err() {
        tracing::warn!(connections = tracker.len(), "answers were cut off at the end of the drain");
        cut.cancel();
        tracker.wait().await;
    }
}

/// The next connection, once there is a place for it; none when told to stop.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let next = async {
        let permit = places.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, addr)) => return Some((stream, addr, permit)),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of file descriptors, most likely: only time helps.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        accepted = next => accepted,
    }
}

async fn connection<S, F>(
    stream: TcpStream,
    peer: Peer,
    permit: OwnedSemaphorePermit,
    manners: Manners,
    service: S,
    stop: CancellationToken,
) where
    S: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    // Tokens are small and must not wait for each other.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE);

    let reset = Reset::default();
    let flushes = Flushes::default();
    let io = TokioIo::new(Connection::new(stream, permit, reset.clone(), flushes.clone()));
    let began = Arc::new(Notify::new());
    let called = {
        let began = began.clone();
        service_fn(move |request: Request<Incoming>| {
            began.notify_one();
            let (version, reset, flushes) = (request.version(), reset.clone(), flushes.clone());
            let answer = service(request, peer);
            async move { Ok::<_, Infallible>(ending_well(answer.await, version, reset, flushes)) }
        })
    };

    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Some old backends and clients compare header names byte by byte.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(manners.next_request).preserve_header_case(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let mut serving = pin!(builder.serve_connection_with_upgrades(io, called));

    // hyper arms its header timeout only once it has seen the first bytes of HTTP/1; this one
    // covers a socket that says nothing, half a preface, and HTTP/2 without a request.
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = began.notified() => tokio::select! {
            result = serving.as_mut() => result,
            () = stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        },
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            // A head that is half here may still become a request; not for long.
            match tokio::time::timeout(manners.first_request, serving).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
        () = tokio::time::sleep(manners.first_request) => {
            tracing::debug!(peer = %peer.addr, "no request in time");
            return;
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %peer.addr, %error, "connection ended");
    }
}

/// Sees to it that a body that breaks off breaks off after what came before, and so that the client
/// notices: an HTTP/1.0 client without a length knows the end of the body only by the end of the
/// connection.
fn ending_well(response: Response<Body>, version: Version, reset: Reset, flushes: Flushes) -> Response<Body> {
    let ends_connection = version == Version::HTTP_10 && !response.headers().contains_key(header::CONTENT_LENGTH);
    let flushes = (version < Version::HTTP_2).then_some(flushes);
    response.map(|body| match LateAbort::new(body, flushes).boxed_unsync() {
        body if ends_connection => EndsConnection { body, reset }.boxed_unsync(),
        body => body,
    })
}
