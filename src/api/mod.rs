//! The wire formats: bytes to query, faults to bytes, and the SSE observer. Pure: no socket, no clock.

mod asked;
mod chat;
mod completions;
pub mod error;
pub(crate) mod event;
mod fields;
pub mod models;
pub mod query;
pub mod read;
pub mod rewrite;
pub mod sampled;
mod scan;
pub mod sse;
mod twin;

pub use read::{read_query, read_within};
pub use rewrite::{Wants, rewrite};
