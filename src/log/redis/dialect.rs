//! Whether a server speaks TLS. The one that does waits for ever for what a plain client never says, and the other
//! way round: nothing in the silence tells why, so somebody has to ask in the other language.
//!
//! Asked once, after a start without a connection. Must never: say anything secret.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::deployment::{Address, Deployment};
use super::options::RefusedStore;
use super::target::Target;

/// How long an answer may take; then it counts as none.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many servers are asked.
const ASKED: usize = 3;

/// A TLS record with a `ClientHello` (RFC 5246, 7.4.1.2) that offers one cipher suite and nothing else. A TLS server
/// answers, if only with an alert.
const CLIENT_HELLO: &[u8; 50] = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03\
    thirty-two bytes, random or not.\
    \x00\x00\x02\xc0\x2f\x01\x00";

/// Says which server of the deployment speaks the other of TLS and plain text, if one is seen to.
pub(super) async fn mismatch(target: &Target) -> Option<RefusedStore> {
    let addresses = match &target.deployment {
        Deployment::Single(address) => std::slice::from_ref(address),
        Deployment::Sentinel { sentinels, .. } => sentinels,
        Deployment::Cluster { seeds } => seeds,
    };
    let asked = addresses.iter().take(ASKED).map(|address| async move {
        let other = !target.tls;
        speaks(address, other).await.then(|| RefusedStore::Scheme {
            address: address.to_string(),
            speaks: if other { "TLS" } else { "no TLS" },
            scheme: target.scheme(other),
        })
    });
    join_all(asked).await.into_iter().flatten().next()
}

/// Whether the server is seen to speak TLS; with `tls` false: whether it is seen to speak without.
async fn speaks(address: &Address, tls: bool) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.write_all(if tls { &CLIENT_HELLO[..] } else { b"PING\r\n" }).await?;
        stream.read_u8().await
    };
    match timeout(PATIENCE, ask).await {
        // An alert or a handshake record (RFC 8446, 5.1).
        Ok(Ok(first)) if tls => matches!(first, 21 | 22),
        Ok(Ok(first)) => matches!(first, b'+' | b'-'),
        _ => false,
    }
}
