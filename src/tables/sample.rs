//! Intervals of means, ratios of means and differences of shares; quantiles. Pure.
//!
//! All intervals are at 95 % and speak of the spread of the queries alone: what a meter may be wrong by is stated beside them.

use super::fit::student;
use super::stats::{wilson, wilson_share};

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;
/// Seed of a bootstrap: the same records give the same interval.
const SEED: u64 = 0x7761_7474;
/// Fewest values whose mean gets an interval.
const FEWEST: usize = 2;

/// A difference or ratio with its interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Between {
    /// The figure.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Between {
    /// Whether the interval leaves `nothing` (0 of a difference, 1 of a ratio) outside.
    pub fn excludes(&self, nothing: f64) -> bool {
        self.low > nothing || self.high < nothing
    }
}

/// Mean; none of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / count(values.len()))
}

/// The value that a share `p` of the values is at most, interpolated. `sorted` rises.
pub fn quantile(sorted: &[f64], p: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = p.clamp(0.0, 1.0) * count(last);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the last index")]
    let below = at.floor() as usize;
    let (low, high) = (sorted.get(below)?, sorted.get((below + 1).min(last))?);
    Some(low + (high - low) * (at - at.floor()))
}

/// Student's interval of a mean.
pub fn mean_interval(values: &[f64]) -> Option<[f64; 2]> {
    let (middle, variance) = moments(values)?;
    let half = student(values.len() - 1) * (variance / count(values.len())).sqrt();
    Some([middle - half, middle + half])
}

/// Interval of E\[right\] / E\[cost\]: Wilson's for the share and Student's for the mean, joined with their correlation by the method of
/// variance estimates recovery for ratios (Donner and Zou 2012). Unlike a bootstrap it stays open upwards when nothing was right.
pub fn share_over_cost(pairs: &[(bool, f64)]) -> Option<[f64; 2]> {
    let right = pairs.iter().filter(|p| p.0).count();
    let share = count(right) / count(pairs.len());
    let costs: Vec<f64> = pairs.iter().map(|p| p.1).collect();
    let (cost, variance) = moments(&costs)?;
    let ends = mean_interval(&costs)?;
    let (low, high) = wilson_share(share, count(pairs.len()));
    let together: f64 =
        pairs.iter().map(|(r, c)| (f64::from(u8::from(*r)) - share) * (c - cost)).sum::<f64>() / count(pairs.len() - 1);
    let scale = (share * (1.0 - share) * variance).sqrt();
    let correlation = if scale > 0.0 { (together / scale).clamp(-1.0, 1.0) } else { 0.0 };
    recovered((share, low, high), (cost, ends), correlation)
}

/// MOVER-R with correlation `r`; none where the cost is not known to within itself.
fn recovered((a, la, ua): (f64, f64, f64), (b, [lb, ub]): (f64, [f64; 2]), r: f64) -> Option<[f64; 2]> {
    if lb <= 0.0 || 2.0 * b - ub <= 0.0 || b <= 0.0 {
        return None;
    }
    let low_mid = a * b - r * (a - la) * (ub - b);
    let low = (low_mid - (low_mid * low_mid - la * ub * (2.0 * a - la) * (2.0 * b - ub)).max(0.0).sqrt())
        / (ub * (2.0 * b - ub));
    let high_mid = a * b - r * (ua - a) * (b - lb);
    let high = (high_mid + (high_mid * high_mid - ua * lb * (2.0 * a - ua) * (2.0 * b - lb)).max(0.0).sqrt())
        / (lb * (2.0 * b - lb));
    Some([low.clamp(0.0, a / b), high.max(a / b)])
}

