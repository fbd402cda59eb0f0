//! What a policy would have earned, from what the live one did and what people thought of it: estimates over logged choices of
//! known odds. Pure.
//!
//! Of a query with a reward r the log tells the side a that was taken and its probability p under the live policy; the replayed
//! policy takes the side t. The weight is w = \[t = a\] / p, at most [`CLIP`]. Over n such queries:
//!
//! - IPS, mean of w r: Horvitz and Thompson 1952. Unbiased (but for weights that were cut); wide where p is small.
//! - SNIPS, sum of w r over sum of w: Hájek 1971, Swaminathan and Joachims 2015. A little bias for much less spread, within the
//!   range of rewards.
//! - DR, mean of q(t) + w (r - q(a)): Dudík, Langford and Li 2011, equation 2. Unbiased whatever q is, because p is exact; the better
//!   q, the narrower. Here q is the mean reward of a side in the query's domain, shrunk to the side's own mean, over the other
//!   folds: no reward is in its own q.
//!
//! Intervals are 1.96 standard errors of a query's term (SNIPS: linearised), queries taken to be independent. The effective number
//! of queries is (sum of w)^2 over the sum of w^2 (Kish 1965). Invariant: where the log could not have done what the policy does
//! (it never draws, or not there), nothing is estimated, and the share of support is told instead.

mod cells;
pub mod estimate;

use serde::{Deserialize, Serialize};

use self::cells::{Cell, Mean, at, merge, pulled};
use self::estimate::{Estimate, OffPolicy};
use super::case::{Case, FOLDS};
use super::outcome::Live;

/// Largest weight; a choice of less than one in a hundred counts as one of one in a hundred.
pub const CLIP: f64 = 100.0;
/// Least share of queries where the log could have done what the policy does.
pub const SUPPORT: f64 = 0.95;
/// Least effective number of queries.
pub const EFFECTIVE: f64 = 10.0;
/// Odds this close to 1 leave nothing to the other side.
const CERTAIN: f64 = 1.0 - 1e-9;

/// What a log says of rewards, whatever is replayed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rewards {
    /// By domain, fold and side (cloud, local).
    cells: Vec<[[Mean; 2]; FOLDS]>,
    /// Logged choices with a reward.
    pub scored: f64,
    /// Without one, or with odds that are none.
    pub unscored: f64,
    /// Scored ones that were certain: nothing was drawn.
    pub certain: f64,
    /// Sum of rewards, and of their squares.
    sums: [f64; 2],
}

/// A choice with its reward.
#[derive(Clone, Copy, Debug)]
pub struct Scored {
    local: bool,
    odds: f64,
    reward: f64,
    domain: usize,
    fold: usize,
}

impl Scored {
    /// What an estimate can be made of; none where the log has no usable choice or no reward.
    pub fn of(case: &Case) -> Option<Self> {
        let logged = case.logged?;
        let reward = logged.reward.filter(|r| r.is_finite())?;
        let odds = Some(logged.propensity).filter(|p| *p > 0.0 && *p <= 1.0)?;
        Some(Self { local: logged.local, odds, reward, domain: case.domain_index, fold: case.fold() })
    }
}

impl Rewards {
    /// Takes one query of the log.
    pub fn add(&mut self, case: &Case) {
        let Some(scored) = Scored::of(case) else {
            self.unscored += f64::from(u8::from(case.logged.is_some()));
            return;
        };
        self.scored += 1.0;
        self.certain += f64::from(u8::from(scored.odds > CERTAIN));
        let [sum, squares] = &mut self.sums;
        *sum += scored.reward;
        *squares += scored.reward * scored.reward;
        if let Some(cell) = at(&mut self.cells, scored.domain, scored.fold, scored.local) {
            *cell = cell.plus(Mean { n: 1.0, sum: scored.reward });
        }
    }

    /// Takes all of another.
    pub fn merge(&mut self, o: &Self) {
        self.scored += o.scored;
        self.unscored += o.unscored;
        self.certain += o.certain;
        self.sums.iter_mut().zip(o.sums).for_each(|(a, b)| *a += b);
        merge(&mut self.cells, &o.cells, |a, b| *a = a.plus(*b));
    }

