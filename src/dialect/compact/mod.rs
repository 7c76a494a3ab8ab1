//! Compaction: neighbouring events of a run that differ only in their dialect's delta texts (and in its
//! counters) become one event of the same dialect with the concatenated text, which any client of the
//! dialect can read.
//!
//! A [`Compactor`] takes the entries of a log in their order and gives them out again, merged where they
//! may be. It never decodes a text (the raw contents of the JSON strings are joined, escapes as they
//! are), never reorders what is not of one block, never holds more than [`BLOCK_BYTES`] back, and merges
//! nothing that it is not sure of: what it cannot read goes out as it came.

mod compactor;
mod lane;
mod scan;
mod shape;
mod template;

pub use compactor::{BLOCK_BYTES, Compacted, Compactor, Merged, Placed};
