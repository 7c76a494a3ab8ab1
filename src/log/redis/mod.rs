//! The log on Redis Streams.
