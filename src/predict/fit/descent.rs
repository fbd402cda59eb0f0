//! L-BFGS: the minimum of a smooth convex function. Small, ours, the same bytes on every run.
//!
//! Two-loop recursion over the last [`MEMORY`] steps (Nocedal and Wright, Numerical Optimization, algorithm 7.4), backtracking
//! until the Armijo condition holds; a step whose curvature is not positive is not remembered.

/// Steps that are remembered.
const MEMORY: usize = 8;

/// Minimises `cost`, which writes the gradient at `x` into its second argument and returns the value, from where `x` stands.
/// Stops after `steps`, or when the gradient is `tolerance` times as long as at the start.
pub fn minimise(x: &mut [f64], steps: usize, tolerance: f64, mut cost: impl FnMut(&[f64], &mut [f64]) -> f64) {
    let mut slope = vec![0.0; x.len()];
    let mut value = cost(x, &mut slope);
    let enough = dot(&slope, &slope).sqrt() * tolerance;
    let mut past: Vec<(Vec<f64>, Vec<f64>, f64)> = Vec::new();
    for _ in 0..steps {
        if dot(&slope, &slope).sqrt() <= enough {
            return;
        }
        let way = direction(&slope, &past);
        let fall = dot(&way, &slope);
        if fall >= 0.0 || !fall.is_finite() {
            return;
        }
        let mut length = if past.is_empty() { (1.0 / dot(&slope, &slope).sqrt()).min(1.0) } else { 1.0 };
        let (mut next, mut next_slope) = (x.to_vec(), vec![0.0; x.len()]);
        let mut found = false;
        for _ in 0..20 {
            next.iter_mut().zip(x.iter().zip(&way)).for_each(|(n, (x, w))| *n = x + length * w);
            let tried = cost(&next, &mut next_slope);
            if tried <= value + 1e-4 * length * fall {
                (value, found) = (tried, true);
                break;
            }
            length *= 0.5;
        }
        if !found {
            return;
        }
        let step: Vec<f64> = next.iter().zip(x.iter()).map(|(n, x)| n - x).collect();
        let bend: Vec<f64> = next_slope.iter().zip(&slope).map(|(n, s)| n - s).collect();
        let curvature = dot(&step, &bend);
        if curvature > 1e-12 {
            if past.len() == MEMORY {
                past.remove(0);
            }
            past.push((step, bend, curvature));
        }
        x.copy_from_slice(&next);
        slope = next_slope;
    }
}

/// Minus the inverse of the remembered curvature times the slope.
fn direction(slope: &[f64], past: &[(Vec<f64>, Vec<f64>, f64)]) -> Vec<f64> {
    let mut way: Vec<f64> = slope.iter().map(|s| -s).collect();
    let mut shares = Vec::with_capacity(past.len());
    for (step, bend, curvature) in past.iter().rev() {
        let share = dot(step, &way) / curvature;
        add(&mut way, bend, -share);
        shares.push(share);
    }
    if let Some((_, bend, curvature)) = past.last() {
        let size = curvature / dot(bend, bend).max(1e-300);
        way.iter_mut().for_each(|w| *w *= size);
    }
    for ((step, bend, curvature), share) in past.iter().zip(shares.into_iter().rev()) {
        let back = dot(bend, &way) / curvature;
        add(&mut way, step, share - back);
    }
    way
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], what: &[f64], times: f64) {
    to.iter_mut().zip(what).for_each(|(t, w)| *t += times * w);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretched_bowl_is_minimised() {
        let mut x = vec![5.0, -3.0, 2.0];
        let stretch = [1.0, 100.0, 0.01];
        minimise(&mut x, 200, 1e-10, |x, g| {
            let mut v = 0.0;
            for i in 0..3 {
                let d = x[i] - 1.0;
                g[i] = stretch[i] * d;
                v += 0.5 * stretch[i] * d * d;
            }
            v
        });
        assert!(x.iter().all(|x| (x - 1.0).abs() < 1e-5), "{x:?}");
    }
}
