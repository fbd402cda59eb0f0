//! A linear correction of P(correct), learned from answers that were judged: one backend of a contextual bandit.
//!
//! Ridge regression of (reward - predicted P(correct)) on a query's features, with the width of LinUCB (Li et al. 2010,
//! arXiv 1003.0146, algorithm 1): A = ridge I + sum w x x', b = sum w x r, theta = A^-1 b, width = sqrt(x' A^-1 x). Nothing
//! judged is no correction. Pure and deterministic.

use crate::classify::domain::{DOMAINS, Posterior};
use crate::policy::types::Learned;

/// One, the domains, the predicted P(correct).
pub const FEATURES: usize = DOMAINS + 2;
/// Judgements that a correction is drawn towards 0 by: a domain's correction is halved at so many.
const RIDGE: f64 = 8.0;

/// A query as an arm sees it.
pub type Features = [f64; FEATURES];

/// What is known of one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// Judgements taken.
    pub n: u32,
    /// A without its ridge, row by row.
    a: Vec<Features>,
    b: Features,
    /// Of A with its ridge.
    inverse: Vec<Features>,
    theta: Features,
}

/// Features of a query whose answer by this backend is predicted to be right with probability `prior`.
pub fn features(posterior: &Posterior, prior: f64) -> Features {
    let mut x = [0.0; FEATURES];
    let all = std::iter::once(1.0).chain(posterior.0.iter().map(|p| f64::from(*p))).chain([prior - 0.5]);
    x.iter_mut().zip(all).for_each(|(to, from)| *to = if from.is_finite() { from } else { 0.0 });
    x
}

impl Default for Arm {
    fn default() -> Self {
        let mut arm = Self {
            n: 0,
            a: vec![[0.0; FEATURES]; FEATURES],
            b: [0.0; FEATURES],
            inverse: Vec::new(),
            theta: [0.0; FEATURES],
        };
        arm.solve();
        arm
    }
}

impl Arm {
    /// From what [`Arm::sums`] gave; none where they are not sums of judgements.
    pub fn of(n: u32, sums: &[f64]) -> Option<Self> {
        let (rows, b) = sums.split_at_checked(FEATURES * FEATURES)?;
        let (rows, rest) = rows.as_chunks::<FEATURES>();
        let usable = rest.is_empty() && b.len() == FEATURES && sums.iter().all(|x| x.is_finite());
        let mut arm = Self { n, a: rows.to_vec(), ..Self::default() };
        arm.b.iter_mut().zip(b).for_each(|(to, from)| *to = *from);
        (usable && arm.solve()).then_some(arm)
    }

    /// A without its ridge, row by row, then b.
    pub fn sums(&self) -> Vec<f64> {
        self.a.iter().flatten().chain(&self.b).copied().collect()
    }

    /// Takes a judgement: how much better than predicted the answer was, counted `weight` times.
    pub fn take(&mut self, x: &Features, residual: f64, weight: f64) {
        for (row, xi) in self.a.iter_mut().zip(x) {
            row.iter_mut().zip(x).for_each(|(a, xj)| *a += weight * xi * xj);
        }
        self.n = self.n.saturating_add(1);
        self.change(x, weight * residual);
    }

    /// Moves a judgement that was taken: its residual is so much more than it was.
    pub fn change(&mut self, x: &Features, more: f64) {
        self.b.iter_mut().zip(x).for_each(|(b, xi)| *b += more * xi);
        self.solve();
    }

    /// The correction of a query, and how little is known of it.
    pub fn learned(&self, x: &Features) -> Learned {
        let width: f64 = self.inverse.iter().zip(x).map(|(row, xi)| xi * dot(row, x)).sum();
        Learned { shift: dot(&self.theta, x), width: width.max(0.0).sqrt() }
    }

