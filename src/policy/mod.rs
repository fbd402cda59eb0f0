//! Policies: a pure function from signals to a decision.
//!
//! Nothing here waits, reads a clock, a file or a socket (the loader in `file` excepted). Same signals, same policy file:
//! same decision, bit for bit.

pub mod types;
