//! How good a prediction or a router is: the figures that published routers are compared by, on plain slices.
//!
//! Pure. Qualities are per query, 1 right and 0 wrong or any score; shares and costs are what the caller says they are. What
//! cannot be had (no query, one class only, a strong side that is not better, a figure that is not a number) is none, never 0.
//! Between the points of a curve a coin decides, so straight lines between points are what a router can do.

/// Bins of RouteLLM's threshold sweep: eleven edges at score quantiles.
pub const THRESHOLDS: u32 = 10;
/// Bins of the expected calibration error where nobody asks for another number.
pub const CALIBRATION_BINS: usize = 10;

/// What a router costs and how well it answers, both as means per query. For a pair of models `cost` is usually the share of
/// calls to the strong one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Cost per query, or the share of strong calls.
    pub cost: f64,
    /// Mean quality.
    pub quality: f64,
}

/// One query answered by both sides of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Both {
    /// Quality of the weak side's answer.
    pub weak: f64,
    /// Quality of the strong side's answer.
    pub strong: f64,
}

/// The curve of a score that says "send this one to the strong side": one point per threshold, by rising share of strong
/// calls, from all weak to all strong.
///
/// RouteLLM's sweep (arXiv 2406.18665, its `evals`): thresholds at eleven evenly spaced quantiles of the scores, linear
/// between ranks; at or above the threshold is strong, above it for the last one. Equal thresholds count once, and the whole
/// group of the top score is then a point of its own.
pub fn curve(scores: &[f64], both: &[Both]) -> Option<Vec<Point>> {
    if scores.is_empty() || scores.len() != both.len() || !finite(scores) {
        return None;
    }
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut edges: Vec<f64> =
        (0..=THRESHOLDS).filter_map(|i| quantile(&sorted, f64::from(i) / f64::from(THRESHOLDS))).collect();
    edges.dedup();
    let tied = edges.len() <= THRESHOLDS as usize;
    let (last, before) = edges.split_last()?;
    let mut points = vec![routed(both, scores, |s| s > *last)];
    points.extend(tied.then(|| routed(both, scores, |s| s >= *last)));
    points.extend(before.iter().rev().map(|edge| routed(both, scores, |s| s >= *edge)));
    Some(points)
}

/// The curve of the order that nobody can beat: by gain, the weak side where it does not matter.
pub fn oracle_curve(both: &[Both]) -> Option<Vec<Point>> {
    let mut gains: Vec<f64> = both.iter().map(|b| b.strong - b.weak).collect();
    if gains.is_empty() || !finite(&gains) {
        return None;
    }
    gains.sort_by(|a, b| b.total_cmp(a));
    let n = count(both.len());
    let mut quality = mean(both.iter().map(|b| b.weak))?;
    let mut points = vec![Point { cost: 0.0, quality }];
    for (i, gain) in gains.iter().enumerate() {
        quality += gain / n;
        points.push(Point { cost: count(i + 1) / n, quality });
    }
    Some(points)
}

/// Performance gap recovered: where a quality stands between the weak side (0) and the strong side (1).
pub fn pgr(quality: f64, weak: f64, strong: f64) -> Option<f64> {
    let gap = strong - weak;
    (gap > 0.0 && quality.is_finite() && gap.is_finite()).then(|| (quality - weak) / gap)
}

/// Mean performance gap recovered over all shares of strong calls, RouteLLM's (AUC − AUC weak) / (AUC strong − AUC weak) by
/// the trapezoid rule. 0.5 is a coin. Above 1 is possible where the weak side is right alone.
pub fn apgr(curve: &[Point], weak: f64, strong: f64) -> Option<f64> {
    let first = curve.first()?;
    let span = curve.last()?.cost - first.cost;
    let area = area(curve);
    let gap = (strong - weak) * span;
    (gap > 0.0 && area.is_finite()).then(|| (area - weak * span) / gap)
}

/// Call-performance threshold: the smallest share of strong calls that recovers `share` of the gap, between two points of the
/// curve by a straight line. None if the curve never gets there.
pub fn cpt(curve: &[Point], weak: f64, strong: f64, share: f64) -> Option<f64> {
    let wanted = weak + share * (strong - weak);
    pgr(wanted, weak, strong)?;
    let first = curve.first()?;
    if first.quality >= wanted {
        return Some(first.cost);
    }
    let rises = |a: &Point, b: &Point| a.quality < wanted && b.quality >= wanted;
    curve.windows(2).find_map(|pair| match pair {
        [a, b] if rises(a, b) => Some(a.cost + (b.cost - a.cost) * (wanted - a.quality) / (b.quality - a.quality)),
        _ => None,
    })
}

