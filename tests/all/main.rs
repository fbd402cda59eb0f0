//! The integration tests: one binary, real sockets on port 0, no network beyond loopback.
#![allow(clippy::disallowed_methods, reason = "tests own their clock and their tasks")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod config;
mod embedded;
mod journal;
mod models_fetch;
mod real_model;
mod shape;
#[path = "../support/mod.rs"]
mod support;
