//! Runs a suite of questions against a local model and writes its table: coverage with intervals, joules with a basis.
//!
//! Every answered question is appended to a record file at once, so that a run that is cut goes on where it stopped.
//! Questions whose answer cannot be graded count as wrong for coverage only if the model did answer; questions that
//! failed (no answer at all) leave accuracy and energy alike and are counted.

pub mod asker;
pub mod charge;
pub mod counting;
pub mod grade;
pub mod judge;
pub mod level;
pub mod listen;
pub mod log;
pub mod metered;
pub mod pick;
pub mod record;
pub mod report;
pub mod run;
pub mod suite;
pub mod table;
