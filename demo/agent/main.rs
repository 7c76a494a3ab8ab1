//! The demo agent: replays recorded answers.

fn main() {}
