//! Replay on several machines: the same reading, deciding and adding as [`crate::replay`], run by DataFusion and Ballista.
//!
//! A log in an object store, of any format that one process reads but a journal's own file, is cut into pieces of whole lines or of row
//! groups ([`log`]), a table of them is scanned by the engine's executors ([`scan`], [`lines`], [`groups`]), and two aggregate functions ([`sums`]) go over it. The first, `wattroute_survey`, tells what needs the
//! log's order: lines, keys, arrivals, domains. The client puts these in order ([`order`]). The second, `wattroute_simulate`, is
//! [`crate::replay::simulate`] and gives mergeable partial sums, and where the log has arrivals each decision with its seconds of service:
//! the queue at the local device is a walk through the whole log in order, and the client makes it. What it needs ([`job`]) travels inside the function
//! ([`codec`]). What is learned from labels comes from the log's first 200,000 queries, as in one process, and is computed by
//! the client; a predictor per query travels as its weights. A lost executor's pieces are handed to others by the engine. Invariant: counts are those of one process bit for
//! bit, waits too, sums to rounding.
//!
//! Of a piece with more than twenty million queries (a trace that is packed as a whole) the decisions do not fit into a message: waits are
//! then not computed, and the result says so.

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
