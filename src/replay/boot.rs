//! Bootstrap intervals from the sums of groups. Pure and seeded.
//!
//! Groups of queries (by the hash of their stem) are drawn with replacement; one draw serves all routes, so that differences
//! between two of them are paired. With fewer queries than groups this is the bootstrap over stems.

use super::partial::Slice;

/// Draws.
const DRAWS: usize = 1000;

/// Sums of every route in every draw.
pub struct Draws {
    routes: Vec<Vec<Slice>>,
}

impl Draws {
    /// Draws from the groups of all routes.
    pub fn new(routes: &[&[Slice]], seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let filled: Vec<usize> = match routes.first() {
            Some(first) => (0..).zip(first.iter()).filter(|(_, s)| s.n > 0.0).map(|(i, _)| i).collect(),
            None => Vec::new(),
        };
        let mut out: Vec<Vec<Slice>> = routes.iter().map(|_| Vec::with_capacity(DRAWS)).collect();
        let mut times = vec![0.0; routes.first().map_or(0, |r| r.len())];
        for _ in 0..DRAWS {
            times.fill(0.0);
            for _ in 0..filled.len() {
                if let Some(t) = filled.get(random.usize(..filled.len())).and_then(|i| times.get_mut(*i)) {
                    *t += 1.0;
                }
            }
            for (sums, groups) in out.iter_mut().zip(routes) {
                let mut sum = Slice::default();
                groups.iter().zip(&times).filter(|(_, t)| **t > 0.0).for_each(|(g, t)| sum.add(g, *t));
                sums.push(sum);
            }
        }
        Self { routes: out }
    }

    /// Interval at 95 % of a figure of one route.
    pub fn interval(&self, route: usize, of: impl Fn(&Slice) -> f64) -> Option<[f64; 2]> {
        ends(self.routes.get(route)?.iter().map(of).collect())
    }

    /// The same of a figure of two routes in the same draw.
    pub fn between(&self, a: usize, b: usize, of: impl Fn(&Slice, &Slice) -> f64) -> Option<[f64; 2]> {
        ends(self.routes.get(a)?.iter().zip(self.routes.get(b)?).map(|(x, y)| of(x, y)).collect())
    }

    /// The same of three.
    pub fn among(&self, routes: [usize; 3], of: impl Fn([&Slice; 3]) -> f64) -> Option<[f64; 2]> {
        let [a, b, c] = routes;
        let each = self.routes.get(a)?.iter().zip(self.routes.get(b)?).zip(self.routes.get(c)?);
        ends(each.map(|((x, y), z)| of([x, y, z])).collect())
    }
}

fn ends(mut seen: Vec<f64>) -> Option<[f64; 2]> {
    seen.retain(|x| x.is_finite());
    seen.sort_unstable_by(f64::total_cmp);
    let q = |p| crate::tables::sample::quantile(&seen, p);
    Some([q(0.025)?, q(0.975)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the normal approximation of a share, and of a paired difference.
    #[test]
    fn intervals_are_as_wide_as_theory_says() {
        let mut random = fastrand::Rng::with_seed(5);
        let (mut a, mut b) = (vec![Slice::default(); 512], vec![Slice::default(); 512]);
        let n = 4000;
        for _ in 0..n {
            let (group, hard) = (random.usize(..512), random.f64());
            let (x, y) = (f64::from(u8::from(hard < 0.6)), f64::from(u8::from(hard < 0.7)));
            a[group].add(&Slice { n: 1.0, right: x, ..Slice::default() }, 1.0);
            b[group].add(&Slice { n: 1.0, right: y, ..Slice::default() }, 1.0);
        }
        let draws = Draws::new(&[&a, &b], 1);
        let [low, high] = draws.interval(0, |s| s.right / s.n).unwrap();
        let want = 2.0 * 1.96 * (0.24f64 / f64::from(n)).sqrt();
        assert!(((high - low) / want - 1.0).abs() < 0.15, "{} {want}", high - low);
        let [low, high] = draws.between(0, 1, |x, y| y.right / y.n - x.right / x.n).unwrap();
        let want = 2.0 * 1.96 * (0.09f64 / f64::from(n)).sqrt();
        assert!(((high - low) / want - 1.0).abs() < 0.15 && low > 0.05, "{low} {high} {want}");
        assert_eq!(Draws::new(&[&a], 9).interval(0, |s| s.right), Draws::new(&[&a], 9).interval(0, |s| s.right));
    }
}
