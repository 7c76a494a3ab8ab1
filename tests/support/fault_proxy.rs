//! A network that fails on command: a TCP proxy on loopback between a program and a server.
//!
//! It knows nothing of what it carries. Per connection and direction it holds at most
//! [`HELD_CHUNKS`] chunks; while it holds that much it does not read on, as a full network.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// What is read at once.
const CHUNK: usize = 16 << 10;

/// How many chunks wait for their delay, or for the end of a freeze.
const HELD_CHUNKS: usize = 64;

/// Between two attempts to have the port back.
const PORT_PAUSE: Duration = Duration::from_millis(20);

/// A proxy that forwards until it is told otherwise. Gone, with its connections, when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    port: u16,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
}

/// The direction of what is delayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// What the client sends.
    Server,
    /// What the server sends.
    Client,
}

#[derive(Clone, Debug)]
struct Weather {
    link: Link,
    target: u16,
    towards_server: Duration,
    towards_client: Duration,
    /// Connections of an earlier one are closed.
    generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Forwards,
    Frozen,
    Refuses,
}

impl FaultProxy {
    /// A proxy on a free port in front of the server on loopback's `target`.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let still = Duration::ZERO;
        let weather =
            Weather { link: Link::Forwards, target, towards_server: still, towards_client: still, generation: 0 };
        let (weather, watching) = watch::channel(weather);
        let task = tokio::spawn(listen(listener, address, watching));
        FaultProxy { port: address.port(), weather, task }
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a Redis server behind it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Closes all connections and refuses new ones, until [`Self::heal`].
    pub fn cut(&self) {
        self.weather.send_modify(|weather| {
            weather.link = Link::Refuses;
            weather.generation += 1;
        });
    }

    /// Closes all connections; new ones are welcome.
    pub fn drop_connections(&self) {
        self.weather.send_modify(|weather| weather.generation += 1);
    }

    /// A black hole: connections stay and are accepted, nothing comes through, until [`Self::heal`].
    pub fn freeze(&self) {
        self.weather.send_modify(|weather| weather.link = Link::Frozen);
    }

    /// Forwards again what was frozen or refused. A delay stays.
    pub fn heal(&self) {
        self.weather.send_modify(|weather| weather.link = Link::Forwards);
    }

    /// From now on everything in one direction arrives this much later.
    pub fn delay(&self, towards: Towards, by: Duration) {
        self.weather.send_modify(|weather| match towards {
            Towards::Server => weather.towards_server = by,
            Towards::Client => weather.towards_client = by,
        });
    }

    /// Leads to another server; the connections to the old one are closed.
    pub fn retarget(&self, port: u16) {
        self.weather.send_modify(|weather| {
            weather.target = port;
            weather.generation += 1;
        });
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // The connections see that their weather is gone.
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, address: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let mut listener = listener;
    loop {
        while weather.borrow_and_update().link != Link::Refuses {
            tokio::select! {
                accepted = listener.accept() => if let Ok((client, _)) = accepted {
                    tokio::spawn(connection(client, weather.clone()));
                },
                changed = weather.changed() => if changed.is_err() { return },
            }
        }
        drop(listener);
        // Bound and not listening: connections are refused, and nobody else is given the port.
        let bound = bind(address).await;
        if weather.wait_for(|weather| weather.link != Link::Refuses).await.is_err() {
            return;
        }
        listener = bound.listen(1024).expect("a bound port can be listened on");
    }
}

async fn bind(address: SocketAddr) -> TcpSocket {
    loop {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option of every socket");
        if socket.bind(address).is_ok() {
            return socket;
        }
        tokio::time::sleep(PORT_PAUSE).await;
    }
}

async fn connection(client: TcpStream, mut weather: watch::Receiver<Weather>) {
    let (generation, target) = {
        let now = weather.borrow_and_update();
        (now.generation, now.target)
    };
    let carrying = carry(client, target, weather.clone());
    let closed = weather.wait_for(|weather| weather.generation != generation);
    tokio::select! {
        () = carrying => {}
        _ = closed => {}
    }
}

async fn carry(client: TcpStream, target: u16, mut weather: watch::Receiver<Weather>) {
    if weather.wait_for(|weather| weather.link == Link::Forwards).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("an option of every socket");
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // The first end of either direction closes both, after what came before it has been delivered.
    tokio::select! {
        () = pump(from_client, to_server, weather.clone(), |weather| weather.towards_server) => {}
        () = pump(from_server, to_client, weather.clone(), |weather| weather.towards_client) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    delay: fn(&Weather) -> Duration,
) {
    let (sender, mut held) = mpsc::channel::<(Instant, Vec<u8>)>(HELD_CHUNKS);
    let delays = weather.clone();
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + delay(&delays.borrow());
            if sender.send((due, buffer[..n].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = held.recv().await {
            sleep_until(due).await;
            if weather.wait_for(|weather| weather.link != Link::Frozen).await.is_err() {
                return;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}
