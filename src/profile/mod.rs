//! Asks a backend the questions of suites, measures what each answer took, and keeps both in a record file.
//!
//! In the order of a run: [`pick`] chooses questions, [`metered`] lets the machine come to rest, [`run`] asks through the
//! gateway's own backends ([`asker`], [`listen`]) at each [`level`] of concurrency, [`charge`] puts joules on answers, [`log`]
//! appends them as [`record`] tells, [`regrade`] grades what older graders read otherwise, [`judge`] scores what no grader can, and [`table`] makes a table of the file.
//! Invariants: every answer is on disk before the next is asked for long; what was not scored leaves accuracy and energy
//! alike and is counted; an unknown figure is null.

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
mod queue;
pub mod record;
pub mod regrade;
pub mod report;
pub mod run;
pub mod suite;
pub mod table;
mod warm;
