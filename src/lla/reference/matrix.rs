//! Dense linear algebra of the oracle: row-major slices, no blocking, nothing clever.
#![allow(clippy::indexing_slicing, reason = "sizes are derived from the slices' lengths at the top of each function")]

/// Inner product; the shorter slice decides.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// `y += a x`.
pub fn axpy(y: &mut [f64], a: f64, x: &[f64]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}

/// Euclidean norm.
pub fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

/// `m x` for a matrix with rows of `x.len()`.
pub fn times(m: &[f64], x: &[f64]) -> Vec<f64> {
    m.chunks_exact(x.len().max(1)).map(|row| dot(row, x)).collect()
}

/// `m` with `lambda` added to the diagonal; `m` is square.
pub fn ridged(m: &[f64], d: usize, lambda: f64) -> Vec<f64> {
    let mut out = m.to_vec();
    out.iter_mut().step_by(d + 1).for_each(|x| *x += lambda);
    out
}

/// Lower triangle of a Cholesky factorisation `A = L L^T`.
#[derive(Clone, Debug)]
pub struct Cholesky {
    d: usize,
    lower: Vec<f64>,
}

impl Cholesky {
    /// Factors a symmetric `d x d` matrix; `None` where a pivot is not positive and finite.
    pub fn new(a: &[f64], d: usize) -> Option<Self> {
        let mut l = vec![0.0; d * d];
        for i in 0..d {
            for j in 0..=i {
                let rest = a[i * d + j] - dot(&l[i * d..i * d + j], &l[j * d..j * d + j]);
                if i == j {
                    if !(rest > 0.0 && rest.is_finite()) {
                        return None;
                    }
                    l[i * d + i] = rest.sqrt();
                } else {
                    l[i * d + j] = rest / l[j * d + j];
                }
            }
        }
        Some(Self { d, lower: l })
    }

    /// `A^-1 b`.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let (d, l) = (self.d, &self.lower);
        let mut x = b.to_vec();
        for i in 0..d {
            x[i] = (x[i] - dot(&l[i * d..i * d + i], &x[..i])) / l[i * d + i];
        }
        for i in (0..d).rev() {
            let below: f64 = (i + 1..d).map(|j| l[j * d + i] * x[j]).sum();
            x[i] = (x[i] - below) / l[i * d + i];
        }
        x
    }
}

/// Least squares `min |A x - b|` by Householder reflections for several right-hand sides.
///
/// `a` is `rows x columns` with `rows >= columns` and full column rank, `b` is `rows x sides`; the answer is
/// `columns x sides`. Works on `A` itself, so its error grows with the condition number and not with its square.
pub fn least_squares(mut a: Vec<f64>, columns: usize, mut b: Vec<f64>) -> Vec<f64> {
    let rows = a.len() / columns;
    let sides = b.len() / rows;
    for c in 0..columns {
        let mut v: Vec<f64> = (c..rows).map(|r| a[r * columns + c]).collect();
        let length = norm(&v);
        if length == 0.0 {
            continue;
        }
        v[0] += length.copysign(v[0]);
        let square = dot(&v, &v);
        reflect(&mut a[c * columns..], columns, &v, square);
        reflect(&mut b[c * sides..], sides, &v, square);
    }
    let mut x = vec![0.0; columns * sides];
    for r in (0..columns).rev() {
        for s in 0..sides {
            let known: f64 = (r + 1..columns).map(|c| a[r * columns + c] * x[c * sides + s]).sum();
            x[r * sides + s] = (b[r * sides + s] - known) / a[r * columns + r];
        }
    }
    x
}

/// `m -= v (2 / v.v) (v^T m)` for a matrix with rows of `width`.
fn reflect(m: &mut [f64], width: usize, v: &[f64], square: f64) {
    let mut along = vec![0.0; width];
    m.chunks_exact(width).zip(v).for_each(|(row, x)| axpy(&mut along, *x, row));
    m.chunks_exact_mut(width).zip(v).for_each(|(row, x)| axpy(row, -2.0 * x / square, &along));
}
