//! The data listener: accepts connections, speaks HTTP/1.1 and HTTP/2 (by prior knowledge), and
//! hands every request to one service function. Knows nothing of routes, upstreams or sessions.

mod body;
mod connection;
mod listener;
mod problem;

pub use body::{Body, BodyError, empty, full};
pub use listener::{Manners, Peer, serve};
pub use problem::Problem;
