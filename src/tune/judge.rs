//! What a policy came to on a set of queries, whether it keeps its limits, and whether it is better than another beyond noise. Pure.

use serde::Serialize;

/// Resamplings of an interval.
const RESAMPLES: usize = 2000;
/// Ends of an interval at 95 %.
const ENDS: [f64; 2] = [0.025, 0.975];

/// One policy on one query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// What the search minimises: joules, US dollars, grams or seconds; not a number where unknown.
    pub objective: f64,
    /// 1 right, 0 wrong, or a grade between.
    pub quality: f64,
    /// The strong backend's on the same query.
    pub strong: f64,
    /// Seconds to the last token, waiting included where arrivals are known; not a number where unknown.
    pub seconds: f64,
    /// Answered locally.
    pub local: bool,
    /// When it arrived, seconds; not a number where unknown.
    pub arrival_s: f64,
    /// Seconds of work at the local device; 0 where it is not asked.
    pub work: f64,
}

/// What must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    /// Accuracy, at least this share of always-strong's.
    pub accuracy: Option<f64>,
    /// 95 of 100 answers take at most so many seconds.
    pub p95_seconds: Option<f64>,
    /// At least this share answered locally.
    pub least_local: Option<f64>,
    /// At most this share answered locally.
    pub most_local: Option<f64>,
}

/// What a policy came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sums {
    /// Queries.
    pub n: usize,
    /// Mean of the objective; null where one query's is unknown.
    pub objective: Option<f64>,
    /// Mean quality.
    pub accuracy: f64,
    /// Mean quality of always-strong.
    pub accuracy_strong: f64,
    /// Standard error of the accuracy minus the demanded share of always-strong's, paired.
    pub standard_error: f64,
    /// Nearest rank; null where one query's is unknown.
    pub p95_seconds: Option<f64>,
    /// Share answered locally.
    pub local_share: f64,
}

/// A figure with its interval at 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// From all queries.
    pub value: f64,
    /// 2.5 of 100 resamplings lie below.
    pub low: f64,
    /// 2.5 of 100 lie above.
    pub high: f64,
}

/// Adds up. None where there is nothing.
pub fn sums(rows: &[Row], limits: &Limits) -> Option<Sums> {
    if rows.is_empty() {
        return None;
    }
    let n = as_f64(rows.len());
    let mean = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).sum::<f64>() / n;
    let wanted = limits.accuracy.unwrap_or(1.0);
    let margin = |r: &Row| r.quality - wanted * r.strong;
    let middle = mean(&margin);
    let variance = mean(&|r| (margin(r) - middle).powi(2));
    let objective = mean(&|r| r.objective);
    let mut seconds: Vec<f64> = rows.iter().map(|r| r.seconds).collect();
    seconds.sort_unstable_by(f64::total_cmp);
    let rank = rows.len() - 1 - rows.len() / 20;
    let whole = seconds.iter().all(|s| s.is_finite());
    Some(Sums {
        n: rows.len(),
        objective: objective.is_finite().then_some(objective),
        accuracy: mean(&|r| r.quality),
        accuracy_strong: mean(&|r| r.strong),
        standard_error: (variance / n).sqrt(),
        p95_seconds: seconds.get(rank).copied().filter(|_| whole),
        local_share: mean(&|r| f64::from(u8::from(r.local))),
    })
}

impl Limits {
    /// By how much they are missed, each as a share of itself; 0 where all are kept. `errors` standard errors are kept as a
    /// distance from the limit of accuracy, so that a policy which only just passes where it was tuned does not fail elsewhere.
    /// A limit on something unknown is missed.
    pub fn shortfall(&self, sums: &Sums, errors: f64) -> f64 {
        let accuracy = self.accuracy.map_or(0.0, |share| {
            let wanted = share * sums.accuracy_strong + errors * sums.standard_error;
            (wanted - sums.accuracy).max(0.0)
        });
        let late = self.p95_seconds.map_or(0.0, |most| sums.p95_seconds.map_or(1.0, |s| (s / most - 1.0).max(0.0)));
        let few = self.least_local.map_or(0.0, |least| (least - sums.local_share).max(0.0));
        let many = self.most_local.map_or(0.0, |most| (sums.local_share - most).max(0.0));
        accuracy + late + few + many
    }
}

/// The share of the old policy's objective that the new one saves, on the same queries; resampled in pairs. None where a figure
/// is unknown or the old policy's is 0.
pub fn saved(new: &[Row], old: &[Row], seed: u64) -> Option<Interval> {
    let pairs: Vec<(f64, f64)> = new.iter().zip(old).map(|(n, o)| (n.objective, o.objective)).collect();
    bootstrap(&pairs, seed, |sum_new, sum_old| 1.0 - sum_new / sum_old)
}