/// The non-decreasing convex hull of points, by rising cost: what coin flips between them reach. From the cheapest point to the
/// best one; a dearer one that is not better is no part of it.
pub fn hull(points: &[Point]) -> Vec<Point> {
    let mut sorted: Vec<Point> =
        points.iter().filter(|p| p.cost.is_finite() && p.quality.is_finite()).copied().collect();
    sorted.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(b.quality.total_cmp(&a.quality)));
    let mut kept: Vec<Point> = Vec::new();
    for p in sorted {
        if kept.last().is_some_and(|last| p.quality <= last.quality) {
            continue;
        }
        while let [.., a, b] = kept.as_slice() {
            let turn = (b.cost - a.cost) * (p.quality - a.quality) - (b.quality - a.quality) * (p.cost - a.cost);
            if turn < 0.0 {
                break;
            }
            kept.pop();
        }
        kept.push(p);
    }
    kept
}

/// Average improvement in quality (RouterBench, arXiv 2403.12031): the area under the [`hull`] of a router's points, divided by
/// its span of costs. `span` is the cheapest and the dearest cost to compare over; the hull goes on flat to the dearest.
///
/// The *zero router* is the same figure of the single models' points alone: a router is worth something above it only.
pub fn aiq(points: &[Point], span: (f64, f64)) -> Option<f64> {
    let (from, to) = span;
    let mut line = hull(points);
    let (first, last) = (*line.first()?, *line.last()?);
    if from >= to || first.cost > from || last.cost > to {
        return None;
    }
    line.retain(|p| p.cost >= from);
    line.insert(0, Point { cost: from, quality: at(&hull(points), from)? });
    line.push(Point { cost: to, quality: last.quality });
    Some(area(&line) / (to - from))
}

/// Area under the receiver operating characteristic: the chance that a positive scores above a negative, a tie counting half.
pub fn auc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    if scores.len() != positive.len() || !finite(scores) {
        return None;
    }
    let mut order: Vec<(f64, bool)> = scores.iter().copied().zip(positive.iter().copied()).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins) = (0.0, 0.0);
    for group in order.chunk_by(|a, b| a.0 == b.0) {
        let up = count(group.iter().filter(|g| g.1).count());
        let down = count(group.len()) - up;
        wins += up * (below + 0.5 * down);
        below += down;
    }
    let positives = count(positive.iter().filter(|p| **p).count());
    (positives > 0.0 && below > 0.0).then(|| wins / (positives * below))
}

/// Expected calibration error over bins of equal width: the distance between what was promised and what came, weighted by how
/// often it was promised.
pub fn ece(chances: &[f64], right: &[bool], bins: usize) -> Option<f64> {
    if chances.is_empty() || chances.len() != right.len() || bins == 0 || !finite(chances) {
        return None;
    }
    let mut sums = vec![0.0; bins];
    for (p, hit) in chances.iter().zip(right) {
        let bin = sums.get_mut(bin_of(*p, bins))?;
        *bin += p - f64::from(u8::from(*hit));
    }
    Some(sums.iter().map(|s: &f64| s.abs()).sum::<f64>() / count(chances.len()))
}

/// Brier score: the mean squared distance between the chance and what came.
pub fn brier(chances: &[f64], right: &[bool]) -> Option<f64> {
    if chances.len() != right.len() || !finite(chances) {
        return None;
    }
    mean(chances.iter().zip(right).map(|(p, hit)| (p - f64::from(u8::from(*hit))).powi(2)))
}

/// Regret: how much quality per query the choices lose against an oracle that always takes the better side. `strong` says per
/// query whether the strong side was chosen.
pub fn regret(strong: &[bool], both: &[Both]) -> Option<f64> {
    if strong.len() != both.len() {
        return None;
    }
    let lost = |(taken, b): (&bool, &Both)| b.weak.max(b.strong) - if *taken { b.strong } else { b.weak };
    mean(strong.iter().zip(both).map(lost)).filter(|r| r.is_finite())
}

