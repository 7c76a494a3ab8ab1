//! What holds when the store fails.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

#[allow(unused_imports, dead_code, reason = "shared with the tests of the demo page")]
#[path = "../support/mod.rs"]
mod support;

mod deployments;
