//! The `sidestream` binary.

fn main() {}
