//! How a run ends, for the log and for the direct caller.

use bytes::Bytes;
use bytestring::ByteString;
use http::HeaderMap;

use crate::session::Terminal;

/// How a run ended.
pub(super) struct End {
    pub(super) state: Terminal,
    pub(super) reason: &'static str,
    /// Who asked for it, as a JSON object.
    pub(super) by: Option<ByteString>,
    pub(super) caller: CallerEnd,
    pub(super) tail: Bytes,
}

/// How the direct caller's body ends.
#[derive(Debug)]
pub(super) enum CallerEnd {
    Clean(Option<HeaderMap>),
    Broken(&'static str),
}

impl End {
    pub(super) fn broken(state: Terminal, reason: &'static str) -> Self {
        End { state, reason, by: None, caller: CallerEnd::Broken(reason), tail: Bytes::new() }
    }

    /// Whether somebody has stopped it who is not the upstream.
    pub(super) fn is_our_cancel(&self) -> bool {
        self.state == Terminal::Cancelled && self.reason != "upstream"
    }

    pub(super) fn cancelled(by: ByteString) -> Self {
        End { by: Some(by), ..End::broken(Terminal::Cancelled, "cancel") }
    }
}