    /// What the policy that was live earned; none without rewards.
    pub fn live(&self) -> Option<Live> {
        let ([sum, squares], n) = (self.sums, self.scored);
        Some(Live {
            scored: n.round() as u64,
            unscored: self.unscored.round() as u64,
            drawn: 1.0 - self.certain / n.max(1.0),
            reward: Estimate::of(sum / n, squares / n, n)?,
        })
    }

    /// Expected reward of each side by domain, from all folds but one.
    fn without(&self, fold: usize) -> Vec<[f64; 2]> {
        let rest: Vec<[Mean; 2]> = self
            .cells
            .iter()
            .map(|folds| {
                let mut all = [Mean::default(); 2];
                for sides in folds {
                    all.iter_mut().zip(sides).for_each(|(a, s)| *a = a.plus(*s));
                }
                let own = folds.get(fold).copied().unwrap_or_default();
                all.iter_mut().zip(own).for_each(|(a, s)| *a = a.minus(s));
                all
            })
            .collect();
        let total = rest.iter().fold([Mean::default(); 2], |[a, b], [x, y]| [a.plus(*x), b.plus(*y)]);
        let [cloud, local] = total;
        let both = cloud.plus(local).near(0.5, 1.0);
        let means = total.map(|side| side.near(both, 1.0));
        rest.iter().map(|sides| std::array::from_fn(|i| pulled(sides, &means, i))).collect()
    }
}

/// What one policy would have done with logged choices.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sums {
    cells: Vec<[[Cell; 2]; FOLDS]>,
    /// Scored choices.
    pub n: f64,
    /// Of those, where the log could have done what the policy does.
    pub supported: f64,
    /// Where it did.
    pub agreed: f64,
    /// Weights that were cut.
    pub clipped: f64,
}

impl Sums {
    /// Takes one query; `local` is the side that the policy takes.
    pub fn add(&mut self, scored: &Scored, local: bool) {
        self.n += 1.0;
        let agreed = scored.local == local;
        if !agreed && scored.odds > CERTAIN {
            return;
        }
        self.supported += 1.0;
        let full = if agreed { 1.0 / scored.odds } else { 0.0 };
        let (w, r) = (full.min(CLIP), scored.reward);
        self.agreed += f64::from(u8::from(agreed));
        self.clipped += f64::from(u8::from(full > CLIP));
        let one = Cell { n: 1.0, w, wr: w * r, ww: w * w, wwr: w * w * r, wwrr: w * w * r * r };
        if let Some(cell) = at(&mut self.cells, scored.domain, scored.fold, local) {
            cell.add(&one);
        }
    }

    /// Takes all of another.
    pub fn merge(&mut self, o: &Self) {
        self.n += o.n;
        self.supported += o.supported;
        self.agreed += o.agreed;
        self.clipped += o.clipped;
        merge(&mut self.cells, &o.cells, Cell::add);
    }

    /// Estimates, or why there are none; none without scored choices.
    pub fn figures(&self, rewards: &Rewards) -> Option<OffPolicy> {
        if self.n < 1.0 {
            return None;
        }
        let mut all = Cell::default();
        self.cells.iter().flatten().flatten().for_each(|c| all.add(c));
        let effective_n = if all.ww > 0.0 { all.w * all.w / all.ww } else { 0.0 };
        let support = self.supported / self.n;
        let why = self.why_not(support, effective_n);
        let estimable = why.is_none();
        let snips = (all.w > 0.0).then(|| all.wr / all.w);
        let spread = |v: f64| (all.wwrr - 2.0 * v * all.wwr + v * v * all.ww).max(0.0).sqrt() / all.w;
        let kept = |e: Option<Estimate>| e.filter(|_| estimable);
        Some(OffPolicy {
            n: self.n.round() as u64,
            support,
            agreed: self.agreed / self.n,
            effective_n,
            clipped: self.clipped.round() as u64,
            ips: kept(Estimate::of(all.wr / all.n, all.wwrr / all.n, all.n)),
            snips: kept(snips.map(|v| Estimate::around(v, spread(v)))),
            dr: kept(self.doubly_robust(rewards, all.n)),
            why_not: why,
        })
    }

