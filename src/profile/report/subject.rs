//! What a report is about: one table with the answers behind it, as numbers for charts and for JSON. Pure.

use serde::Serialize;

use crate::profile::record::File;
use crate::tables::Table;
use crate::tables::sample::count;
use crate::tables::stats::wilson;

/// Bins of a calibration: as many as leave enough answers in each.
const BINS: usize = 8;
/// Fewest answers of a bin.
const PER_BIN: usize = 10;

/// One measured model.
#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    /// Short name, unique in the report.
    pub name: String,
    /// Its table.
    pub table: Table,
    /// Answers with known tokens and joules.
    pub points: Vec<Point>,
    /// How far its log-probabilities tell right from wrong; none without them.
    pub calibration: Option<Calibration>,
}

/// One answer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Prompt tokens.
    pub input: f64,
    /// Generated tokens.
    pub output: f64,
    /// Gross joules.
    pub joules: f64,
}

/// Confidence against correctness.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    /// By rising confidence.
    pub bins: Vec<Bin>,
    /// Chance that a right answer is more confident than a wrong one; none if there is none of either.
    pub auc: Option<f64>,
    /// Mean distance of confidence and correctness, by answers.
    pub error: f64,
    /// Answers.
    pub n: usize,
}

/// Answers of like confidence.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bin {
    /// Mean confidence: e to the mean log-probability of the generated tokens.
    pub confidence: f64,
    /// Share correct.
    pub correct: f64,
    /// Wilson interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Answers.
    pub n: u32,
}

impl Subject {
    /// A table with its record file, if there is one.
    pub fn new(name: String, table: Table, file: Option<&File>) -> Self {
        let answers = file.map(|f| f.answers.as_slice()).unwrap_or_default();
        let fewest = answers.iter().map(|r| r.streams).min();
        let single = || answers.iter().filter(move |r| Some(r.streams) == fewest);
        let point = |r: &crate::profile::record::Record| {
            let (input, output) = (f64::from(r.tokens_in?), f64::from(r.tokens_out?));
            Some(Point { input, output, joules: r.joules.gross? })
        };
        let sure: Vec<(f64, bool)> =
            single().filter_map(|r| Some((r.logprobs.as_ref()?.mean.exp().clamp(0.0, 1.0), r.correct?))).collect();
        Self { name, table, points: single().filter_map(point).collect(), calibration: calibrate(sure) }
    }
}

/// Bins of equal size by rising confidence.
pub fn calibrate(mut sure: Vec<(f64, bool)>) -> Option<Calibration> {
    if sure.len() < 2 * PER_BIN {
        return None;
    }
    sure.sort_by(|a, b| a.0.total_cmp(&b.0));
    let bins = (sure.len() / PER_BIN).clamp(2, BINS);
    let each: Vec<Bin> = sure.chunks(sure.len().div_ceil(bins)).map(bin).collect();
    let error = each.iter().map(|b| f64::from(b.n) * (b.confidence - b.correct).abs()).sum::<f64>() / count(sure.len());
    Some(Calibration { auc: auc(&sure), error, n: sure.len(), bins: each })
}

fn bin(answers: &[(f64, bool)]) -> Bin {
    let n = u32::try_from(answers.len()).unwrap_or(u32::MAX);
    let right = u32::try_from(answers.iter().filter(|a| a.1).count()).unwrap_or(u32::MAX);
    let (low, high) = wilson(right, n);
    let confidence = answers.iter().map(|a| a.0).sum::<f64>() / f64::from(n.max(1));
    Bin { confidence, correct: f64::from(right) / f64::from(n.max(1)), low, high, n }
}

/// Area under the curve by ranks; ties count half. `sure` rises.
fn auc(sure: &[(f64, bool)]) -> Option<f64> {
    let (mut below, mut sum, mut right) = (0.0, 0.0, 0.0);
    for group in sure.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let good = count(group.iter().filter(|a| a.1).count());
        let bad = count(group.len()) - good;
        sum += good * (below + bad / 2.0);
        below += bad;
        right += good;
    }
    Some(sum / (right * below)).filter(|a| a.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_that_tells_right_from_wrong_has_an_auc_of_one() {
        let sure: Vec<(f64, bool)> = (0..100).map(|i| (f64::from(i) / 100.0, i >= 50)).collect();
        let c = calibrate(sure.clone()).unwrap();
        assert_eq!((c.auc, c.n, c.bins.len()), (Some(1.0), 100, 8));
        assert!(c.bins[0].correct == 0.0 && c.bins[7].correct == 1.0 && c.bins[7].low > 0.6);
        let blind: Vec<(f64, bool)> = (0..100).map(|i| (0.5, i % 2 == 0)).collect();
        assert_eq!(calibrate(blind).unwrap().auc, Some(0.5));
        assert!(calibrate(sure[..19].to_vec()).is_none());
        assert_eq!(calibrate(vec![(0.9, true); 40]).unwrap().auc, None);
    }
}