/// Quality of a curve at a cost, on the straight lines between its points; flat beyond the last one.
pub fn at(curve: &[Point], cost: f64) -> Option<f64> {
    let inside = curve.windows(2).find_map(|pair| match pair {
        [a, b] if a.cost <= cost && cost <= b.cost && a.cost < b.cost => {
            Some(a.quality + (b.quality - a.quality) * (cost - a.cost) / (b.cost - a.cost))
        }
        _ => None,
    });
    let beyond = |p: &&Point| cost >= p.cost;
    inside.or_else(|| curve.last().filter(beyond).map(|p| p.quality))
}

/// Sides chosen where `strong(score)`, as shares and mean quality.
fn routed(both: &[Both], scores: &[f64], strong: impl Fn(f64) -> bool) -> Point {
    let (mut calls, mut quality) = (0.0, 0.0);
    for (b, score) in both.iter().zip(scores) {
        let taken = strong(*score);
        calls += f64::from(u8::from(taken));
        quality += if taken { b.strong } else { b.weak };
    }
    let n = count(both.len());
    Point { cost: calls / n, quality: quality / n }
}

/// Linear between ranks, as numpy and pandas do by default.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * count(sorted.len().checked_sub(1)?);
    let low = place.floor();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place between 0 and the length")]
    let index = low as usize;
    let a = *sorted.get(index)?;
    let b = sorted.get(index + 1).copied().unwrap_or(a);
    Some(a + (b - a) * (place - low))
}

fn area(curve: &[Point]) -> f64 {
    let trapezoid = |pair: &[Point]| match pair {
        [a, b] => (b.cost - a.cost) * f64::midpoint(a.quality, b.quality),
        _ => 0.0,
    };
    curve.windows(2).map(trapezoid).sum()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bins; `as` saturates")]
fn bin_of(chance: f64, bins: usize) -> usize {
    ((chance * count(bins)) as usize).min(bins - 1)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut n) = (0.0, 0.0);
    for value in values {
        sum += value;
        n += 1.0;
    }
    (n > 0.0).then(|| sum / n)
}

fn finite(values: &[f64]) -> bool {
    values.iter().all(|v| v.is_finite())
}

