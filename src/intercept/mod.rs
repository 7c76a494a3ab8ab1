//! Between the proxy and the runs: which requests' answers are recorded, and the answers to clients
//! that come back for one.
//!
//! Must never change what the caller of a recorded stream gets, nor record what the route's rules
//! leave to the upstream.

mod interceptor;

pub use interceptor::Interceptor;
