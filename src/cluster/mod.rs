//! Replay on several machines: the same reading, deciding and adding as [`crate::replay`], run by DataFusion and Ballista.
//!
//! A log in an object store, of any format that one process reads but a journal's own file, is cut into pieces of whole lines or of row
//! groups ([`log`]), a table of them is scanned by the engine's executors ([`scan`], [`lines`], [`groups`]), and two aggregate functions ([`sums`]) go over it. The first, `wattroute_survey`, tells what needs the
//! log's order: lines, keys, arrivals, domains. The client puts these in order ([`order`]). The second, `wattroute_simulate`, is
//! [`crate::replay::simulate`] and gives mergeable partial sums. What it needs ([`job`]) travels inside the function
//! ([`codec`]). What is learned from labels comes from the log's first 200,000 queries, as in one process, and is computed by
//! the client. A lost executor's pieces are handed to others by the engine. Invariant: counts are those of one process bit for
//! bit, sums to rounding.
//!
//! Not given here: waiting on the local device, which is a walk through the whole log in order; a predictor per query, whose fit would
//! travel with every task.

pub mod codec;
pub mod engine;
pub mod groups;
pub mod job;
pub mod lines;
pub mod log;
pub mod order;
pub mod run;
pub mod scan;
pub mod stores;
pub mod sums;
