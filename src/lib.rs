//! wattroute: a gateway that sends each LLM query to a local accelerator or a cloud endpoint by measured intelligence per watt.

pub mod api;
pub mod backend;
pub mod cache;
pub mod classify;
pub mod cli;
pub mod clock;
pub mod config;
pub mod edge;
pub mod energy;
pub mod engine;
pub mod fault;
pub mod fetch;
pub mod gate;
pub mod journal;
pub mod lla;
pub mod meter;
pub mod models;
pub mod policy;
pub mod predict;
pub mod relay;
pub mod tables;
#[cfg(feature = "train")]
pub mod train;
