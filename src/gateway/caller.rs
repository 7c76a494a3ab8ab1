//! Who is on the other end: of a WebSocket for its whole life, of an HTTP call for that call.

use http::{HeaderMap, HeaderName};

use crate::auth::Principal;
use crate::control::Client;
use crate::gateway::Gateway;
use crate::gateway::query::Query;
use crate::server::{Peer, Problem};
use crate::session::{ClientName, ConnectionId, Subject};
use crate::wire::Code;

/// By which a client names itself over HTTP.
const CLIENT: HeaderName = HeaderName::from_static("sidestream-client");

/// A client, as it presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The connection's id: unique, made by us.
    pub connection: ConnectionId,
    /// What it is called: the name that it gave itself, else the connection's id.
    pub client: ClientName,
    /// Whether it gave itself that name.
    pub named: bool,
    /// Whose it is, where the request says so.
    pub subject: Option<Subject>,
}

impl Caller {
    /// Who sent the request with these parts: its name stands in `?client=`, which a browser's
    /// WebSocket can send, or in `Sidestream-Client`.
    ///
    /// # Errors
    /// The name is not usable as one.
    pub fn of(principal: &Principal, uri: &http::Uri, headers: &HeaderMap) -> Result<Self, Problem> {
        let wrong = |error| Problem::new(Code::BadRequest, format!("the client's name: {error}"));
        let query = Query::of(uri);
        let given = match (query.text("client"), headers.get(CLIENT)) {
            (Some(name), _) => Some(ClientName::parse(name).map_err(wrong)?),
            (None, Some(name)) => Some(ClientName::parse(name.to_str().unwrap_or_default()).map_err(wrong)?),
            (None, None) => None,
        };
        let connection = ConnectionId::from_random(crate::random::u128());
        let (client, named) = match given {
            Some(name) => (name, true),
            None => (ClientName::parse(connection.as_str()).map_err(wrong)?, false),
        };
        Ok(Caller { connection, client, named, subject: principal.subject(headers) })
    }
}

impl Caller {
    /// The caller as one for whom requests are made: its request came from `peer` with `headers`, at the
    /// upstream's `path`.
    pub fn requester(&self, gateway: &Gateway, peer: Peer, headers: &HeaderMap, path: Option<String>) -> Client {
        let client = Client::new(self.client.as_str().into(), peer, headers, &gateway.credentials, path);
        Client { subject: self.subject.clone(), ..client }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn caller(uri: &str, header: Option<&'static str>) -> Result<Caller, Problem> {
        let mut headers = HeaderMap::new();
        header.map(|name| headers.insert(CLIENT, HeaderValue::from_static(name)));
        Caller::of(&Principal::new(Vec::new()), &uri.parse().expect("a URI"), &headers)
    }

    #[test]
    fn a_client_is_called_what_it_calls_itself() {
        assert_eq!(caller("/ws?client=phone", Some("tablet")).unwrap().client.as_str(), "phone");
        let tablet = caller("/ws", Some("tablet")).unwrap();
        assert_eq!((tablet.client.as_str(), tablet.named), ("tablet", true));
        let nobody = caller("/ws", None).unwrap();
        assert_eq!((nobody.client.as_str(), nobody.named), (nobody.connection.as_str(), false));
    }

    #[test]
    fn a_name_that_cannot_be_one_is_refused() {
        for (uri, header) in [("/ws?client=a%20b", None), ("/ws?client=", None), ("/ws", Some("~x"))] {
            assert_eq!(caller(uri, header).unwrap_err().code, Code::BadRequest, "{uri}");
        }
    }
}
