//! Joules per prompt token and per generated token: least squares through the origin, or why that cannot be had. Pure.
//!
//! The line has no constant, so that its two figures are what `predict` multiplies tokens by. Intervals are robust to joules that
//! scatter more the more there are (HC3). A design that cannot tell the two apart is refused, never answered with noise.

/// Queries below which a line is not drawn.
const FEWEST: usize = 10;
/// Share of either token count that the other must leave unexplained (one minus the squared cosine of the two).
const APART: f64 = 0.02;
/// Two-sided 95 % quantile of the normal distribution.
const Z95: f64 = 1.959_963_984_540_054;

/// One query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Prompt tokens.
    pub input: f64,
    /// Generated tokens.
    pub output: f64,
    /// Joules of the query.
    pub joules: f64,
}

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Least squares.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Joules = input x tokens in + output x tokens out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// J per prompt token.
    pub input: Estimate,
    /// J per generated token.
    pub output: Estimate,
    /// Share of the sum of squared joules that the line explains.
    pub r2: f64,
    /// Queries.
    pub n: usize,
}

/// Sums over the queries.
#[derive(Clone, Copy, Default)]
struct Sums {
    xx: f64,
    xy: f64,
    yy: f64,
    xj: f64,
    yj: f64,
    jj: f64,
}

/// Fits the line.
///
/// # Errors
/// Too few queries, no spread, tokens in and out that rise together, or a figure that is not above 0: in words.
pub fn tokens(points: &[Point]) -> Result<Fit, String> {
    let n = points.len();
    if n < FEWEST {
        return Err(format!("{n} queries, at least {FEWEST} are needed"));
    }
    if points.iter().any(|p| ![p.input, p.output, p.joules].iter().all(|x| x.is_finite() && *x >= 0.0)) {
        return Err("a query has no finite figures".to_owned());
    }
    let s = points.iter().fold(Sums::default(), |s, p| Sums {
        xx: s.xx + p.input * p.input,
        xy: s.xy + p.input * p.output,
        yy: s.yy + p.output * p.output,
        xj: s.xj + p.input * p.joules,
        yj: s.yj + p.output * p.joules,
        jj: s.jj + p.joules * p.joules,
    });
    if s.xx <= 0.0 || s.yy <= 0.0 || s.jj <= 0.0 {
        return Err("no tokens or no joules in any query".to_owned());
    }
    let apart = 1.0 - s.xy * s.xy / (s.xx * s.yy);
    if apart < APART {
        return Err(format!("tokens in and out rise together: {:.1} % of either is its own", apart.max(0.0) * 100.0));
    }
    let under = s.xx * s.yy * apart;
    let (input, output) = ((s.xj * s.yy - s.yj * s.xy) / under, (s.yj * s.xx - s.xj * s.xy) / under);
    for (name, value) in [("prompt", input), ("generated", output)] {
        if value <= 0.0 {
            return Err(format!(
                "the line gives {value:.4} J per {name} token: the queries' joules do not follow tokens"
            ));
        }
    }
    let spread = robust(points, s, under, (input, output));
    let reach = student(n - 2);
    let around = |value: f64, variance: f64| {
        let half = reach * variance.max(0.0).sqrt();
        Estimate { value, low: value - half, high: value + half }
    };
    let left: f64 = points.iter().map(|p| residual(p, (input, output)).powi(2)).sum();
    Ok(Fit { input: around(input, spread.0), output: around(output, spread.1), r2: 1.0 - left / s.jj, n })
}

fn residual(p: &Point, line: (f64, f64)) -> f64 {
    p.joules - line.0 * p.input - line.1 * p.output
}

/// Variances of the two figures, HC3: each residual counts as if its query had been left out.
fn robust(points: &[Point], s: Sums, under: f64, line: (f64, f64)) -> (f64, f64) {
    let (mut a, mut b) = (0.0, 0.0);
    for p in points {
        // Rows of (X'X)^-1 X'.
        let u = (s.yy * p.input - s.xy * p.output) / under;
        let v = (s.xx * p.output - s.xy * p.input) / under;
        let lever = (p.input * u + p.output * v).min(0.99);
        let e = residual(p, line) / (1.0 - lever);
        a += (u * e).powi(2);
        b += (v * e).powi(2);
    }
    (a, b)
}

/// Two-sided 95 % quantile of Student's distribution by its expansion in the degrees of freedom; within 1 % from 5 up.
pub fn student(freedom: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of queries stay far below 2^52")]
    let f = freedom.max(1) as f64;
    let z = Z95;
    z + (z.powi(3) + z) / (4.0 * f)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * f * f)
        + (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * f.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(n: u32, noise: f64, seed: u64) -> Vec<Point> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..n)
            .map(|_| {
                let (input, output) = (f64::from(random.u32(20..400)), f64::from(random.u32(1..300)));
                let clean = 0.2 * input + 0.5 * output;
                Point { input, output, joules: clean * (1.0 + noise * (random.f64() - 0.5)) }
            })
            .collect()
    }

    #[test]
    fn a_clean_line_is_found_exactly() {
        let fit = tokens(&points(40, 0.0, 1)).unwrap();
        assert!((fit.input.value - 0.2).abs() < 1e-12 && (fit.output.value - 0.5).abs() < 1e-12);
        assert!(fit.r2 > 1.0 - 1e-12 && fit.n == 40);
        assert!(fit.output.high - fit.output.low < 1e-9);
    }

    #[test]
    fn the_interval_holds_the_truth_nineteen_times_in_twenty() {
        let (mut input, mut output) = (0, 0);
        for seed in 0..1000 {
            let fit = tokens(&points(40, 0.6, seed)).unwrap();
            input += u32::from(fit.input.low <= 0.2 && 0.2 <= fit.input.high);
            output += u32::from(fit.output.low <= 0.5 && 0.5 <= fit.output.high);
        }
        assert!((915..=985).contains(&input) && (915..=985).contains(&output), "{input} {output}");
    }

    #[test]
    fn a_design_that_cannot_tell_is_refused() {
        let line = |input: f64, output: f64| Point { input, output, joules: input + output };
        let refused = |points: &[Point], want: &str| {
            let said = tokens(points).unwrap_err();
            assert!(said.contains(want), "{said}");
        };
        refused(&[line(1.0, 2.0); 9], "9 queries, at least 10");
        refused(&(1..50).map(|i| line(f64::from(i), 2.0 * f64::from(i))).collect::<Vec<_>>(), "rise together: 0.0 %");
        refused(&[line(10.0, 0.0); 20], "no tokens or no joules");
        let falling = |i: u32| Point { input: f64::from(i), output: 10.0, joules: 100.0 - f64::from(i) };
        refused(&(1..60).map(falling).collect::<Vec<_>>(), "J per prompt token");
        refused(&[Point { joules: f64::NAN, ..line(1.0, 2.0) }; 12], "finite");
    }

    #[test]
    fn students_quantiles_are_the_printed_ones() {
        for (freedom, printed) in [(8, 2.306), (10, 2.228), (30, 2.042), (1000, 1.962)] {
            assert!((student(freedom) - printed).abs() < 0.003, "{freedom}");
        }
    }
}
