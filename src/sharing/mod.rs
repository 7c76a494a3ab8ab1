//! What clients do in a session beside runs: being here (`attendance`) and publishing (`publisher`).
//!
//! Both keep what this instance owes the log: leases that are renewed for as long as a connection
//! lives, and the count of the entries that it has published. Nothing here reads a session, and
//! nothing here decides who may do what.

mod attendance;
mod publisher;

pub use attendance::{Attendance, Seats};
pub use publisher::{NotPublished, Publisher};
