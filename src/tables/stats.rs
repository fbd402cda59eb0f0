//! The arithmetic of tables: Wilson intervals, ratios of means, shrinkage of thin domains.
//!
//! Pure. A figure that cannot be had is none, never 0.

use super::Row;
use crate::classify::domain::{DOMAINS, Domain};

/// Two-sided 95 % quantile of the normal distribution.
const Z95: f64 = 1.959_963_984_540_054;
/// Strength of the prior, in queries, when a table has too few domains to estimate it.
const DEFAULT_STRENGTH: f64 = 20.0;
/// Bounds of the estimated strength: below, one lucky domain rules; above, real differences between domains vanish.
const STRENGTH: (f64, f64) = (4.0, 400.0);

/// Wilson interval at 95 % of `correct` out of `n`. With nothing scored it is the whole of \[0, 1\].
pub fn wilson(correct: u32, n: u32) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    wilson_share(f64::from(correct) / f64::from(n), f64::from(n))
}

/// [`wilson`] for a share and a count that need not be whole.
pub fn wilson_share(share: f64, n: f64) -> (f64, f64) {
    if n <= 0.0 || !n.is_finite() || !share.is_finite() {
        return (0.0, 1.0);
    }
    let z2 = Z95 * Z95;
    let middle = share + z2 / (2.0 * n);
    let spread = Z95 * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).max(0.0).sqrt();
    let under = 1.0 + z2 / n;
    (((middle - spread) / under).clamp(0.0, 1.0), ((middle + spread) / under).clamp(0.0, 1.0))
}

/// One answered query: right or wrong, watts while answering, seconds.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Answered correctly.
    pub correct: bool,
    /// Mean power, W.
    pub watts: f64,
    /// Wall time, s.
    pub seconds: f64,
}

/// Intelligence per watt, in 1/W: E\[acc\] / E\[W\]. A ratio of means, not a mean of ratios.
pub fn ipw(samples: &[Sample]) -> Option<f64> {
    over(samples, |s| s.watts)
}

/// Intelligence per joule, in 1/J: E\[acc\] / E\[W x s\].
pub fn ipj(samples: &[Sample]) -> Option<f64> {
    over(samples, |s| s.watts * s.seconds)
}

fn over(samples: &[Sample], cost: impl Fn(&Sample) -> f64) -> Option<f64> {
    let right = samples.iter().filter(|s| s.correct).count();
    let total: f64 = samples.iter().map(cost).sum();
    (total > 0.0 && total.is_finite()).then(|| as_f64(right) / total)
}

/// Coverage of each domain, pulled towards the table's overall share: the mean of a beta-binomial model.
///
/// Each domain's true share is taken as drawn from Beta(m·mu, m·(1−mu)) around the overall share mu. The strength m is
/// estimated from how far the domains lie apart beyond what their n explains (method of moments); a domain with n
/// queries then counts n/(n+m) for itself. A domain without queries gets mu, with the spread between domains as interval.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The overall share.
    pub overall: f64,
    /// The prior's strength m, in queries.
    pub strength: f64,
    cells: [Cell; DOMAINS],
}

/// One domain after shrinkage.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cell {
    /// Shrunk share.
    pub mean: f64,
    /// Lower end of its interval at 95 %.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Scored queries of this domain alone.
    pub n: u32,
}

impl Shrunk {
    /// Shrinks the rows of a table.
    pub fn of<'a>(overall: &Row, rows: impl Iterator<Item = (Domain, &'a Row)> + Clone) -> Self {
        let mu = overall.coverage.clamp(0.0, 1.0);
        let strength = strength(mu, rows.clone().map(|(_, r)| (r.coverage, f64::from(r.n))));
        let mut counts = [(0.0, 0u32); DOMAINS];
        for (domain, row) in rows {
            if let Some(cell) = counts.get_mut(domain.index()) {
                *cell = (row.coverage.clamp(0.0, 1.0), row.n);
            }
        }
        let cells = counts.map(|(share, n)| {
            let own = f64::from(n);
            let mean = (share * own + mu * strength) / (own + strength);
            let (low, high) = wilson_share(mean, own + strength);
            Cell { mean, low, high, n }
        });
        Self { overall: mu, strength, cells }
    }

    /// One domain.
    pub fn of_domain(&self, domain: Domain) -> Cell {
        self.cells.get(domain.index()).copied().unwrap_or_default()
    }

    /// All domains in the taxonomy's order.
    pub fn cells(&self) -> &[Cell; DOMAINS] {
        &self.cells
    }
}

