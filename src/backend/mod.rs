//! Places that answer: hardened HTTP upstreams and the embedded engine, behind one `ask`.

pub mod types;
