//! Who asks. Authentication is not here yet: what is here tells users apart, and believes what the
//! request says.
//!
//! Must never: keep, log or answer a credential. What leaves this module is a digest.

mod principal;

pub use principal::Principal;
