//! Policies: a pure function from signals to a decision.
//!
//! Nothing here waits, reads a clock, a file or a socket ([`load`] excepted). Same signals, same policy file: same
//! decision, bit for bit.

pub mod bandit;
pub mod cascade;
mod decide;
pub mod decimal;
mod eligible;
pub mod explain;
pub mod explore;
mod file;
mod probe;
mod rank;
mod reason;
mod rules;
#[cfg(test)]
pub mod sample;
pub mod samples;
mod section;
mod shipped;
pub mod sticky;
pub mod types;

pub use self::file::{is_name, parse};
pub use self::probe::{Checked, Probe, StandIn, run_probes};
pub use self::rules::{Fallback, Minimise, Policy, Rule, Weights};
pub use self::shipped::{load, names, text};