    /// Inverse and theta anew, by Gauss and Jordan: A is positive definite, so that no row need change places. False: it
    /// is not, and nothing has changed.
    fn solve(&mut self) -> bool {
        let mut left: Vec<Features> = self.a.clone();
        let mut right = vec![[0.0; FEATURES]; FEATURES];
        for (at, (l, r)) in left.iter_mut().zip(&mut right).enumerate() {
            if let (Some(diagonal), Some(one)) = (l.get_mut(at), r.get_mut(at)) {
                *diagonal += RIDGE;
                *one = 1.0;
            }
        }
        for at in 0..FEATURES {
            let (Some(pivot), Some(beside)) = (left.get(at).copied(), right.get(at).copied()) else { return false };
            let scale = pivot.get(at).copied().unwrap_or(0.0);
            if scale.is_nan() || scale <= RIDGE * 1e-6 {
                return false;
            }
            let (pivot, beside) = (pivot.map(|x| x / scale), beside.map(|x| x / scale));
            for (row, (l, r)) in left.iter_mut().zip(&mut right).enumerate() {
                if row == at {
                    (*l, *r) = (pivot, beside);
                    continue;
                }
                let factor = l.get(at).copied().unwrap_or(0.0);
                l.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= factor * p);
                r.iter_mut().zip(&beside).for_each(|(x, p)| *x -= factor * p);
            }
        }
        for (theta, row) in self.theta.iter_mut().zip(&right) {
            *theta = dot(row, &self.b);
        }
        self.inverse = right;
        true
    }
}

fn dot(a: &Features, b: &Features) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::domain::Domain;

    fn query(domain: usize) -> Features {
        let mut p = [0.0; DOMAINS];
        p[domain] = 1.0;
        features(&Posterior(p), 0.5)
    }

    #[test]
    fn nothing_judged_is_no_correction_and_judgements_move_their_domain() {
        let mut arm = Arm::default();
        let before = arm.learned(&query(0));
        assert_eq!(before.shift, 0.0);
        for _ in 0..200 {
            arm.take(&query(0), 0.4, 1.0);
            arm.take(&query(1), -0.4, 1.0);
        }
        let (up, down, other) = (arm.learned(&query(0)), arm.learned(&query(1)), arm.learned(&query(5)));
        assert!((up.shift - 0.4).abs() < 0.03 && (down.shift + 0.4).abs() < 0.03, "{up:?} {down:?}");
        assert!(other.shift.abs() < 0.02, "{other:?}");
        assert!(up.width < before.width / 3.0 && other.width > 2.0 * up.width, "{before:?} {up:?} {other:?}");
    }

    #[test]
    fn a_judgement_that_is_changed_is_as_if_it_had_been_given_so() {
        let (mut one, mut other) = (Arm::default(), Arm::default());
        one.take(&query(3), -0.5, 0.25);
        one.change(&query(3), 0.25 * (0.5 - -0.5));
        other.take(&query(3), 0.5, 0.25);
        assert_eq!(one, other);
    }

    #[test]
    fn sums_give_the_arm_again_and_nonsense_gives_none() {
        let mut arm = Arm::default();
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..300 {
            let mut p = [0.0f32; DOMAINS];
            p.iter_mut().for_each(|x| *x = rng.f32());
            let total: f32 = p.iter().sum();
            arm.take(&features(&Posterior(p.map(|x| x / total)), rng.f64()), rng.f64() - 0.5, 1.0);
        }
        let again = Arm::of(arm.n, &arm.sums()).unwrap();
        assert_eq!(again, arm);
        let x = query(Domain::NONE.index());
        assert!(arm.learned(&x).shift.is_finite() && arm.learned(&x).width < 1.0);
        assert_eq!(Arm::of(1, &[0.0; 3]), None);
        let mut bad = arm.sums();
        bad[0] = f64::NAN;
        assert_eq!(Arm::of(1, &bad), None);
        let negative: Vec<f64> = arm.sums().iter().map(|x| -x * 100.0).collect();
        assert_eq!(Arm::of(1, &negative), None, "no sum of squares is negative");
    }
}