/// Difference of two shares of different questions, second minus first: Newcombe's interval from two of Wilson's.
pub fn difference((c1, n1): (u32, u32), (c2, n2): (u32, u32)) -> Option<Between> {
    if n1 == 0 || n2 == 0 {
        return None;
    }
    let (a, b) = (f64::from(c1) / f64::from(n1), f64::from(c2) / f64::from(n2));
    let ((la, ua), (lb, ub)) = (wilson(c1, n1), wilson(c2, n2));
    let value = b - a;
    let low = value - ((b - lb).powi(2) + (ua - a).powi(2)).sqrt();
    let high = value + ((ub - b).powi(2) + (a - la).powi(2)).sqrt();
    Some(Between { value, low, high })
}

/// Difference of two shares of the same questions, second minus first: only questions on which the two differ tell (the
/// adjusted interval of Bonett and Price 2012).
pub fn paired(pairs: &[(bool, bool)]) -> Option<Between> {
    if pairs.is_empty() {
        return None;
    }
    let n = count(pairs.len());
    let gained = count(pairs.iter().filter(|p| !p.0 && p.1).count());
    let lost = count(pairs.iter().filter(|p| p.0 && !p.1).count());
    let value = (gained - lost) / n;
    let (g, l) = ((gained + 1.0) / (n + 2.0), (lost + 1.0) / (n + 2.0));
    let half = 1.959_963_984_540_054 * ((g + l - (g - l).powi(2)) / (n + 2.0)).max(0.0).sqrt();
    let low = (g - l - half).clamp(-1.0, value);
    let high = (g - l + half).clamp(value, 1.0);
    Some(Between { value, low, high })
}

/// Ratio of two means by bootstrap, second over first: `draw` resamples a whole and gives both means.
fn bootstrap(value: f64, mut draw: impl FnMut(&mut fastrand::Rng) -> Option<f64>) -> Option<Between> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut seen: Vec<f64> = (0..RESAMPLES).filter_map(|_| draw(&mut random)).filter(|x| x.is_finite()).collect();
    seen.sort_unstable_by(f64::total_cmp);
    let (low, high) = (quantile(&seen, 0.025)?, quantile(&seen, 0.975)?);
    value.is_finite().then_some(Between { value, low: low.min(value), high: high.max(value) })
}

/// E\[second\] / E\[first\] over the same questions: questions are resampled, both figures of each together.
pub fn paired_ratio(pairs: &[(f64, f64)]) -> Option<Between> {
    if pairs.len() < FEWEST {
        return None;
    }
    let total = |each: &mut dyn Iterator<Item = (f64, f64)>| each.fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
    let (a, b) = total(&mut pairs.iter().copied());
    bootstrap(b / a, |random| {
        let (a, b) = total(&mut (0..pairs.len()).filter_map(|_| pairs.get(random.usize(..pairs.len())).copied()));
        Some(b / a)
    })
}

/// E\[second\] / E\[first\] of different questions.
pub fn ratio(first: &[f64], second: &[f64]) -> Option<Between> {
    if first.len() < FEWEST || second.len() < FEWEST {
        return None;
    }
    let value = mean(second)? / mean(first)?;
    let one = |values: &[f64], random: &mut fastrand::Rng| {
        (0..values.len()).filter_map(|_| values.get(random.usize(..values.len()))).sum::<f64>() / count(values.len())
    };
    bootstrap(value, |random| Some(one(second, random) / one(first, random)))
}

/// E\[second\] / E\[first\] where only means and their intervals are known: errors of logarithms, independent.
pub fn ratio_of_means((a, [la, ua]): (f64, [f64; 2]), (b, [lb, ub]): (f64, [f64; 2])) -> Option<Between> {
    let relative = |mid: f64, low: f64, high: f64| (high - low) / (2.0 * mid);
    let half = relative(a, la, ua).hypot(relative(b, lb, ub));
    let value = b / a;
    (value.is_finite() && value > 0.0 && half.is_finite()).then(|| Between {
        value,
        low: value * (-half).exp(),
        high: value * half.exp(),
    })
}

/// Mean and unbiased variance.
fn moments(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < FEWEST {
        return None;
    }
    let middle = mean(values)?;
    let variance = values.iter().map(|v| (v - middle).powi(2)).sum::<f64>() / count(values.len() - 1);
    variance.is_finite().then_some((middle, variance))
}

