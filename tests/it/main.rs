//! The promises of Sidestream, each against the real binary, real sockets and a real store. One
//! module a promise; a test that a known failure of other systems asked for is named after the
//! failure's symptom.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

#[allow(unused_imports, dead_code, reason = "shared with the tests of the demo page")]
#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, unreachable_pub, reason = "shared with the interleavings")]
#[path = "../interleavings/plan.rs"]
mod plan;

mod attach;
mod bad_control;
mod bad_input;
mod bad_start;
mod browsers;
mod cancelling;
mod clusters;
mod codings;
mod compacted;
mod continuity;
mod cuts;
mod dialects;
mod disconnects;
mod everybody;
mod failovers;
mod fidelity;
mod filters;
mod framings;
mod identity;
mod instances;
mod joining;
mod keepalives;
mod known_failures;
mod late_sessions;
mod lifecycle;
mod many_devices;
mod multi_agent;
mod passthrough;
mod presets;
mod queueing;
mod real_input;
mod recording;
mod resume;
mod resume_routes;
mod retention;
mod retries;
mod runs;
mod same_key;
mod sending;
mod shutdown;
mod slow_readers;
mod slow_stores;
mod steering;
mod uploads;
mod wires;
mod writers;
