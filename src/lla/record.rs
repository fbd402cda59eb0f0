//! Where each of a row's moments lies.

use crate::lla::Attention;
use crate::lla::ridge::Rho;
use crate::lla::store::LANES;

/// How a row's moments lie in memory: a line of numbers, the weighted sum of values, and for projections that of `t v`.
#[derive(Clone, Copy)]
pub struct Record {
    /// Values per row rounded up to whole lines.
    pub width: usize,
    /// Numbers per record.
    pub len: usize,
}

impl Record {
    /// Largest score.
    pub const MOST: usize = 0;
    /// Sum of weights relative to it.
    pub const TOTAL: usize = 1;
    /// Weighted sum of `t`.
    pub const SLOPE: usize = 2;
    /// Where the sum of values starts.
    pub const SUMS: usize = LANES;

    /// Of a job's rows.
    pub fn of(job: &Attention) -> Self {
        let width = job.shape.value_dim.next_multiple_of(LANES);
        let sums = if matches!(job.rho, Rho::Projection(_)) { 2 } else { 1 };
        Self { width, len: LANES + sums * width }
    }
}
