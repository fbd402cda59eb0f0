//! The idle machine's watts, measured while nothing runs, so that a query can be charged without them.

use serde::{Deserialize, Serialize};

use crate::energy::series::Series;

/// Parts the quiet window is cut into, to see how steady it was.
const PARTS: u32 = 8;

/// Watts of a rail at rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// The lower median over the parts of the window: a burst of somebody else's work does not raise it.
    pub watts: f64,
    /// Half the distance between the lowest and the highest part.
    pub spread: f64,
    /// Length of the window in seconds.
    pub seconds: f64,
}

/// Watts at rest in a window in which no query ran; none if the window was not observed whole or is too short for the meter
/// (`renewed_s` is how often its figure is new).
pub fn measure(series: &Series, from_s: f64, to_s: f64, renewed_s: f64) -> Option<Idle> {
    let part_s = (to_s - from_s) / f64::from(PARTS);
    if part_s.is_nan() || part_s < renewed_s {
        return None;
    }
    let start = |part: u32| from_s + f64::from(part) * part_s;
    let parts: Option<Vec<f64>> = (0..PARTS).map(|p| series.watts(start(p), start(p) + part_s)).collect();
    let mut parts = parts?;
    parts.sort_unstable_by(f64::total_cmp);
    let (lowest, highest) = (*parts.first()?, *parts.last()?);
    let watts = *parts.get((parts.len() - 1) / 2)?;
    Some(Idle { watts, spread: (highest - lowest) / 2.0, seconds: to_s - from_s })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::series::Point;

    #[test]
    fn a_burst_does_not_raise_the_figure_and_is_seen_in_the_spread() {
        let mut series = Series::new(1000);
        let mut joules = 0.0;
        for i in 0..=80 {
            assert!(series.push(Point { at_s: f64::from(i) * 0.1, joules }));
            joules += if (40..50).contains(&i) { 10.0 } else { 2.0 };
        }
        let idle = measure(&series, 0.0, 8.0, 0.1).unwrap();
        assert!((idle.watts - 20.0).abs() < 1e-6 && (idle.spread - 40.0).abs() < 1e-6, "{idle:?}");
        assert_eq!(measure(&series, 0.0, 9.0, 0.1), None, "not observed to its end");
        assert_eq!(measure(&series, 0.0, 0.4, 0.1), None, "too short");
    }
}
