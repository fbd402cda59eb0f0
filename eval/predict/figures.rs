//! What an order of queries is worth, and how sure that is.
#![allow(clippy::indexing_slicing, reason = "orders and draws are indices below the number of queries")]

use serde::Serialize;
use wattroute::predict::quality::{self, Both, Point};

/// Resamples of an interval.
const DRAWS: usize = 200;

/// Worth of one policy.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Mean gap recovered over all shares of strong calls.
    pub apgr: Option<f64>,
    /// Least share of strong calls that recovers 20, 50 and 80 % of the gap.
    pub cpt: [Option<f64>; 3],
    /// Area under the hull of quality over the share of strong calls; the models alone, flipped by a coin, are the zero router.
    pub aiq: Option<f64>,
    /// Area under the ROC of "only the strong one is right".
    pub auc: Option<f64>,
    /// Quality lost per query against an oracle, half of the queries sent to the strong model.
    pub regret_half: Option<f64>,
}

/// Chances of one side.
#[derive(Clone, Debug, Serialize)]
pub struct Chances {
    /// Area under the ROC of "it is right".
    pub auc: Option<f64>,
    /// Expected calibration error, ten bins.
    pub ece: Option<f64>,
    /// Mean squared distance.
    pub brier: Option<f64>,
}

/// Mean quality of each side.
pub fn ends(both: &[Both]) -> (f64, f64) {
    let n = both.len().max(1) as f64;
    (both.iter().map(|b| b.weak).sum::<f64>() / n, both.iter().map(|b| b.strong).sum::<f64>() / n)
}

/// Figures of scores that say "send this one to the strong side".
pub fn of(scores: &[f64], both: &[Both]) -> Option<Figures> {
    let needed: Vec<bool> = both.iter().map(|b| b.strong > b.weak).collect();
    let curve = quality::curve(scores, both)?;
    let mut found = on(&curve, both);
    found.auc = quality::auc(scores, &needed);
    found.regret_half = quality::regret(&half(scores), both);
    Some(found)
}

/// The same of the order nobody can beat.
pub fn oracle(both: &[Both]) -> Option<Figures> {
    let gains: Vec<f64> = both.iter().map(|b| b.strong - b.weak).collect();
    let mut found = on(&quality::oracle_curve(both)?, both);
    found.regret_half = quality::regret(&half(&gains), both);
    Some(found)
}

/// Mean of several policies, figure by figure: what chance alone gives on average.
pub fn mean(all: &[Figures]) -> Figures {
    let over = |of: &dyn Fn(&Figures) -> Option<f64>| {
        let known: Vec<f64> = all.iter().filter_map(of).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    Figures {
        apgr: over(&|f| f.apgr),
        cpt: [over(&|f| f.cpt[0]), over(&|f| f.cpt[1]), over(&|f| f.cpt[2])],
        aiq: over(&|f| f.aiq),
        auc: over(&|f| f.auc),
        regret_half: over(&|f| f.regret_half),
    }
}

/// AIQ of the two models alone.
pub fn zero_router(both: &[Both]) -> Option<f64> {
    let (weak, strong) = ends(both);
    quality::aiq(&[Point { cost: 0.0, quality: weak }, Point { cost: 1.0, quality: strong }], (0.0, 1.0))
}

/// Figures of one side's chances.
pub fn chances(chances: &[f64], right: impl Iterator<Item = f64>) -> Chances {
    let right: Vec<bool> = right.map(|r| r > 0.5).collect();
    Chances {
        auc: quality::auc(chances, &right),
        ece: quality::ece(chances, &right, 10),
        brier: quality::brier(chances, &right),
    }
}

/// Which half has the higher scores; equal scores in a random order.
pub fn half(scores: &[f64]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut order);
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut strong = vec![false; scores.len()];
    order.iter().take(scores.len() / 2).for_each(|i| strong[*i] = true);
    strong
}

/// 95 % interval of APGR(a) − APGR(b), queries drawn again with repeats.
pub fn difference(a: &[f64], b: &[f64], both: &[Both]) -> Option<[f64; 2]> {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut found: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            let drawn: Vec<usize> = both.iter().map(|_| rng.usize(..both.len())).collect();
            let again: Vec<Both> = drawn.iter().map(|i| both[*i]).collect();
            let (weak, strong) = ends(&again);
            let worth = |s: &[f64]| {
                let scores: Vec<f64> = drawn.iter().map(|i| s[*i]).collect();
                quality::apgr(&quality::curve(&scores, &again)?, weak, strong)
            };
            Some(worth(a)? - worth(b)?)
        })
        .collect();
    found.sort_by(f64::total_cmp);
    Some([*found.get(found.len() * 25 / 1000)?, *found.get((found.len() * 975 / 1000).min(found.len() - 1))?])
}

fn on(curve: &[Point], both: &[Both]) -> Figures {
    let (weak, strong) = ends(both);
    Figures {
        apgr: quality::apgr(curve, weak, strong),
        cpt: [0.2, 0.5, 0.8].map(|share| quality::cpt(curve, weak, strong, share)),
        aiq: quality::aiq(curve, (0.0, 1.0)),
        ..Figures::default()
    }
}
