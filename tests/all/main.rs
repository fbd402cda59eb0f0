//! The integration tests: one binary, real sockets on port 0, no network beyond loopback.
#![allow(clippy::disallowed_methods, reason = "tests own their clock and their tasks")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod architectures;
mod bandit;
mod cascade;
mod classify;
mod config;
mod cut_stream;
mod embedded;
mod encoder;
mod energy;
mod feedback;
mod hang_up;
mod hosts;
mod journal;
mod learning;
mod limits;
mod local_decode;
mod metered;
mod misfortune;
mod models_fetch;
mod odd_framing;
mod odd_upstream;
mod panics;
mod paper;
mod private;
mod profile;
mod real_model;
mod reload;
mod replay;
mod replay_cascade;
mod report;
mod shadow;
mod shape;
mod smuggling;
mod smuggling_h2;
mod sticky;
mod streams;
mod success;
#[path = "../support/mod.rs"]
mod support;
mod surface;
mod tables;
mod tune;
