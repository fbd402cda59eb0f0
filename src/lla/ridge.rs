//! What corrects the softmax average, and the checked parameters of the solver.

use crate::lla::AttendError;

/// Most iterations a solver may be given: counts are kept in a byte.
pub const MOST_ITERATIONS: usize = 255;

/// How the correction vector is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solver {
    /// Conjugate gradients while few iterations are expected, else the covariance and its Cholesky factor.
    Auto,
    /// Conjugate gradients: the covariance is never formed.
    ConjugateGradient,
    /// The covariance of the keys, factored.
    Gram,
}

/// Ridge on the covariance under normalised weights, per query head, and how the solver stops.
///
/// An infinite ridge is softmax attention, bit for bit.
#[derive(Clone, Debug, PartialEq)]
pub struct Ridge {
    lambda: Vec<f32>,
    solver: Solver,
    tolerance: f32,
    most_iterations: usize,
    radius: f32,
}

/// Why a [`Ridge`] was refused.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum RidgeError {
    /// A lambda that is not above zero.
    #[error("ridge: lambda of head {head} is {lambda}; it must be above 0 (infinity is softmax)")]
    Lambda {
        /// Query head.
        head: usize,
        /// What was given.
        lambda: f32,
    },
    /// No lambda at all.
    #[error("ridge: there is no lambda")]
    Empty,
    /// A tolerance outside 0 to 1.
    #[error("ridge: the tolerance is {0}; it must be at least 0 and below 1")]
    Tolerance(f32),
    /// No iteration or too many.
    #[error("ridge: {0} iterations; there must be 1 to 255")]
    Iterations(usize),
    /// A radius that is not above zero.
    #[error("ridge: the radius is {0}; it must be above 0 (infinity is off)")]
    Radius(f32),
}

impl Ridge {
    /// A ridge per query head (or one for all) with the recommended solver: residual of 1e-3, at most 32 iterations,
    /// no bound on the correction.
    pub fn new(lambda: Vec<f32>) -> Result<Self, RidgeError> {
        if lambda.is_empty() {
            return Err(RidgeError::Empty);
        }
        for (head, lambda) in lambda.iter().copied().enumerate() {
            if lambda.is_nan() || lambda <= 0.0 {
                return Err(RidgeError::Lambda { head, lambda });
            }
        }
        Ok(Self { lambda, solver: Solver::Auto, tolerance: 1e-3, most_iterations: 32, radius: f32::INFINITY })
    }

    /// With another solver.
    #[must_use]
    pub fn with_solver(self, solver: Solver) -> Self {
        Self { solver, ..self }
    }

    /// With another bound on the residual's length relative to the right-hand side's. 0 iterates until rounding or the
    /// cap ends it.
    pub fn with_tolerance(self, tolerance: f32) -> Result<Self, RidgeError> {
        if (0.0..1.0).contains(&tolerance) {
            Ok(Self { tolerance, ..self })
        } else {
            Err(RidgeError::Tolerance(tolerance))
        }
    }

    /// With another cap on iterations. They never exceed twice the visible keys plus one either.
    pub fn with_most_iterations(self, most_iterations: usize) -> Result<Self, RidgeError> {
        if (1..=MOST_ITERATIONS).contains(&most_iterations) {
            Ok(Self { most_iterations, ..self })
        } else {
            Err(RidgeError::Iterations(most_iterations))
        }
    }

    /// With a bound: the ridge of a query is raised to `(|kbar - q| / 2R)^2` where it is smaller, so that a correction is
    /// never longer than R standard deviations of the values. Infinity is off.
    pub fn with_radius(self, radius: f32) -> Result<Self, RidgeError> {
        if radius > 0.0 { Ok(Self { radius, ..self }) } else { Err(RidgeError::Radius(radius)) }
    }

    /// Ridge of a query head.
    pub fn lambda(&self, head: usize) -> f32 {
        match self.lambda.as_slice() {
            [one] => *one,
            list => list.get(head).copied().unwrap_or(f32::INFINITY),
        }
    }

    /// How the correction is found.
    pub fn solver(&self) -> Solver {
        self.solver
    }

    /// Bound on the relative residual.
    pub fn tolerance(&self) -> f32 {
        self.tolerance
    }

    /// Cap on iterations.
    pub fn most_iterations(&self) -> usize {
        self.most_iterations
    }

    /// Bound on the correction, in standard deviations of the values.
    pub fn radius(&self) -> f32 {
        self.radius
    }

    /// Whether there is one ridge for all or one for each of `heads`.
    pub(in crate::lla) fn check(&self, heads: usize) -> Result<(), AttendError> {
        let fits = self.lambda.len() == 1 || self.lambda.len() == heads;
        if fits { Ok(()) } else { Err(AttendError::Shape("ridges")) }
    }
}

/// What corrects the softmax average `vbar`: the output is `vbar - G rho`, `G` the covariance of values and keys under
/// the weights.
#[derive(Clone, Copy, Debug)]
pub enum Rho<'a> {
    /// Nothing: softmax attention.
    Zero,
    /// `(C + lambda I)^-1 (kbar - q)`: local linear attention.
    Solve(&'a Ridge),
    /// Given, one per query: `tokens * heads * dim` numbers (a learned probe).
    Projection(&'a [f32]),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ridges_above_zero_are_taken() {
        for (bad, head) in [(vec![0.0], 0), (vec![1.0, -1.0], 1), (vec![1.0, 2.0, f32::NAN], 2)] {
            assert!(matches!(Ridge::new(bad), Err(RidgeError::Lambda { head: h, .. }) if h == head));
        }
        assert_eq!(Ridge::new(vec![]), Err(RidgeError::Empty));
        let ridge = Ridge::new(vec![1.0, f32::INFINITY]).unwrap();
        assert_eq!((ridge.lambda(0), ridge.lambda(1)), (1.0, f32::INFINITY));
        assert_eq!(Ridge::new(vec![7.0]).unwrap().lambda(5), 7.0);
        assert!(ridge.check(2).is_ok() && ridge.check(3).is_err());
    }

    #[test]
    fn the_solver_s_bounds_are_checked() {
        let ridge = || Ridge::new(vec![1.0]).unwrap();
        assert!(ridge().with_tolerance(0.0).is_ok() && ridge().with_tolerance(1.0).is_err());
        assert!(ridge().with_tolerance(f32::NAN).is_err() && ridge().with_tolerance(-1e-3).is_err());
        assert!(ridge().with_most_iterations(0).is_err() && ridge().with_most_iterations(256).is_err());
        assert!(ridge().with_radius(0.0).is_err() && ridge().with_radius(f32::NAN).is_err());
        let all = ridge().with_radius(1.0).unwrap().with_most_iterations(5).unwrap().with_solver(Solver::Gram);
        assert_eq!((all.radius(), all.most_iterations(), all.solver(), all.tolerance()), (1.0, 5, Solver::Gram, 1e-3));
    }
}
