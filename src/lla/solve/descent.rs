//! Conjugate gradients for one row: everything but the product with the covariance.
//!
//! Solves `(C + lambda I) rho = kbar - q` in the mean-centred form, on a right-hand side of length one, so that neither
//! tiny nor huge input loses the squares. Vectors are padded with zeros to whole lines.

use crate::lla::ridge::Ridge;
use crate::lla::store::LANES;

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
    /// Mean key under the weights.
    pub kbar: Vec<f32>,
    /// The solution so far, of the right-hand side of length one.
    x: Vec<f32>,
    residual: Vec<f32>,
    /// What to multiply by the covariance next.
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
    /// Starts at zero. `kbar` is padded to whole lines.
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
            most: ridge.most_iterations().min(guards.seen + 1),
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

    /// The correction vector; zero if there is none.
    #[inline(always)]
    pub fn rho(&mut self, to: &mut [f32]) {
        let good = self.progress == Progress::Done;
        to.iter_mut().zip(&self.x).for_each(|(to, x)| *to = if good { x * self.length } else { 0.0 });
        if !to.iter().all(|x| x.is_finite()) {
            self.progress = Progress::Failed;
            to.fill(0.0);
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

/// `vector . (kbar - centre)`: what the mean key contributes to every product.
#[inline(always)]
pub fn from_centre(vector: &[f32], kbar: &[f32], centre: &[f32]) -> f32 {
    vector.iter().zip(kbar).zip(centre).map(|((v, k), c)| v * (k - c)).sum()
}

/// The mean of some vectors of one length; zeros where it is not finite.
#[expect(clippy::cast_precision_loss, reason = "a block has few rows")]
pub fn mean<'a>(vectors: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let (mut sum, mut count) = (Vec::new(), 0);
    for vector in vectors {
        sum.resize(vector.len(), 0.0);
        sum.iter_mut().zip(vector).for_each(|(s, x)| *s += x);
        count += 1;
    }
    let clean = |x: f32| if x.is_finite() { x } else { 0.0 };
    sum.iter_mut().for_each(|s| *s = clean(*s / count as f32));
    sum
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
            let mut rho = [0.0; 16];
            row.rho(&mut rho);
            for i in 0..16 {
                let want = (kbar[i] - 1.0) / (diagonal[i] + 0.5);
                assert!((rho[i] / scale - want).abs() < 1e-4, "{i}: {} for {want}", rho[i] / scale);
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
