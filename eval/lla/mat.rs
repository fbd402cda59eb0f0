//! Row-major single-precision matrices as slices: products, RMS norm, softmax rows, each with its backward.

use ndarray::{ArrayView2, ArrayViewMut2, linalg};

/// One factor of a product: a slice, its rows and columns as stored, and whether it is used transposed.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    turned: bool,
}

/// A `rows x columns` matrix.
pub fn mat(data: &[f32], rows: usize, columns: usize) -> Mat<'_> {
    Mat { data: &data[..rows * columns], rows, columns, turned: false }
}

impl<'a> Mat<'a> {
    /// Its transpose.
    pub fn t(self) -> Self {
        Self { turned: !self.turned, ..self }
    }

    fn view(self) -> ArrayView2<'a, f32> {
        let view = ArrayView2::from_shape((self.rows, self.columns), self.data);
        let view = view.unwrap_or_else(|_| ArrayView2::from(&[[]]));
        if self.turned { view.reversed_axes() } else { view }
    }
}

/// `out = alpha a b + beta out`.
pub fn product(alpha: f32, a: Mat, b: Mat, beta: f32, out: &mut [f32]) {
    let (a, b) = (a.view(), b.view());
    let shape = (a.nrows(), b.ncols());
    if let Ok(mut out) = ArrayViewMut2::from_shape(shape, &mut out[..shape.0 * shape.1]) {
        linalg::general_mat_mul(alpha, &a, &b, beta, &mut out);
    }
}

/// `a b` in new memory.
pub fn times(a: Mat, b: Mat) -> Vec<f32> {
    let (rows, columns) = (if a.turned { a.columns } else { a.rows }, if b.turned { b.rows } else { b.columns });
    let mut out = vec![0.0; rows * columns];
    product(1.0, a, b, 0.0, &mut out);
    out
}

/// `y += x`.
pub fn add(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// Inner product.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Keeps a row of zeros from dividing by zero.
const EPSILON: f32 = 1e-6;

/// Rows of `width` divided by their root mean square. Returns the rows and the reciprocals.
pub fn rms(x: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
    let mut out = x.to_vec();
    let scales = out
        .chunks_exact_mut(width)
        .map(|row| {
            let scale = (dot(row, row) / width as f32 + EPSILON).sqrt().recip();
            row.iter_mut().for_each(|x| *x *= scale);
            scale
        })
        .collect();
    (out, scales)
}

/// Gradient of [`rms`] with respect to its input, from its outputs and the gradient of its rows.
pub fn rms_back(out: &[f32], scales: &[f32], grad: &[f32], width: usize) -> Vec<f32> {
    let mut back = grad.to_vec();
    for ((row, out), scale) in back.chunks_exact_mut(width).zip(out.chunks_exact(width)).zip(scales) {
        let along = dot(row, out) / width as f32;
        for (g, o) in row.iter_mut().zip(out) {
            *g = (*g - along * o) * scale;
        }
    }
    back
}

/// Softmax of a row in place; returns the logarithm of the sum.
pub fn softmax(row: &mut [f32]) -> f32 {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for x in row.iter_mut() {
        *x = (*x - most).exp();
        total += *x;
    }
    row.iter_mut().for_each(|x| *x /= total);
    most + total.ln()
}
