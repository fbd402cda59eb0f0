//! Embedded local inference: GGUF weights, KV cache, sampling, chat templates by name, a bounded queue.
//!
//! Only this module knows candle. A model file can make loading fail; it cannot make the process fail.

pub mod cache;
pub mod dtype;
pub mod gguf;
pub mod metadata;
pub mod model;
pub mod types;