#[expect(clippy::cast_precision_loss, reason = "counts of queries stay far below 2^52")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(rows: &[(u8, u8)]) -> Vec<Both> {
        rows.iter().map(|(w, s)| Both { weak: f64::from(*w), strong: f64::from(*s) }).collect()
    }

    fn p(cost: f64, quality: f64) -> Point {
        Point { cost, quality }
    }

    fn near(found: Option<f64>, wanted: f64) {
        assert!(found.is_some_and(|f| (f - wanted).abs() < 1e-12), "{found:?} is not {wanted}");
    }

    /// Ten queries, scores 0 to 9: the strong side helps on the last four, the weak one is right alone on the first.
    fn ten() -> (Vec<f64>, Vec<Both>) {
        let rows = both(&[(1, 0), (1, 1), (1, 1), (0, 0), (1, 1), (0, 0), (0, 1), (0, 1), (0, 1), (0, 1)]);
        ((0..10).map(f64::from).collect(), rows)
    }

    #[test]
    fn eleven_thresholds_give_eleven_points_from_none_to_all() {
        let (scores, both) = ten();
        let found = curve(&scores, &both).unwrap();
        // Edges are 0, 0.9, 1.8 ... 9: at or above them are 10, 9, 8 ... 1 queries, and above the last none.
        let shares: Vec<f64> = found.iter().map(|p| (p.cost * 10.0).round()).collect();
        assert_eq!(shares, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
        let right: Vec<f64> = found.iter().map(|p| (p.quality * 10.0).round()).collect();
        assert_eq!(right, [4.0, 5.0, 6.0, 7.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 7.0]);
    }

    #[test]
    fn apgr_is_the_area_between_the_lines_over_the_gap() {
        let (scores, both) = ten();
        let found = curve(&scores, &both).unwrap();
        // Trapezoids of width .1: (.45 + .55 + .65 + .75 + 5 x .8 + .75) x .1 = .715; weak .4, strong .7.
        near(apgr(&found, 0.4, 0.7), (0.715 - 0.4) / 0.3);
        near(apgr(&[p(0.0, 0.4), p(1.0, 0.7)], 0.4, 0.7), 0.5);
        assert_eq!(apgr(&[p(0.0, 0.7), p(1.0, 0.4)], 0.7, 0.4), None);
    }

    #[test]
    fn one_score_for_all_is_a_coin() {
        let (_, both) = ten();
        let found = curve(&[0.3; 10], &both).unwrap();
        near(apgr(&found, 0.4, 0.7), 0.5);
        near(cpt(&found, 0.4, 0.7, 0.8), 0.8);
    }

    #[test]
    fn a_tied_top_group_is_sent_whole() {
        let both = both(&[(1, 1), (1, 1), (0, 1), (0, 1)]);
        let found = curve(&[0.0, 0.0, 1.0, 1.0], &both).unwrap();
        assert!(found.contains(&p(0.5, 1.0)), "{found:?}");
        assert_eq!((found[0], *found.last().unwrap()), (p(0.0, 0.5), p(1.0, 1.0)));
    }

    #[test]
    fn cpt_reads_the_first_crossing_between_two_points() {
        let line = [p(0.0, 0.4), p(0.2, 0.5), p(0.4, 0.45), p(0.6, 0.7), p(1.0, 0.7)];
        near(cpt(&line, 0.4, 0.7, 0.2), 0.12);
        near(cpt(&line, 0.4, 0.7, 0.5), 0.4 + 0.2 * 0.1 / 0.25);
        near(cpt(&line, 0.4, 0.7, 0.0), 0.0);
        assert_eq!(cpt(&line, 0.4, 0.7, 1.1), None);
        near(pgr(0.55, 0.4, 0.7), 0.5);
        assert_eq!(pgr(0.5, 0.7, 0.7), None);
    }

    #[test]
    fn the_oracle_takes_gains_first_and_losses_last() {
        let (_, both) = ten();
        let found = oracle_curve(&both).unwrap();
        assert_eq!(found.len(), 11);
        assert!((found[4].quality - 0.8).abs() < 1e-12 && (found[9].quality - 0.8).abs() < 1e-12);
        assert!((found[10].quality - 0.7).abs() < 1e-12);
    }

    #[test]
    fn the_hull_keeps_what_coin_flips_cannot_reach() {
        let all = [p(4.0, 0.7), p(1.0, 0.4), p(2.0, 0.5), p(2.0, 0.65), p(3.0, 0.66), p(5.0, 0.6)];
        assert_eq!(hull(&all), [p(1.0, 0.4), p(2.0, 0.65), p(4.0, 0.7)]);
        // .525 x 1 + .675 x 2 + .7 x 1 over 4.
        near(aiq(&all, (1.0, 5.0)), (0.525 + 1.35 + 0.7) / 4.0);
        near(aiq(&[p(0.0, 0.4), p(1.0, 0.7)], (0.0, 1.0)), 0.55);
        assert_eq!(aiq(&all, (0.0, 5.0)), None);
        assert_eq!(aiq(&[], (0.0, 1.0)), None);
    }

    #[test]
    fn auc_counts_ties_half() {
        near(auc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), 0.75);
        near(auc(&[0.5, 0.5, 0.5], &[true, false, false]), 0.5);
        near(auc(&[0.2, 0.5, 0.5, 0.9], &[false, true, false, true]), 3.5 / 4.0);
        assert_eq!(auc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(auc(&[f64::NAN, 0.2], &[true, false]), None);
    }

    #[test]
    fn calibration_errors_of_hand_made_promises() {
        // Bin .2: promised .4 in sum, one came; bin .9: promised 1.8, two came.
        near(ece(&[0.2, 0.2, 0.9, 0.9], &[true, false, true, true], 10), (0.6 + 0.2) / 4.0);
        near(ece(&[1.0], &[true], 10), 0.0);
        near(brier(&[0.2, 1.0], &[true, true]), 0.32);
        assert_eq!(ece(&[], &[], 10), None);
        assert_eq!(brier(&[0.1], &[]), None);
    }

    #[test]
    fn regret_is_what_the_better_side_would_have_added() {
        let rows = both(&[(1, 0), (0, 1), (0, 1), (0, 0)]);
        near(regret(&[false, false, true, true], &rows), 0.25);
        near(regret(&[true, true, true, true], &rows), 0.25);
        near(regret(&[false, true, true, false], &rows), 0.0);
        assert_eq!(regret(&[], &[]), None);
    }
}