/// A count as a number.
#[expect(clippy::cast_precision_loss, reason = "counts of queries stay far below 2^52")]
pub fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated_and_nothing_has_none() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&values, 0.5), Some(2.5));
        assert_eq!(quantile(&values, 1.0), Some(4.0));
        assert_eq!((quantile(&[], 0.5), mean(&[]), mean_interval(&[1.0])), (None, None, None));
    }

    /// How often an interval of E[right] / E[cost] holds the truth; longer answers are less often right.
    #[test]
    fn the_interval_of_a_ratio_holds_the_truth_nineteen_times_in_twenty() {
        for share in [0.02, 0.1, 0.5, 0.9] {
            let mut random = fastrand::Rng::with_seed(7);
            let draw = |random: &mut fastrand::Rng| {
                let hard = random.f64();
                let right = random.f64() < (share * 2.0 * (1.0 - hard)).min(1.0);
                (right, 1.0 + 8.0 * hard * hard)
            };
            let many: Vec<(bool, f64)> = (0..400_000).map(|_| draw(&mut random)).collect();
            let truth = count(many.iter().filter(|p| p.0).count()) / many.iter().map(|p| p.1).sum::<f64>();
            let mut held = 0;
            for _ in 0..1000 {
                let sample: Vec<(bool, f64)> = (0..60).map(|_| draw(&mut random)).collect();
                let [low, high] = share_over_cost(&sample).unwrap();
                held += u32::from(low <= truth && truth <= high);
            }
            assert!((925..=995).contains(&held), "{share}: {held}");
        }
        // Nothing right: not an interval of width zero.
        let [low, high] = share_over_cost(&[(false, 1.0), (false, 1.1), (false, 0.9)]).unwrap();
        assert!(low == 0.0 && high > 0.3, "{high}");
    }

    #[test]
    fn differences_match_worked_examples() {
        // Newcombe 1998, method 10: 56/70 against 48/80 is .2000, .0524 to .3339.
        let d = difference((48, 80), (56, 70)).unwrap();
        assert!(
            (d.value - 0.2).abs() < 1e-9 && (d.low - 0.0524).abs() < 5e-4 && (d.high - 0.3339).abs() < 5e-4,
            "{d:?}"
        );
        assert!(d.excludes(0.0));
        assert_eq!(difference((0, 0), (1, 2)), None);
        // The same questions: 30 of 100 gained, 5 lost.
        let pairs: Vec<(bool, bool)> = (0..100)
            .map(|i| {
                if i < 30 {
                    (false, true)
                } else if i < 35 {
                    (true, false)
                } else {
                    (true, true)
                }
            })
            .collect();
        let d = paired(&pairs).unwrap();
        assert!((d.value - 0.25).abs() < 1e-12 && d.low > 0.13 && d.high < 0.36, "{d:?}");
        let same = vec![(true, true); 50];
        assert!(!paired(&same).unwrap().excludes(0.0));
    }

    #[test]
    fn pairing_sees_what_two_samples_cannot() {
        let mut random = fastrand::Rng::with_seed(3);
        let pairs: Vec<(f64, f64)> = (0..80)
            .map(|_| {
                let a = 1.0 + 50.0 * random.f64();
                (a, a * (1.05 + 0.02 * random.f64()))
            })
            .collect();
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let (together, alone) = (paired_ratio(&pairs).unwrap(), ratio(&a, &b).unwrap());
        assert!(together.excludes(1.0) && together.low > 1.04 && together.high < 1.08, "{together:?}");
        assert!(!alone.excludes(1.0) && (alone.value - together.value).abs() < 1e-12, "{alone:?}");
        let means = ratio_of_means((10.0, [9.0, 11.0]), (12.0, [10.8, 13.2])).unwrap();
        assert!(means.low > 1.02 && means.low < 1.06 && means.high > 1.36 && means.high < 1.40, "{means:?}");
    }
}