    fn why_not(&self, support: f64, effective_n: f64) -> Option<String> {
        let percent = |x: f64| 100.0 * x;
        if support < SUPPORT {
            return Some(format!(
                "not estimable: no support; on {:.1} % of the scored queries the live policy could not have done what this one does \
                 (it drew nothing there), and what that would have earned is not in the log",
                percent(1.0 - support)
            ));
        }
        (effective_n < EFFECTIVE).then(|| {
            format!(
                "not estimable: too few; the log did what this policy does on {} scored queries, worth {effective_n:.1} even ones",
                self.agreed
            )
        })
    }

    /// With q one number in a cell, the sums of a query's term and of its square follow from the cell's sums.
    fn doubly_robust(&self, rewards: &Rewards, n: f64) -> Option<Estimate> {
        let (mut sum, mut squares) = (0.0, 0.0);
        for fold in 0..FOLDS {
            let expected = rewards.without(fold);
            for (domain, folds) in self.cells.iter().enumerate() {
                let Some(sides) = folds.get(fold) else { continue };
                for (side, c) in sides.iter().enumerate() {
                    let q = expected.get(domain).and_then(|e| e.get(side)).copied().unwrap_or(0.5);
                    let rest = c.wr - q * c.w;
                    sum += q * c.n + rest;
                    squares += q * q * c.n + 2.0 * q * rest + c.wwrr - 2.0 * q * c.wwr + q * q * c.ww;
                }
            }
        }
        Estimate::of(sum / n, squares / n, n)
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Logged, mixed};
    use super::*;

    /// P(reward) of each side (cloud, local) in each of four domains.
    const TRUTH: [[f64; 2]; 4] = [[0.9, 0.8], [0.7, 0.2], [0.5, 0.6], [0.95, 0.1]];

