//! Configuration: one value, read once, merged (flags > environment > file > defaults) and
//! validated before a port opens. Nothing here changes while the process runs, and nothing here
//! prints a secret.
//!
//! `settings` holds the values as the rest of the program uses them. `options` holds one table of
//! all options, from which the readers and all documentation come; `value` and `kinds` know how
//! each kind of value is written; `presets` holds the routes of known backends; `load` merges `file`, `environment` and flags; `check` has the
//! rules about values together, `store_rules` those of the store.

mod call_kinds;
mod calls;
mod check;
mod document;
mod environment;
mod file;
mod kinds;
mod load;
mod network;
mod options;
mod presets;
mod presets_page;
mod principal;
mod problem;
mod route;
mod route_kinds;
mod route_settings;
mod routes;
mod secret;
mod session_rule;
mod settings;
mod store;
mod store_rules;
mod store_url;
mod value;
mod warnings;

pub use calls::{CallTemplate, CancelPolicy, Credential, EventValue, SteerPolicy};
pub use document::{default_file, page, summary};
pub use load::{Loaded, Sources, load};
pub use network::Network;
pub use options::{OPTIONS, Opt, ROUTE_OPTIONS, SECTIONS, Section};
pub use presets::{family_base, preset, presets};
pub use presets_page::presets_page;
pub use principal::PrincipalRule;
pub use problem::{Origin, Problem, Problems};
pub use route::{Condition, RoutePattern, path_segment};
pub use route_settings::*;
pub use routes::{Answers, KeptOut, Resume, Routes};
pub use secret::Secret;
pub use session_rule::SessionRule;
pub use settings::*;
pub use store::{Ack, Store};
pub use store_url::StoreUrl;
