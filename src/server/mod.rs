//! The data listener: accepts connections, speaks HTTP/1.1 and HTTP/2 (by prior knowledge), and
//! hands every request to one service function; [`Router`] is the data listener's.

mod body;
mod connection;
mod cookie;
mod keepalive;
mod late_abort;
mod listener;
mod problem;
mod router;

pub use body::{Body, BodyError, empty, full};
pub use cookie::cookie;
pub use keepalive::KeptAlive;
pub use listener::{Manners, Peer, serve};
pub use problem::Problem;
pub use router::{Router, own_path};