    /// A live policy that keeps domains 0 and 2 local, and draws the other side with the share `explore`.
    fn log(n: u64, explore: f64, seed: u64) -> Vec<Case> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..n)
            .map(|line| {
                let domain = random.usize(..4);
                let (usual, drawn) = (domain.is_multiple_of(2), random.f64() < explore);
                let local = usual != drawn;
                let reward = f64::from(u8::from(random.f64() < TRUTH[domain][usize::from(local)]));
                let propensity = if drawn { explore } else { 1.0 - explore };
                let logged = Some(Logged { local, propensity, reward: Some(reward) });
                Case { line, stem: mixed(line ^ seed), domain_index: domain, logged, ..Case::default() }
            })
            .collect()
    }

    fn estimated(cases: &[Case], policy: impl Fn(usize) -> bool) -> OffPolicy {
        let (mut rewards, mut sums) = (Rewards::default(), Sums::default());
        for case in cases {
            rewards.add(case);
            if let Some(scored) = Scored::of(case) {
                sums.add(&scored, policy(case.domain_index));
            }
        }
        sums.figures(&rewards).unwrap()
    }

    fn truth(policy: impl Fn(usize) -> bool) -> f64 {
        (0..4).map(|d| TRUTH[d][usize::from(policy(d))]).sum::<f64>() / 4.0
    }

    type Kind = fn(usize) -> bool;

    #[test]
    fn policies_that_were_never_live_are_worth_what_they_are() {
        let policies: [Kind; 4] = [|_| true, |_| false, |d| d % 2 == 0, |d| d % 2 == 1];
        for (i, policy) in policies.into_iter().enumerate() {
            let found = estimated(&log(20_000, 0.1, 5), policy);
            for (name, e) in [("ips", found.ips), ("snips", found.snips), ("dr", found.dr)] {
                let e = e.unwrap();
                assert!((e.value - truth(policy)).abs() < 3.3 * e.standard_error, "{i} {name} {e:?} {}", truth(policy));
                assert!(e.standard_error < 0.03, "{i} {name} {e:?}");
            }
            assert!(found.effective_n > 900.0 && found.effective_n <= 20_000.0 && found.clipped == 0, "{found:?}");
        }
    }

    #[test]
    fn errors_are_as_large_as_they_say_and_the_doubly_robust_one_is_the_least() {
        let policy: Kind = |d| d % 2 == 1;
        let runs: Vec<OffPolicy> = (0..200).map(|seed| estimated(&log(1500, 0.2, seed), policy)).collect();
        let spread = |of: &dyn Fn(&OffPolicy) -> Option<Estimate>| {
            let values: Vec<Estimate> = runs.iter().filter_map(of).collect();
            let n = values.len() as f64;
            let mean = values.iter().map(|e| e.value).sum::<f64>() / n;
            let sd = (values.iter().map(|e| (e.value - mean).powi(2)).sum::<f64>() / n).sqrt();
            let told = values.iter().map(|e| e.standard_error).sum::<f64>() / n;
            let inside = values.iter().filter(|e| e.low <= truth(policy) && truth(policy) <= e.high).count() as f64 / n;
            assert!((mean - truth(policy)).abs() < 4.0 * sd / n.sqrt(), "{mean} {sd}");
            assert!((told / sd - 1.0).abs() < 0.2 && inside > 0.9, "{told} {sd} {inside}");
            sd
        };
        let (ips, snips, dr) = (spread(&|f| f.ips), spread(&|f| f.snips), spread(&|f| f.dr));
        assert!(dr < 0.9 * ips && dr < snips, "{ips} {snips} {dr}");
    }

    #[test]
    fn a_log_that_never_draws_supports_its_own_policy_alone() {
        let cases = log(2000, 0.0, 3);
        let other = estimated(&cases, |_| true);
        assert!((other.support - 0.5).abs() < 0.05, "{other:?}");
        assert_eq!((other.ips, other.snips, other.dr), (None, None, None));
        assert!(other.why_not.as_deref().unwrap().starts_with("not estimable: no support"), "{other:?}");
        let own = estimated(&cases, |d| d % 2 == 0);
        let mean = cases.iter().filter_map(|c| c.logged?.reward).sum::<f64>() / 2000.0;
        for e in [own.ips, own.snips, own.dr] {
            assert!((e.unwrap().value - mean).abs() < 1e-9, "{own:?}");
        }
        assert!((own.effective_n - 2000.0).abs() < 1e-6 && own.why_not.is_none());
    }

    #[test]
    fn parts_of_a_log_add_up_to_the_whole() {
        let cases = log(3000, 0.1, 9);
        let whole = estimated(&cases, |_| true);
        let (mut rewards, mut sums) = (Rewards::default(), Sums::default());
        for part in cases.chunks(700) {
            let (mut some, mut own) = (Rewards::default(), Sums::default());
            for case in part {
                some.add(case);
                own.add(&Scored::of(case).unwrap(), true);
            }
            rewards.merge(&some);
            sums.merge(&own);
        }
        let merged = sums.figures(&rewards).unwrap();
        let value = |e: Option<Estimate>| e.unwrap().value;
        assert!((value(merged.dr) - value(whole.dr)).abs() < 1e-9 && merged.n == whole.n);
        assert!((value(merged.snips) - value(whole.snips)).abs() < 1e-9);
        assert!(
            (rewards.live().unwrap().reward.value - cases.iter().filter_map(|c| c.logged?.reward).sum::<f64>() / 3e3)
                .abs()
                < 1e-9
        );
    }

    #[test]
    fn what_cannot_be_used_is_left_out_and_long_odds_are_cut() {
        let mut cases = log(100, 0.5, 1);
        cases[0].logged = None;
        cases[1].logged.as_mut().unwrap().reward = None;
        cases[2].logged.as_mut().unwrap().propensity = 0.0;
        cases[3].logged.as_mut().unwrap().reward = Some(f64::NAN);
        cases[4].logged = Some(Logged { local: true, propensity: 1e-4, reward: Some(1.0) });
        let mut rewards = Rewards::default();
        cases.iter().for_each(|c| rewards.add(c));
        assert_eq!((rewards.scored, rewards.unscored), (96.0, 3.0));
        let found = estimated(&cases, |_| true);
        assert_eq!((found.n, found.clipped), (96, 1));
        assert_eq!(Sums::default().figures(&rewards), None);
    }
}