/// Accuracy as a share of always-strong's on the same queries.
pub fn kept(rows: &[Row], seed: u64) -> Option<Interval> {
    let pairs: Vec<(f64, f64)> = rows.iter().map(|r| (r.quality, r.strong)).collect();
    bootstrap(&pairs, seed, |own, strong| own / strong)
}

fn bootstrap(pairs: &[(f64, f64)], seed: u64, figure: impl Fn(f64, f64) -> f64) -> Option<Interval> {
    let add = |(a, b): (f64, f64), (x, y): (f64, f64)| (a + x, b + y);
    let (a, b) = pairs.iter().copied().fold((0.0, 0.0), add);
    let value = Some(figure(a, b)).filter(|v| v.is_finite() && b > 0.0)?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut values: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn = (0..pairs.len()).filter_map(|_| pairs.get(random.usize(..pairs.len())).copied());
            let (a, b) = drawn.fold((0.0, 0.0), add);
            figure(a, b)
        })
        .filter(|v| v.is_finite())
        .collect();
    values.sort_unstable_by(f64::total_cmp);
    let end = |share: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the list")]
        let rank = (share * as_f64(values.len().saturating_sub(1))).round() as usize;
        values.get(rank).copied()
    };
    let [low, high] = ENDS;
    Some(Interval { value, low: end(low)?, high: end(high)? })
}

#[expect(clippy::cast_precision_loss, reason = "counts of queries")]
fn as_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(objective: f64, quality: f64, local: bool) -> Row {
        Row { objective, quality, strong: 1.0, seconds: objective, local, arrival_s: f64::NAN, work: 0.0 }
    }

    #[test]
    fn sums_are_those_of_hand_made_rows() {
        let rows = [row(1.0, 1.0, true), row(3.0, 0.0, true), row(8.0, 1.0, false), row(4.0, 1.0, false)];
        let sums = sums(&rows, &Limits::default()).unwrap();
        assert_eq!((sums.n, sums.objective, sums.accuracy, sums.local_share), (4, Some(4.0), 0.75, 0.5));
        assert_eq!(sums.p95_seconds, Some(8.0));
        assert!((sums.standard_error - (0.1875_f64 / 4.0).sqrt()).abs() < 1e-12, "{sums:?}");
    }

    #[test]
    fn unknown_stays_unknown_and_misses_its_limit() {
        let rows = [row(1.0, 1.0, true), row(f64::NAN, 1.0, true)];
        let limits = Limits { p95_seconds: Some(100.0), ..Limits::default() };
        let sums = sums(&rows, &limits).unwrap();
        assert_eq!((sums.objective, sums.p95_seconds), (None, None));
        assert!(limits.shortfall(&sums, 0.0) > 0.0);
        assert_eq!(saved(&rows, &rows, 1), None);
        assert_eq!(super::sums(&[], &limits), None);
    }

    #[test]
    fn limits_are_missed_by_as_much_as_they_are() {
        let rows = [row(1.0, 1.0, true), row(3.0, 0.0, true)];
        let sums = sums(&rows, &Limits::default()).unwrap();
        let limits = Limits { accuracy: Some(0.9), least_local: Some(0.5), ..Limits::default() };
        assert!((limits.shortfall(&sums, 0.0) - 0.4).abs() < 1e-12);
        assert!(limits.shortfall(&sums, 1.0) > limits.shortfall(&sums, 0.0), "noise widens the distance");
        let most = Limits { most_local: Some(0.25), ..Limits::default() };
        assert!((most.shortfall(&sums, 0.0) - 0.75).abs() < 1e-12);
        assert!(Limits::default().shortfall(&sums, 5.0) <= 0.0);
    }

    #[test]
    fn a_saving_is_paired_and_noise_is_told_from_it() {
        let old: Vec<Row> = (0..400).map(|i| row(10.0 + f64::from(i % 7), 1.0, false)).collect();
        let new: Vec<Row> = old.iter().map(|r| row(r.objective * 0.8, 1.0, true)).collect();
        let gain = saved(&new, &old, 3).unwrap();
        assert!((gain.value - 0.2).abs() < 1e-9 && gain.low > 0.19 && gain.high < 0.21, "{gain:?}");
        let shuffled: Vec<Row> = (0..400).map(|i| row(if i % 2 == 0 { 1.0 } else { 20.0 }, 1.0, true)).collect();
        let mirrored: Vec<Row> = (0..400).map(|i| row(if i % 2 == 1 { 1.0 } else { 20.1 }, 1.0, true)).collect();
        let noise = saved(&shuffled, &mirrored, 3).unwrap();
        assert!(noise.low < 0.0 && noise.high > 0.0, "{noise:?}");
        assert_eq!(gain, saved(&new, &old, 3).unwrap());
        assert!((kept(&new, 1).unwrap().value - 1.0).abs() < 1e-12);
    }
}
