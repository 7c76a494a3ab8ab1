//! The kinds of values of live control. Like `value`, nothing here knows which option it reads for.

use http::HeaderName;

use super::calls::{CancelPolicy, Credential, EventValue, SteerPolicy};
use super::value::{Choice, Given, Kind, quoted};
use crate::session::BusyPolicy;

impl Choice for BusyPolicy {
    const FORM: &'static str = "parallel|queue|interrupt|reject";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("parallel", BusyPolicy::Parallel),
        ("queue", BusyPolicy::Queue),
        ("interrupt", BusyPolicy::Interrupt),
        ("reject", BusyPolicy::Reject),
    ];
}

/// A kind whose values read and show themselves as text.
macro_rules! kind_of_text {
    ($(#[$doc:meta])* $kind:ident, $value:ty, $form:literal, $expected:literal, $read:expr) => {
        $(#[$doc])*
        pub(super) struct $kind;

        impl Kind for $kind {
            type Value = $value;
            const FORM: &'static str = $form;

            fn read(given: &Given) -> Result<$value, String> {
                $read(given.text($expected)?)
            }

            fn show(value: &$value) -> String {
                quoted(value)
            }
        }
    };
}

kind_of_text! {
    /// `METHOD /path/{name}`, or nothing.
    Cancelling, CancelPolicy, "CALL|off", "a call, `METHOD /path`, or `off`", CancelPolicy::parse
}

kind_of_text! {
    /// What a `steer` does.
    Steering, SteerPolicy, "queue|interrupt|reject|forward CALL", "a way to steer", SteerPolicy::parse
}

kind_of_text! {
    /// `NAME=json:/pointer`.
    ValueOfEvents, EventValue, "NAME=json:/pointer", "a value of events", EventValue::parse
}

kind_of_text! {
    /// `env:NAME` or `file:PATH`.
    CredentialPlace, Credential, "env:NAME|file:PATH", "where a credential is found", Credential::parse
}

kind_of_text! {
    /// The name of a header.
    Header, HeaderName, "HEADER", "the name of a header", header_name
}

kind_of_text! {
    /// One JSON value.
    JsonText, String, "JSON", "JSON in a text", json_text
}

fn json_text(text: &str) -> Result<String, String> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text.into()),
        Err(error) => {
            Err(format!("not JSON: {error}; write it between single quotes, such as '{{\"user\": \"{{session}}\"}}'"))
        }
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    text.parse().map_err(|_| format!("`{text}` is not the name of a header"))
}
