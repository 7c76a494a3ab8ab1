//! Direct callers: who makes the request, as clients that know nothing of us.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::agents;

/// Until the answer's head.
const ANSWER: Duration = Duration::from_secs(10);

/// Between two attempts to begin a run that is kept.
const AGAIN: Duration = Duration::from_millis(300);

/// A run that was begun.
pub(crate) struct Begun {
    /// The path of the call: names what its agent says.
    pub(crate) path: String,
    pub(crate) run: String,
    pub(crate) session: String,
    /// Which sidecar owns it.
    pub(crate) sidecar: usize,
    /// What its caller got, where it stayed.
    pub(crate) caller: Option<JoinHandle<Got>>,
}

/// What a direct caller got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    /// Events, from the first, each exactly as it was said.
    pub(crate) events: u64,
    /// Nothing but these.
    pub(crate) exact: bool,
    /// It ended as HTTP says.
    pub(crate) clean: bool,
}

/// A request to begin.
pub(crate) struct Call {
    pub(crate) sidecar: usize,
    pub(crate) url: String,
    pub(crate) session: String,
    /// `long`, `short` or `late`.
    pub(crate) kind: &'static str,
    pub(crate) number: usize,
    /// Whether the caller reads to the end, or leaves at once.
    pub(crate) stays: bool,
}

impl Call {
    /// Calls until the answer is a run: what passes through while the store is away is not kept.
    pub(crate) async fn begin(self) -> Begun {
        for attempt in 0.. {
            let path = format!("/{}/{}.{attempt}", self.kind, self.number);
            if let Some(response) = self.post(&path).await {
                let header = |name: &str| Some(response.headers().get(name)?.to_str().unwrap().to_owned());
                if let (Some(run), Some(session)) = (header("sidestream-run"), header("sidestream-session")) {
                    let reading = path.clone();
                    let caller = self.stays.then(|| tokio::spawn(read(reading, response)));
                    return Begun { path, run, session, sidecar: self.sidecar, caller };
                }
            }
            sleep(AGAIN).await;
        }
        unreachable!("attempts never end")
    }

    async fn post(&self, path: &str) -> Option<http::Response<Incoming>> {
        let authority = self.url.strip_prefix("http://").unwrap();
        let exchange = async {
            let stream = TcpStream::connect(authority).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            let request = Request::post(path).header("host", authority).header("sidestream-session", &self.session);
            sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.ok()
        };
        timeout(ANSWER, exchange).await.ok()?.filter(|response| response.status() == 200)
    }
}

async fn read(path: String, response: http::Response<Incoming>) -> Got {
    let mut body = response.into_body();
    let (mut got, mut rest) = (Got { events: 0, exact: true, clean: false }, String::new());
    loop {
        match body.frame().await {
            Some(Ok(frame)) => rest.push_str(std::str::from_utf8(&frame.into_data().unwrap_or_default()).unwrap()),
            Some(Err(_)) => return got,
            None => return Got { clean: true, exact: got.exact && rest.is_empty(), ..got },
        }
        while let Some(end) = rest.find("\n\n") {
            let event: String = rest.drain(..end + 2).collect();
            got.events += 1;
            got.exact &= event == format!("data: {}\n\n", agents::data(&path, got.events));
        }
    }
}
