//! Places that answer: hardened HTTP upstreams and the embedded engine, behind one `ask`.

pub mod breaker;
pub mod embedded;
pub mod lease;
mod render;
pub mod retry;
pub mod types;
