//! One file per command. Only these print.
#![allow(clippy::print_stdout, reason = "a command prints")]

pub mod check;
pub mod journal;
pub mod models;
