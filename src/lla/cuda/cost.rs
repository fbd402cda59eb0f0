//! What a job cost by the published formulas, from its sizes and the iterations its rows took.

use crate::lla::Shape;
use crate::lla::cuda::plan::DECODE_TOKENS;
use crate::lla::cuda::steps::{Kind, Sizes};
use crate::lla::report::Report;
use crate::lla::store::Precision;

/// What the report needs of a job.
#[derive(Clone, Debug)]
pub struct Done {
    /// Tokens, positions, ridges.
    pub sizes: Sizes,
    /// Heads.
    pub shape: Shape,
    /// How keys and values are kept.
    pub precision: Precision,
}

impl Done {
    /// Cost by the formulas of [`Report`]; decode's moments are those of its covariance, in one pass over the keys:
    /// 3 n d^2 + 7 n d + d^3 / 3 operations, 2 n d numbers read.
    #[expect(clippy::cast_sign_loss, reason = "counts below 0 are sorted out first")]
    pub fn report(&self, iterations: &[i32]) -> Report {
        let Shape { heads, kv_heads, dim, value_dim } = self.shape;
        let Sizes { tokens, first, window, kind, .. } = &self.sizes;
        let stored = if self.precision == Precision::Half { 2 } else { 4 };
        let mut report = Report { rows: iterations.len() as u64, ..Report::default() };
        for (row, count) in iterations.iter().enumerate() {
            let (token, head) = (row / heads, row % heads);
            let seen = (first + token + 1).min(window.unwrap_or(usize::MAX));
            let once = seen * (dim + value_dim);
            let lambda = match kind {
                Kind::Solve(lambda) => lambda.get(head).copied().unwrap_or(f32::INFINITY),
                Kind::Projected => f32::INFINITY,
            };
            let (mut flops, mut passes) = (2 * once, 2);
            if *kind == Kind::Projected {
                flops *= 2;
            }
            if lambda.is_finite() {
                if *count < 0 {
                    report.fell_back += 1;
                } else {
                    report.iterations.add(head, *count as usize, 1);
                }
                let taken = usize::try_from(*count).unwrap_or(0);
                if *tokens <= DECODE_TOKENS {
                    report.factored += 1;
                    flops = seen * dim * (dim + 2 * value_dim) + 7 * seen * dim + dim * dim * dim / 3;
                } else {
                    (flops, passes) = (2 * once * (taken + 2), taken + 3);
                }
            }
            report.flops += flops as u64;
            if head.is_multiple_of(heads / kv_heads) {
                report.kv_bytes += (once * stored * passes / 2) as u64;
            }
        }
        report
    }
}
