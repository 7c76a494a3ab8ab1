//! The environment as assignments. Only `SIDESTREAM_…` is looked at, and an empty variable counts as
//! none, because `${UNSET:-}` in a compose file makes one.

use std::ffi::OsString;

use super::file::Assignment;
use super::problem::{Origin, Problem};
use super::value::Given;

const PREFIX: &str = "SIDESTREAM_";

/// Variables that say where something is, and are read elsewhere.
const PLACES: &[&str] = &["SIDESTREAM_CONFIG", "SIDESTREAM_DATA_DIR"];

/// The assignments of the environment, sorted by name.
pub(super) fn assignments(variables: &[(OsString, OsString)]) -> (Vec<Assignment>, Vec<Problem>) {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for (variable, value) in variables {
        let Some(variable) = variable.to_str() else { continue };
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        if value.is_empty() || PLACES.contains(&variable) {
            continue;
        }
        let origin = Origin::Variable(variable.into());
        match value.to_str() {
            None => problems.push(Problem::at(&origin, "the value is not UTF-8")),
            Some(value) if is_service_link(rest, value) => {}
            Some(value) => found.push(Assignment {
                name: rest.to_lowercase().replace("__", "."),
                shown: variable.into(),
                given: Given::Text(value.into()),
                origin,
            }),
        }
    }
    found.sort_by(|a, b| a.shown.cmp(&b.shown));
    (found, problems)
}

/// Kubernetes tells every pod of a Service named `sidestream` (or `sidestream-x`) by variables such as
/// `SIDESTREAM_PORT=tcp://10.0.0.1:8787`, in the form of Docker's links. They are not ours.
fn is_service_link(rest: &str, value: &str) -> bool {
    let link = |part: &str| rest == part || rest.ends_with(&format!("_{part}"));
    link("SERVICE_HOST")
        || link("SERVICE_PORT")
        || rest.starts_with("SERVICE_PORT_")
        || rest.contains("_SERVICE_PORT_")
        || (link("PORT") && value.contains("://"))
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
            // `PORT_8787_TCP`, `PORT_8787_TCP_ADDR` …
            rest.split_once(protocol).is_some_and(|(port, _)| {
                port.rsplit_once("PORT_").is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(variables: &[(&str, &str)]) -> Vec<String> {
        let variables: Vec<_> = variables.iter().map(|(n, v)| (OsString::from(n), OsString::from(v))).collect();
        assignments(&variables).0.into_iter().map(|assignment| assignment.name).collect()
    }

    #[test]
    fn levels_are_joined_by_two_underscores() {
        assert_eq!(
            names(&[("SIDESTREAM_STORE__MAX_BYTES", "1"), ("PATH", "/"), ("SIDESTREAM_UPSTREAM", "x")]),
            ["store.max_bytes", "upstream"]
        );
    }

    #[test]
    fn an_empty_variable_counts_as_none() {
        assert!(names(&[("SIDESTREAM_STORE", "")]).is_empty());
    }

    #[test]
    fn what_kubernetes_tells_of_a_service_named_sidestream_is_not_taken_for_configuration() {
        let links = [
            ("SIDESTREAM_SERVICE_HOST", "10.0.0.1"),
            ("SIDESTREAM_SERVICE_PORT", "8787"),
            ("SIDESTREAM_SERVICE_PORT_DATA", "8787"),
            ("SIDESTREAM_PORT", "tcp://10.0.0.1:8787"),
            ("SIDESTREAM_PORT_8787_TCP", "tcp://10.0.0.1:8787"),
            ("SIDESTREAM_PORT_8787_TCP_ADDR", "10.0.0.1"),
            ("SIDESTREAM_HEALTH_SERVICE_HOST", "10.0.0.1"),
            ("SIDESTREAM_HEALTH_PORT_8789_TCP_PROTO", "tcp"),
        ];
        assert!(names(&links).is_empty());
        assert_eq!(names(&[("SIDESTREAM_PORT", "8787")]), ["port"]);
    }
}
