//! One file per command. Only these print.
#![allow(clippy::print_stdout, reason = "a command prints")]

pub mod ask;
pub mod check;
pub mod explain;
pub mod journal;
pub mod models;
pub mod profile;
pub mod serve;
pub mod tables;
