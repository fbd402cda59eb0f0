//! Conjugate gradients for one row: everything but the product with the covariance.
//!
//! Solves `(C + lambda I) rho = kbar - q` in the mean-centred form, on a right-hand side of length one, so that neither
//! tiny nor huge input loses the squares. Vectors are padded with zeros to whole lines.

use crate::lla::ridge::Ridge;
use crate::lla::store::{LANES, Store};

/// Factor on the mean squared key length below which single precision cannot bear a ridge.
const FLOOR: f32 = 64.0 * f32::EPSILON;
/// Squared residual at which single precision has nothing more to give.
const EXHAUSTED: f32 = 1e-18;

/// How far a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Wants another product.
    Going,
    /// The correction is found.
    Done,
    /// Numbers went out of range: no correction.
    Failed,
}

/// One row's solve.
#[derive(Debug)]
pub struct Descent {
    /// Mean key under the weights, from the centre on.
    pub kbar: Vec<f32>,
    /// The solution so far, of the right-hand side of length one.
    x: Vec<f32>,
    residual: Vec<f32>,
    /// What to multiply by the covariance next; in the end the correction.
    pub direction: Vec<f32>,
    /// Length of the true right-hand side.
    length: f32,
    /// Ridge after the guards.
    pub lambda: f32,
    square: f32,
    stop: f32,
    most: usize,
    /// Products taken.
    pub iterations: usize,
    /// How far it is.
    pub progress: Progress,
}

/// What the guards need to know of a row.
#[derive(Clone, Copy, Debug)]
pub struct Guards<'a> {
    /// Parameters.
    pub ridge: &'a Ridge,
    /// Query head.
    pub head: usize,
    /// Mean squared length of the visible keys.
    pub mean_square: f32,
    /// Visible keys.
    pub seen: usize,
}

impl Descent {
    /// Starts at zero. `kbar` is padded to whole lines; both it and the query are measured from the centre.
    #[inline(always)]
    pub fn begin(kbar: &[f32], query: &[f32], guards: Guards) -> Self {
        let ridge = guards.ridge;
        let mut residual = kbar.to_vec();
        residual.iter_mut().zip(query).for_each(|(r, q)| *r -= q);
        let longest = residual.iter().fold(0.0_f32, |m, r| m.max(r.abs()));
        let whole = residual.iter().all(|r| r.is_finite());
        let inverse = if longest > 0.0 { 1.0 / longest } else { 0.0 };
        residual.iter_mut().for_each(|r| *r *= inverse);
        let length = dot(&residual, &residual).sqrt() * longest;
        let unit = if length > 0.0 { longest / length } else { 0.0 };
        residual.iter_mut().for_each(|r| *r *= unit);
        let bound = length / (2.0 * ridge.radius());
        let floor = FLOOR * guards.mean_square;
        // A comparison with NaN is false: a guard that cannot be computed does not apply.
        let mut lambda = ridge.lambda(guards.head);
        for least in [floor, bound * bound] {
            lambda = if least > lambda { least } else { lambda };
        }
        let progress = match (whole && inverse.is_finite() && length.is_finite() && lambda.is_finite(), length > 0.0) {
            (false, _) => Progress::Failed,
            (true, false) => Progress::Done,
            (true, true) => Progress::Going,
        };
        Self {
            kbar: kbar.to_vec(),
            x: vec![0.0; kbar.len()],
            direction: residual.clone(),
            square: dot(&residual, &residual),
            residual,
            length,
            lambda,
            stop: (ridge.tolerance() * ridge.tolerance()).max(EXHAUSTED),
            // As many as there are directions do in exact arithmetic; rounding may ask for as many again.
            most: ridge.most_iterations().min(2 * guards.seen + 1),
            iterations: 0,
            progress,
        }
    }

    /// Takes `sum p (u . direction) k` and the sum of its weights (0 but for rounding), and goes on by one step.
    #[inline(always)]
    pub fn advance(&mut self, product: &mut [f32], weight: f32) {
        for ((y, d), k) in product.iter_mut().zip(&self.direction).zip(&self.kbar) {
            *y += self.lambda * d - weight * k;
        }
        let curvature = dot(&self.direction, product);
        let step = self.square / curvature;
        if !(curvature > 0.0 && step.is_finite()) {
            // Rounding can flatten what is solved already; anything else means the numbers are out of range.
            self.progress = if self.square < 1e-6 { Progress::Done } else { Progress::Failed };
            return;
        }
        self.iterations += 1;
        self.x.iter_mut().zip(&self.direction).for_each(|(x, d)| *x += step * d);
        self.residual.iter_mut().zip(&*product).for_each(|(r, y)| *r -= step * y);
        let square = dot(&self.residual, &self.residual);
        if !square.is_finite() {
            self.progress = Progress::Failed;
        } else if square <= self.stop || self.iterations >= self.most {
            self.progress = Progress::Done;
        } else {
            let turn = square / self.square;
            self.direction.iter_mut().zip(&self.residual).for_each(|(d, r)| *d = r + turn * *d);
        }
        self.square = square;
    }

    /// Right-hand side of length one, before the first step.
    pub fn target(&self) -> &[f32] {
        &self.residual
    }