/// Method of moments: the variance between domains that sampling does not explain. `mu` is the overall share; each row is a
/// domain's share and its queries.
pub fn strength(mu: f64, rows: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (mut count, mut spread, mut noise) = (0u32, 0.0, 0.0);
    for (share, n) in rows.filter(|(_, n)| *n > 0.0) {
        count += 1;
        spread += (share - mu).powi(2);
        noise += mu * (1.0 - mu) / n;
    }
    if count < 3 {
        return DEFAULT_STRENGTH;
    }
    let between = (spread - noise) / f64::from(count);
    if between <= 0.0 {
        return STRENGTH.1;
    }
    (mu * (1.0 - mu) / between - 1.0).clamp(STRENGTH.0, STRENGTH.1)
}

#[expect(clippy::cast_precision_loss, reason = "counts of queries stay far below 2^52")]
fn as_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(correct: u32, n: u32) -> Row {
        Row { n, correct, coverage: f64::from(correct) / f64::from(n), ..Row::default() }
    }

    #[test]
    fn ipw_and_ipj_are_ratios_of_means() {
        let hand = [(true, 100.0, 2.0), (false, 200.0, 1.0), (true, 300.0, 4.0)];
        let samples = hand.map(|(correct, watts, seconds)| Sample { correct, watts, seconds });
        assert!((ipw(&samples).unwrap() - 3.333_333e-3).abs() < 1e-8);
        assert!((ipj(&samples).unwrap() - 1.25e-3).abs() < 1e-12);
        let mean_of_ratios = (1.0 / 100.0 + 0.0 + 1.0 / 300.0) / 3.0;
        assert!((ipw(&samples).unwrap() - mean_of_ratios).abs() > 1e-3);
        assert_eq!(ipw(&[]), None);
        assert_eq!(ipj(&[Sample { correct: true, watts: 0.0, seconds: 1.0 }]), None);
    }

    #[test]
    fn the_papers_batch_sweep_is_accuracy_over_joules() {
        // Qwen3-8B on a B200, 57.5 % right: 6,449 J per query at batch 1, 548 J at batch 64.
        for (joules, printed) in [(6449.0, 8.92e-5), (548.0, 104.93e-5)] {
            let one = |i| Sample { correct: i < 575, watts: joules / 10.0, seconds: 10.0 };
            let all: Vec<Sample> = (0..1000).map(one).collect();
            assert!((ipj(&all).unwrap() / printed - 1.0).abs() < 0.001);
        }
    }

    #[test]
    fn wilson_matches_known_values_and_stays_inside() {
        let (low, high) = wilson(8, 10);
        assert!((low - 0.4901).abs() < 5e-4 && (high - 0.9433).abs() < 5e-4, "{low} {high}");
        assert_eq!(wilson(0, 10).0, 0.0);
        assert!((wilson(0, 10).1 - 0.2775).abs() < 5e-4);
        assert!(wilson(10, 10).1 > 1.0 - 1e-12);
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }

    #[test]
    fn thin_domains_move_to_the_overall_share_and_thick_ones_stay() {
        let overall = row(700, 1000);
        let (thin, thick, third) = (row(0, 2), row(100, 200), row(600, 798));
        let names = [Domain::at(0).unwrap(), Domain::at(1).unwrap(), Domain::at(2).unwrap()];
        let rows = [(names[0], &thin), (names[1], &thick), (names[2], &third)];
        let shrunk = Shrunk::of(&overall, rows.into_iter());
        let (a, b) = (shrunk.of_domain(names[0]), shrunk.of_domain(names[1]));
        assert!(a.mean > 0.35 && a.high - a.low > 0.3, "{a:?}");
        assert!((b.mean - 0.5).abs() < 0.05 && b.low < b.mean && b.mean < b.high, "{b:?}");
        let none = shrunk.of_domain(Domain::NONE);
        assert!((none.mean - 0.7).abs() < 1e-12 && none.n == 0);
    }

    #[test]
    fn domains_that_do_not_differ_are_pooled() {
        let overall = row(500, 1000);
        let cells = [row(52, 100), row(49, 100), row(50, 100), row(48, 100)];
        let rows = Domain::all().collect::<Vec<_>>().into_iter().zip(cells.iter());
        assert_eq!(Shrunk::of(&overall, rows).strength, STRENGTH.1);
    }
}
