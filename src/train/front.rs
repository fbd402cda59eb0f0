//! Figures of merit of a check: AUC, calibration, and quality against joules of a cascade beside its rivals.
//!
//! Pure, on rows of two models that answered the same questions; intervals by bootstrap over questions.
#![allow(clippy::indexing_slicing, reason = "indices are drawn below the length of the rows, which all columns share")]
#![allow(clippy::cast_precision_loss, reason = "counts of a few thousand questions")]

/// One question that both models answered.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The weak model was right.
    pub weak: bool,
    /// The strong model was right.
    pub strong: bool,
    /// Joules of the weak answer.
    pub weak_j: f64,
    /// Joules of the strong answer.
    pub strong_j: f64,
    /// Score after the weak answer: high is trusted.
    pub after: f64,
    /// Score before it.
    pub before: f64,
}

/// A point on a front.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Share of questions that the strong model answers.
    pub share: f64,
    /// Share answered right.
    pub quality: f64,
    /// Joules a question.
    pub joules: f64,
}

/// Bootstrap samples.
const SAMPLES: usize = 1000;

/// P(a right answer scores higher than a wrong one), ties half; not a number without both kinds.
pub fn auc(scores: &[f64], right: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let (mut ranks, mut from) = (0.0, 0);
    while from < order.len() {
        let to = order[from..].iter().take_while(|i| scores[**i] == scores[order[from]]).count() + from;
        let rank = (from + to + 1) as f64 / 2.0;
        ranks += rank * order[from..to].iter().filter(|i| right[**i]).count() as f64;
        from = to;
    }
    let good = right.iter().filter(|r| **r).count() as f64;
    let bad = right.len() as f64 - good;
    (ranks - good * (good + 1.0) / 2.0) / (good * bad)
}

/// Expected calibration error over ten bins of equal width.
pub fn ece(p: &[f64], right: &[bool]) -> f64 {
    let mut bins = [[0.0; 3]; 10];
    for (p, right) in p.iter().zip(right) {
        let bin = &mut bins[((p * 10.0) as usize).min(9)];
        bin[0] += 1.0;
        bin[1] += p;
        bin[2] += f64::from(u8::from(*right));
    }
    bins.iter().map(|[_, p, right]| (p - right).abs()).sum::<f64>() / p.len().max(1) as f64
}

/// 95 % interval of a figure of resampled rows; samples without a figure are left out.
pub fn interval(n: usize, seed: u64, figure: impl Fn(&[usize]) -> f64) -> [f64; 2] {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut all: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let rows: Vec<usize> = (0..n).map(|_| rng.usize(0..n.max(1))).collect();
            figure(&rows)
        })
        .filter(|x| x.is_finite())
        .collect();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all.get((share * all.len() as f64) as usize).copied().unwrap_or(f64::NAN);
    [at(0.025), at(0.975)]
}

/// The cascade: all ask the weak model, the least trusted share the strong one too.
pub fn cascade(pairs: &[Pair], share: f64) -> Point {
    split(pairs, share, |p| p.after, |p| p.weak_j)
}

/// A router: the least trusted share before the answer asks the strong model only.
pub fn router(pairs: &[Pair], share: f64) -> Point {
    split(pairs, share, |p| p.before, |_| 0.0)
}

fn split(pairs: &[Pair], share: f64, score: impl Fn(&Pair) -> f64, wasted: impl Fn(&Pair) -> f64) -> Point {
    let mut order: Vec<&Pair> = pairs.iter().collect();
    order.sort_by(|a, b| score(a).total_cmp(&score(b)));
    let n = pairs.len().max(1) as f64;
    let strong = (share * n).round() as usize;
    let (mut right, mut joules) = (0.0, 0.0);
    for (i, pair) in order.iter().enumerate() {
        let (ok, j) = if i < strong { (pair.strong, pair.strong_j + wasted(pair)) } else { (pair.weak, pair.weak_j) };
        right += f64::from(u8::from(ok));
        joules += j;
    }
    Point { share: strong as f64 / n, quality: right / n, joules: joules / n }
}

/// Best quality of a router at no more joules than these, straight between its shares.
pub fn router_at(pairs: &[Pair], joules: f64) -> f64 {
    // The same answers summed in another order are as dear.
    let joules = joules * (1.0 + 1e-9);
    let points: Vec<Point> = (0..=20).map(|i| router(pairs, f64::from(i) / 20.0)).collect();
    let mut best = f64::NEG_INFINITY;
    for (i, a) in points.iter().enumerate() {
        for b in &points[i..] {
            let quality = if a.joules <= joules && b.joules <= joules {
                a.quality.max(b.quality)
            } else if a.joules.min(b.joules) <= joules {
                let t = (joules - a.joules) / (b.joules - a.joules);
                a.quality + t * (b.quality - a.quality)
            } else {
                continue;
            };
            best = best.max(quality);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(weak: bool, strong: bool, after: f64, before: f64) -> Pair {
        Pair { weak, strong, weak_j: 1.0, strong_j: 10.0, after, before }
    }

    #[test]
    fn auc_and_calibration_of_hand_made_figures() {
        let right = [true, false, true, false];
        assert_eq!(auc(&[0.9, 0.1, 0.8, 0.2], &right), 1.0);
        assert_eq!(auc(&[0.1, 0.9, 0.2, 0.8], &right), 0.0);
        assert_eq!(auc(&[0.5; 4], &right), 0.5);
        assert_eq!(auc(&[0.9, 0.2, 0.2, 0.1], &right), 0.875);
        assert!(auc(&[0.5], &[true]).is_nan());
        assert!((ece(&[0.9, 0.9, 0.1, 0.1], &[true, true, false, false]) - 0.1).abs() < 1e-12);
        assert!((ece(&[1.0, 1.0], &[true, false]) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_cascade_pays_for_both_answers_and_a_router_for_one() {
        let pairs = [
            pair(true, true, 0.9, 0.1),
            pair(false, true, 0.1, 0.9),
            pair(true, false, 0.8, 0.8),
            pair(false, false, 0.2, 0.2),
        ];
        assert_eq!(cascade(&pairs, 0.0), Point { share: 0.0, quality: 0.5, joules: 1.0 });
        assert_eq!(cascade(&pairs, 0.25), Point { share: 0.25, quality: 0.75, joules: 3.5 });
        assert_eq!(router(&pairs, 0.25), Point { share: 0.25, quality: 0.5, joules: 3.25 });
        assert_eq!(router(&pairs, 1.0), Point { share: 1.0, quality: 0.5, joules: 10.0 });
        assert_eq!(cascade(&pairs, 1.0).joules, 11.0);
        assert!(router_at(&pairs, 3.5) < 0.75 && router_at(&pairs, 3.5) >= 0.5);
        assert_eq!(router_at(&pairs, 0.5), f64::NEG_INFINITY);
    }

    #[test]
    fn an_interval_holds_its_figure_and_is_the_same_for_a_seed() {
        let xs: Vec<f64> = (0..100).map(f64::from).collect();
        let mean = |rows: &[usize]| rows.iter().map(|i| xs[*i]).sum::<f64>() / rows.len() as f64;
        let [low, high] = interval(xs.len(), 5, mean);
        assert!(low < 49.5 && high > 49.5 && high - low < 15.0, "{low} {high}");
        assert_eq!(interval(xs.len(), 5, mean), [low, high]);
    }
}
