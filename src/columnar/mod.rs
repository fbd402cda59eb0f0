//! Parquet: files as lines of JSON, and rows of JSON as files. Nothing else knows the format.
//!
//! Rows go through one at a time, a row group at most is held; a file that is cut off is an error, because its end holds where
//! everything else is.

pub mod parts;
pub mod read;
pub mod write;