    /// Takes a solution found another way.
    pub fn settle(&mut self, x: &[f32]) {
        self.progress = if x.iter().all(|x| x.is_finite()) { Progress::Done } else { Progress::Failed };
        self.x.copy_from_slice(x);
    }

    /// Makes the direction the correction vector; zero if there is none.
    #[inline(always)]
    pub fn rho(&mut self) {
        let good = self.progress == Progress::Done;
        self.direction.iter_mut().zip(&self.x).for_each(|(to, x)| *to = if good { x * self.length } else { 0.0 });
        if !self.direction.iter().all(|x| x.is_finite()) {
            self.progress = Progress::Failed;
            self.direction.fill(0.0);
        }
    }
}

/// Product of two padded vectors, in sixteen sums.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for ((s, x), y) in sums.iter_mut().zip(a).zip(b) {
            *s += x * y;
        }
    }
    sums.iter().sum()
}

/// A point to measure keys from: the key under the greatest of some weights (whole lines), the first of which is for
/// position `first`. That is near the mean key where one weight stands out, and a typical key where none does; a key without weight,
/// however far away, it is not. Zeros where there is none, or it is not finite. Padded to whole lines.
pub fn centre(weights: &[f32], first: usize, store: &Store, kv_head: usize) -> Vec<f32> {
    let mut tops = [0.0_f32; LANES];
    for line in weights.as_chunks::<LANES>().0 {
        tops.iter_mut().zip(line).for_each(|(top, weight)| *top = if *weight > *top { *weight } else { *top });
    }
    let top = tops.into_iter().fold(0.0, f32::max);
    let place = weights.iter().position(|weight| *weight == top && top > 0.0);
    let mut centre = place.map_or_else(Vec::new, |place| store.key(kv_head, first + place));
    if !centre.iter().all(|x| x.is_finite()) {
        centre.clear();
    }
    centre.resize(store.shape().dim.next_multiple_of(LANES), 0.0);
    centre
}

/// `query - centre`.
pub fn from_centre(query: &[f32], centre: &[f32]) -> Vec<f32> {
    query.iter().zip(centre).map(|(q, c)| q - c).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solve(ridge: &Ridge, diagonal: &[f32; 16], kbar: &[f32; 16], query: &[f32]) -> Descent {
        let mut row = Descent::begin(kbar, query, Guards { ridge, head: 0, mean_square: 0.0, seen: 100 });
        while row.progress == Progress::Going {
            let mut product: Vec<f32> = row.direction.iter().zip(diagonal).map(|(d, c)| d * c).collect();
            row.advance(&mut product, 0.0);
        }
        row
    }

    #[test]
    fn a_diagonal_system_is_solved_in_as_many_steps_as_it_has_values() {
        let ridge = Ridge::new(vec![0.5]).unwrap().with_tolerance(1e-5).unwrap();
        let diagonal = std::array::from_fn(|i| (i % 4) as f32);
        let kbar: [f32; 16] = std::array::from_fn(|i| i as f32 - 3.0);
        for scale in [1.0_f32, 1e-25, 1e25] {
            let scaled = kbar.map(|k| k * scale);
            let mut row = solve(&ridge, &diagonal, &scaled, &[scale; 16]);
            assert!(row.progress == Progress::Done && row.iterations <= 5, "{row:?}");
            row.rho();
            for i in 0..16 {
                let (rho, want) = (row.direction[i] / scale, (kbar[i] - 1.0) / (diagonal[i] + 0.5));
                assert!((rho - want).abs() < 1e-4, "{i}: {rho} for {want}");
            }
        }
    }

    #[test]
    fn nothing_to_correct_takes_no_step_and_bad_numbers_fail() {
        let ridge = Ridge::new(vec![0.5]).unwrap();
        let same = solve(&ridge, &[1.0; 16], &[2.0; 16], &[2.0; 16]);
        assert_eq!((same.progress, same.iterations), (Progress::Done, 0));
        let mut nan = [2.0; 16];
        nan[3] = f32::NAN;
        assert_eq!(solve(&ridge, &[1.0; 16], &nan, &[0.0; 16]).progress, Progress::Failed);
        assert_eq!(solve(&ridge, &[f32::NAN; 16], &[2.0; 16], &[0.0; 16]).progress, Progress::Failed);
    }

    #[test]
    fn the_ridge_is_raised_to_what_precision_and_radius_ask() {
        let ridge = Ridge::new(vec![1e-6]).unwrap();
        let begin = |ridge: &Ridge, mean_square| {
            Descent::begin(&[3.0; 16], &[0.0; 16], Guards { ridge, head: 0, mean_square, seen: 9 }).lambda
        };
        assert_eq!(begin(&ridge, 0.0), 1e-6);
        assert_eq!(begin(&ridge, 300.0), 64.0 * f32::EPSILON * 300.0);
        assert_eq!(begin(&ridge, f32::NAN), 1e-6);
        let bounded = ridge.with_radius(2.0).unwrap();
        assert!((begin(&bounded, 0.0) / 9.0 - 1.0).abs() < 1e-5, "(12 / 4)^2");
    }
}
