//! Places that answer: hardened HTTP upstreams and the embedded engine, behind one `ask`.

mod address;
pub mod breaker;
mod connect;
pub mod embedded;
mod fault;
mod headers;
pub mod http;
pub mod lease;
mod refusal;
mod render;
mod reply;
pub mod retry;
mod scrub;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
pub mod types;
