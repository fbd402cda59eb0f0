//! The wire formats: bytes to query, faults to bytes, and the SSE observer. Pure: no socket, no clock.

pub mod error;
pub mod models;
pub mod query;
