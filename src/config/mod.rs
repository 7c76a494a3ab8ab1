//! Configuration: one value, read once, merged (flags > environment > file > defaults) and
//! validated before a port opens. Nothing here changes while the process runs.

mod settings;

pub use settings::*;
