//! What clients hear beside the entries: who is here, read cursors, what is said to those present.

use std::fmt::Write;

use crate::session::{ClientName, ConnectionId, Offset, SessionId};
use crate::wire::frame::{payload, quoted};

/// A client that is here.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Its connection.
    pub connection: &'a ConnectionId,
    /// What it is called.
    pub client: &'a ClientName,
    /// What it says of itself: JSON.
    pub state: &'a str,
}

/// What has changed about who is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has come.
    Join,
    /// It has another state.
    State,
    /// It has left.
    Leave,
}

/// `presence`: somebody comes, changes or leaves.
pub fn presence_frame(session: &SessionId, who: Here<'_>, change: Change) -> String {
    let event = match change {
        Change::Join => "join",
        Change::State => "state",
        Change::Leave => "leave",
    };
    let mut out = format!(r#"{{"type":"presence","session":"{session}","event":"{event}","#);
    let state = (change != Change::Leave).then_some(who.state);
    put_here(&mut out, who, state);
    out.push('}');
    out
}

/// `presence`: everybody who is here.
pub fn present_frame<'a>(session: &SessionId, present: impl Iterator<Item = Here<'a>>) -> String {
    let mut out = format!(r#"{{"type":"presence","session":"{session}","present":"#);
    put_present(&mut out, present);
    out.push('}');
    out
}

/// `read`: this user has read on.
pub fn read_frame(session: &SessionId, client: &ClientName, offset: Offset) -> String {
    format!(r#"{{"type":"read","session":"{session}","client":"{client}","offset":"{offset}"}}"#)
}

/// `queue`: what waits has changed; whoever wants to know asks.
pub fn queue_frame(session: &SessionId) -> String {
    format!(r#"{{"type":"queue","session":"{session}"}}"#)
}

/// An `event` that is in no log.
pub fn ephemeral_frame(session: &SessionId, client: &ClientName, event: Option<&str>, data: &str) -> String {
    let mut out = format!(r#"{{"type":"event","session":"{session}","ephemeral":true,"source":"{client}""#);
    if let Some(event) = event {
        out.push_str(r#","event":"#);
        quoted(&mut out, event);
    }
    payload(&mut out, data);
    out.push('}');
    out
}

/// Writes everybody who is here as an array.
pub(super) fn put_present<'a>(out: &mut String, present: impl Iterator<Item = Here<'a>>) {
    out.push('[');
    for (i, who) in present.enumerate() {
        out.push_str(if i == 0 { "{" } else { ",{" });
        put_here(out, who, Some(who.state));
        out.push('}');
    }
    out.push(']');
}

fn put_here(out: &mut String, who: Here<'_>, state: Option<&str>) {
    // Writing to a String cannot fail.
    let _ = write!(out, r#""connection":"{}","client":"{}""#, who.connection, who.client);
    if let Some(state) = state {
        let _ = write!(out, r#","state":{state}"#);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_who_and_a_list_names_all() {
        let (connection, client) = (ConnectionId::parse("c1").unwrap(), ClientName::parse("phone").unwrap());
        let session = SessionId::parse("s").unwrap();
        let who = Here { connection: &connection, client: &client, state: r#"{"a": 1}"# };
        assert_eq!(
            presence_frame(&session, who, Change::Join),
            r#"{"type":"presence","session":"s","event":"join","connection":"c1","client":"phone","state":{"a": 1}}"#
        );
        assert_eq!(
            presence_frame(&session, who, Change::Leave),
            r#"{"type":"presence","session":"s","event":"leave","connection":"c1","client":"phone"}"#
        );
        assert_eq!(
            present_frame(&session, [who, who].into_iter()),
            r#"{"type":"presence","session":"s","present":[{"connection":"c1","client":"phone","state":{"a": 1}},{"connection":"c1","client":"phone","state":{"a": 1}}]}"#
        );
    }

    #[test]
    fn an_ephemeral_event_has_no_offset() {
        let (session, client) = (SessionId::parse("s").unwrap(), ClientName::parse("phone").unwrap());
        assert_eq!(
            ephemeral_frame(&session, &client, Some("a\"b"), "[1]"),
            r#"{"type":"event","session":"s","ephemeral":true,"source":"phone","event":"a\"b","json":[1]}"#
        );
    }
}
