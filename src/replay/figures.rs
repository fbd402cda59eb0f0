//! Figures of a router's score: the curve of quality over the share of strong calls, and what is read off it. Pure.

use serde::Serialize;

use super::sketch::Bin;
use crate::predict::quality;

/// What a score is worth, over all thresholds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Worth {
    /// Mean gap recovered over all shares of strong calls; a coin gives 0.5.
    pub apgr: Option<f64>,
    /// Least share of strong calls that recovers half of the gap.
    pub cpt50: Option<f64>,
    /// Least share that recovers four fifths.
    pub cpt80: Option<f64>,
    /// Area under the hull of quality over joules, over the span of joules; none where joules are unknown.
    pub aiq: Option<f64>,
    /// The same of a coin between the two models: what a router must beat.
    pub aiq_coin: Option<f64>,
}

/// One point of a curve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// Share of strong calls.
    pub strong_share: f64,
    /// Share right.
    pub accuracy: f64,
    /// Joules per query (mid), where known.
    pub joules: f64,
}

/// Points from everything local to everything in the cloud, in the order of the score; queries of one bin come together.
pub fn points(bins: &[Bin]) -> Vec<Point> {
    let n: f64 = bins.iter().map(|b| b.n).sum();
    let mut right: f64 = bins.iter().map(|b| b.weak).sum();
    let mut joules: f64 = bins.iter().map(|b| b.weak_joules).sum();
    let mut calls = 0.0;
    let mut out = vec![Point { strong_share: 0.0, accuracy: right / n, joules: joules / n }];
    for bin in bins {
        calls += bin.n;
        right += bin.strong - bin.weak;
        joules += bin.strong_joules - bin.weak_joules;
        out.push(Point { strong_share: calls / n, accuracy: right / n, joules: joules / n });
    }
    out
}

/// Accuracy at a share of strong calls, between points by a straight line.
pub fn at(points: &[Point], share: f64) -> Option<f64> {
    quality::at(&by_share(points), share)
}

/// All of it, by the definitions of [`quality`], over all thresholds instead of ten of them.
pub fn worth(points: &[Point]) -> Worth {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Worth::default() };
    let (weak, strong) = (first.accuracy, last.accuracy);
    let curve = by_share(points);
    let costs: Vec<quality::Point> =
        points.iter().map(|p| quality::Point { cost: p.joules, quality: p.accuracy }).collect();
    let span =
        costs.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), p| (low.min(p.cost), high.max(p.cost)));
    let ends: Vec<quality::Point> = costs.first().into_iter().chain(costs.last()).copied().collect();
    Worth {
        apgr: quality::apgr(&curve, weak, strong),
        cpt50: quality::cpt(&curve, weak, strong, 0.5),
        cpt80: quality::cpt(&curve, weak, strong, 0.8),
        aiq: quality::aiq(&costs, span),
        aiq_coin: quality::aiq(&ends, span),
    }
}

fn by_share(points: &[Point]) -> Vec<quality::Point> {
    points.iter().map(|p| quality::Point { cost: p.strong_share, quality: p.accuracy }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins(rows: &[(f64, f64, f64)]) -> Vec<Bin> {
        rows.iter()
            .map(|(n, weak, strong)| Bin { n: *n, weak: *weak, strong: *strong, weak_joules: 0.0, strong_joules: *n })
            .collect()
    }

    #[test]
    fn hand_made_curves_give_hand_made_figures() {
        // A coin: one bin.
        let w = worth(&points(&bins(&[(10.0, 4.0, 8.0)])));
        assert!((w.apgr.unwrap() - 0.5).abs() < 1e-12 && (w.cpt50.unwrap() - 0.5).abs() < 1e-12);
        assert!((w.aiq.unwrap() - 0.6).abs() < 1e-12 && (w.aiq_coin.unwrap() - 0.6).abs() < 1e-12);
        // All of the gain in the first half: PGR rises to 1 at half, stays: area .25 + .5.
        let w = worth(&points(&bins(&[(5.0, 0.0, 4.0), (5.0, 4.0, 4.0)])));
        assert!((w.apgr.unwrap() - 0.75).abs() < 1e-12 && (w.cpt50.unwrap() - 0.25).abs() < 1e-12, "{w:?}");
        assert!((w.cpt80.unwrap() - 0.4).abs() < 1e-12);
        // An oracle that keeps what only the weak one has: above 1 is possible.
        let p = points(&bins(&[(4.0, 0.0, 4.0), (4.0, 2.0, 2.0), (2.0, 2.0, 0.0)]));
        assert!((at(&p, 0.4).unwrap() - 0.8).abs() < 1e-12);
        assert!(worth(&p).apgr.unwrap() > 1.0);
        assert_eq!(worth(&points(&bins(&[(4.0, 2.0, 2.0)]))).apgr, None);
    }
}
