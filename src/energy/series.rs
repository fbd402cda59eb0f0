//! Energy of one rail over time: cumulative joules at instants, a rising line between them. Pure.
//!
//! Invariants: times and joules never fall; what was not observed is `None`, never 0. Times are seconds on the sampler's
//! own monotonic axis.

use std::collections::VecDeque;

/// Cumulative joules of one rail, bounded in length: the oldest points go first.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    points: VecDeque<Point>,
    /// Stretches between two points in which nothing is known, oldest first.
    holes: VecDeque<(f64, f64)>,
    most: usize,
}

/// Joules counted up to an instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Seconds on the sampler's axis.
    pub at_s: f64,
    /// Joules since the rail's first reading.
    pub joules: f64,
}

impl Series {
    /// Keeps the `most` newest points, at least two.
    pub fn new(most: usize) -> Self {
        Self { points: VecDeque::new(), holes: VecDeque::new(), most: most.max(2) }
    }

    /// Adds a point. One that is not later than the last, that falls, or that is no number is refused.
    pub fn push(&mut self, point: Point) -> bool {
        let fine = point.at_s.is_finite() && point.joules.is_finite();
        let later = self.points.back().is_none_or(|last| point.at_s > last.at_s && point.joules >= last.joules);
        if !fine || !later {
            return false;
        }
        if self.points.len() == self.most {
            self.points.pop_front();
        }
        self.points.push_back(point);
        if let Some(first) = self.points.front() {
            self.holes.retain(|hole| hole.1 > first.at_s);
        }
        true
    }

    /// Goes on after a stretch in which nothing is known: it counts no joules and no window across it has a figure.
    pub fn resume(&mut self, at_s: f64) -> bool {
        let Some(last) = self.points.back().copied() else { return self.push(Point { at_s, joules: 0.0 }) };
        let pushed = self.push(Point { at_s, joules: last.joules });
        if pushed {
            self.holes.push_back((last.at_s, at_s));
        }
        pushed
    }

    /// Adds `joules` spent since the last point; the first call sets the origin.
    pub fn grow(&mut self, at_s: f64, joules: f64) -> bool {
        let before = self.points.back().map_or(0.0, |last| last.joules);
        self.push(Point { at_s, joules: before + joules })
    }

    /// Cumulative joules at an instant, interpolated; none outside the observed span or inside a hole.
    pub fn at(&self, at_s: f64) -> Option<f64> {
        if self.holes.iter().any(|hole| hole.0 < at_s && at_s < hole.1) {
            return None;
        }
        let after = self.points.partition_point(|p| p.at_s < at_s);
        let right = self.points.get(after)?;
        if right.at_s == at_s {
            return Some(right.joules);
        }
        let left = self.points.get(after.checked_sub(1)?)?;
        let share = (at_s - left.at_s) / (right.at_s - left.at_s);
        Some(left.joules + share * (right.joules - left.joules))
    }

    /// Joules between two instants; none if they are in the wrong order or part of the window was not observed.
    pub fn between(&self, from_s: f64, to_s: f64) -> Option<f64> {
        if from_s > to_s || self.holes.iter().any(|hole| hole.0 < to_s && from_s < hole.1) {
            return None;
        }
        Some((self.at(to_s)? - self.at(from_s)?).max(0.0))
    }

    /// Mean watts between two instants.
    pub fn watts(&self, from_s: f64, to_s: f64) -> Option<f64> {
        Some(self.between(from_s, to_s)? / (to_s - from_s)).filter(|w| w.is_finite())
    }

    /// First and last instant observed.
    pub fn span(&self) -> Option<(f64, f64)> {
        Some((self.points.front()?.at_s, self.points.back()?.at_s))
    }

    /// Instants observed inside a window, its ends left out.
    pub fn instants(&self, from_s: f64, to_s: f64) -> impl Iterator<Item = f64> + '_ {
        let first = self.points.partition_point(|p| p.at_s <= from_s);
        self.points.iter().skip(first).map(|p| p.at_s).take_while(move |at| *at < to_s)
    }

    /// Points held.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether nothing was observed yet.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The newest point.
    pub fn last(&self) -> Option<Point> {
        self.points.back().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: &[(f64, f64)]) -> Series {
        let mut series = Series::new(100);
        for (at_s, joules) in points {
            assert!(series.push(Point { at_s: *at_s, joules: *joules }));
        }
        series
    }

    #[test]
    fn edges_are_interpolated_and_the_unseen_is_unknown() {
        let line = series(&[(0.0, 0.0), (1.0, 10.0), (3.0, 10.0), (4.0, 30.0)]);
        assert_eq!(line.between(0.5, 1.0), Some(5.0));
        assert_eq!(line.between(0.5, 3.5), Some(15.0));
        assert_eq!(line.between(2.0, 2.0), Some(0.0));
        assert_eq!(line.watts(3.0, 4.0), Some(20.0));
        for (from, to) in [(-0.1, 1.0), (3.0, 4.1), (2.0, 1.0)] {
            assert_eq!(line.between(from, to), None, "{from} to {to}");
        }
        assert_eq!(line.watts(2.0, 2.0), None);
        assert_eq!(line.instants(0.0, 4.0).collect::<Vec<_>>(), [1.0, 3.0]);
        assert_eq!(Series::new(5).at(0.0), None);
    }

    #[test]
    fn what_falls_or_is_no_number_is_refused_and_old_points_go() {
        let mut line = series(&[(0.0, 5.0), (1.0, 6.0)]);
        for (at_s, joules) in [(1.0, 7.0), (0.5, 7.0), (2.0, 5.9), (2.0, f64::NAN), (f64::INFINITY, 9.0)] {
            assert!(!line.push(Point { at_s, joules }), "{at_s} {joules}");
        }
        let mut short = Series::new(3);
        (0..10).for_each(|i| assert!(short.grow(f64::from(i), 2.0)));
        assert_eq!((short.len(), short.span()), (3, Some((7.0, 9.0))));
        assert_eq!(short.between(7.0, 9.0), Some(4.0));
    }

    #[test]
    fn a_hole_is_unknown_and_both_sides_of_it_are_not() {
        let mut line = series(&[(0.0, 0.0), (1.0, 10.0)]);
        assert!(line.resume(5.0) && line.grow(6.0, 4.0));
        assert_eq!((line.between(0.0, 1.0), line.between(5.0, 6.0)), (Some(10.0), Some(4.0)));
        for (from, to) in [(0.0, 6.0), (0.5, 2.0), (2.0, 3.0), (4.0, 5.5)] {
            assert_eq!(line.between(from, to), None, "{from} to {to}");
        }
        let mut short = Series::new(2);
        assert!(short.resume(0.0) && short.resume(1.0) && short.grow(2.0, 1.0) && short.grow(3.0, 1.0));
        assert_eq!(short.between(2.0, 3.0), Some(1.0));
        assert!(short.holes.is_empty());
    }
}
