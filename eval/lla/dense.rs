//! Small dense algebra in double precision for the study: normal draws, Cholesky, mean with interval.

/// A standard normal draw (Box and Muller, the cosine half).
pub fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

/// `n` normal draws of standard deviation `sd`.
pub fn normals(random: &mut fastrand::Rng, n: usize, sd: f64) -> Vec<f64> {
    (0..n).map(|_| sd * normal(random)).collect()
}

/// Inner product.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// `y += a x`.
pub fn add(a: f64, x: &[f64], y: &mut [f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// Adds `w u u^T` to the lower triangle of the `d x d` matrix `c`.
pub fn add_outer(w: f64, u: &[f64], c: &mut [f64]) {
    for (i, row) in c.chunks_exact_mut(u.len()).enumerate() {
        add(w * u[i], &u[..=i], &mut row[..=i]);
    }
}

/// Solves `(C + ridge I) x = b`, `C` given by its lower triangle; `None` if a pivot is not positive.
pub fn solve(c: &[f64], ridge: f64, b: &[f64]) -> Option<Vec<f64>> {
    let d = b.len();
    let mut l = c.to_vec();
    for i in 0..d {
        let (above, row) = l.split_at_mut(i * d);
        let row = &mut row[..=i];
        row[i] += ridge;
        for j in 0..i {
            let other = &above[j * d..=j * d + j];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        if pivot.is_nan() || pivot <= 0.0 {
            return None;
        }
        row[i] = pivot.sqrt();
    }
    let mut x = b.to_vec();
    for i in 0..d {
        x[i] = (x[i] - dot(&l[i * d..i * d + i], &x[..i])) / l[i * d + i];
    }
    for i in (0..d).rev() {
        x[i] /= l[i * d + i];
        let (below, rest) = x.split_at_mut(i);
        add(-rest[0], &l[i * d..i * d + i], below);
    }
    Some(x)
}

/// Mean and half the width of its 95 % interval (Student's t over the draws).
pub fn interval(draws: &[f64]) -> (f64, f64) {
    let n = draws.len() as f64;
    let mean = draws.iter().sum::<f64>() / n;
    if draws.len() < 2 {
        return (mean, f64::NAN);
    }
    let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, student(draws.len() - 1) * (variance / n).sqrt())
}

/// 97.5 % quantile of Student's t: tabulated for 1 to 12 degrees of freedom, then within 1 % of the exact one.
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 12] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179];
    TABLE.get(freedom - 1).copied().unwrap_or(1.96 + 2.5 / freedom as f64)
}
