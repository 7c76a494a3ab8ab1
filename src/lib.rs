//! Sidestream: a sidecar that turns any server that streams Server-Sent Events into a
//! durable-session server.
//!
//! The modules stand in the order in which a token travels: `server` accepts, `intercept` asks
//! `proxy` to forward the request and sees an SSE answer, `sse` (or another `framing`) cuts the bytes into events, `run` appends them through
//! `log`, `hub` learns of the new tail, `gateway` sends frames written by `wire`. `session` holds
//! the words that all of them use. Beside the flow: `config`, `cli`, `telemetry`, `shutdown`,
//! `admin`, `auth`. Only `app` knows all parts.

pub mod server;

pub mod intercept;

pub mod proxy;

pub mod sse;

pub mod framing;

pub mod dialect;

pub mod run;

pub mod log;

pub mod hub;

pub mod sharing;

pub mod gateway;

pub mod control;

pub mod wire;

pub mod session;

pub mod admin;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
mod json_pointer;
mod random;
pub mod redis_url;
pub mod shutdown;
pub mod telemetry;
