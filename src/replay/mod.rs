//! Replay: what policies would have done with a log of queries, what that would have saved, and how sure that is.
//!
//! A log is read as batches of lines ([`source`], [`outcomes`]); a first pass learns what each side gets right, out of fold,
//! so that no query is predicted from its own label ([`predictions`]); then [`simulate`] sends every query through the same
//! [`crate::policy::Policy::decide`] as the live line, for all policies at once, and gives a [`partial::Partial`] that merges
//! with others in any order. [`outcome`] makes the figures. Nothing here talks to a backend; memory does not grow with the
//! log. Invariant: unknown joules and dollars are null, never 0, and every assumption is told in words.

pub mod arrays;
pub mod assemble;
pub mod blocks;
pub mod boot;
pub mod case;
pub mod checkpoint;
pub mod cost;
pub mod decide;
pub mod figures;
pub mod foreseen;
pub mod form;
pub mod front;
pub mod keep;
pub mod learned;
pub mod offpolicy;
pub mod outcome;
pub mod outcomes;
pub mod own;
pub mod page;
pub mod partial;
pub mod predictions;
pub mod prepare;
pub mod prices;
pub mod programs;
pub mod queue;
pub mod reader;
pub mod round;
pub mod rows;
pub mod run;
pub mod shapes;
pub mod show;
pub mod simulate;
pub mod sketch;
pub mod source;
pub mod taxonomy;
pub mod turn;
pub mod way;
pub mod whole;
pub mod words;
pub mod worst;
