//! One policy's figures out of its sums. Pure.

use super::assemble::Parts;
use super::boot::Draws;
use super::cost::at_batch;
use super::figures::Worth;
use super::outcome::{Confusion, DomainFigures, Intervals, PolicyFigures, Saving, Three, Wasted};
use super::partial::{Route, Slice, Tally};
use super::queue::Device;
use crate::energy::carbon::Grid;

/// Batches of the cloud's server that savings are told for.
const BATCHES: [u32; 7] = [8, 16, 32, 64, 128, 256, 512];
const JOULES_PER_KWH: f64 = 3.6e6;

/// One route and what it is called.
pub struct Row<'a> {
    /// Its name.
    pub name: String,
    /// What it does.
    pub about: String,
    /// No policy file can be it.
    pub reference: bool,
    /// Its sums.
    pub route: &'a Route,
    /// Its index among all routes, the coin last.
    pub index: usize,
    /// By which order it would hand queries to the cloud.
    pub order: Order,
}

/// By which order a route would hand queries to the cloud.
#[derive(Clone, Copy, PartialEq)]
pub enum Order {
    /// By none.
    None,
    /// By chance.
    Coin,
    /// By the score of this curve.
    Curve(usize),
}

/// Its figures.
pub fn figures(parts: &Parts<'_>, row: &Row<'_>, draws: &Draws, worths: &[Worth]) -> PolicyFigures {
    let total = |i: usize| parts.partial.routes.get(i).map(Route::total).unwrap_or_default();
    let (t, strong, weak, oracle) = (row.route.total(), total(0), total(1), total(2));
    let per = |x: f64| if t.n > 0.0 { x / t.n } else { 0.0 };
    let share = per(t.local);
    let (a, s, w) = (per(t.right), per(strong.right), per(weak.right));
    let random = share * w + (1.0 - share) * s;
    let worth = match row.order {
        Order::None => Worth::default(),
        Order::Coin => {
            let coin = worths.first().and_then(|w| w.aiq_coin);
            Worth { apgr: Some(0.5), cpt50: Some(0.5), cpt80: Some(0.8), aiq: coin, aiq_coin: coin }
        }
        Order::Curve(i) => worths.get(i).copied().unwrap_or_default(),
    };
    let joules = joules(&t);
    let device = parts.devices.get(row.index).and_then(Device::load);
    let local_s = parts.partial.routes.get(1).and_then(|r| r.service.spread()).map(|s| s.mean * share);
    PolicyFigures {
        name: row.name.clone(),
        reference: row.reference,
        about: row.about.clone(),
        n: whole(t.n),
        local_share: share,
        accuracy: a,
        accuracy_strong: s,
        accuracy_weak: w,
        accuracy_oracle: per(oracle.right),
        accuracy_random: random,
        regret: per(oracle.right) - a,
        gap_recovered: ((s - w).abs() > 1e-12).then(|| (a - w) / (s - w)),
        joules,
        saved_joules: if t.energy_n > 0.0 { Three::of(t.saved) } else { Three::default() },
        saved_share: joules_mid(&strong).filter(|j| *j > 0.0).map(|j| mid(t.saved) / j),
        energy_n: whole(t.energy_n),
        usd: (t.usd_n > 0.0).then_some(t.usd),
        usd_strong: (strong.usd_n > 0.0).then_some(strong.usd),
        usd_n: whole(t.usd_n),
        gco2e: grams(parts, &t),
        apgr: worth.apgr,
        cpt50: worth.cpt50,
        cpt80: worth.cpt80,
        aiq: worth.aiq,
        aiq_coin: worth.aiq_coin,
        confusion: confusion(&t),
        wasted: wasted(&t),
        ci: intervals(draws, row.index, &t),
        service_s: row.route.service.spread(),
        load: device,
        capacity_per_s: local_s.filter(|s| *s > 0.0).map(|s| parts.seats as f64 / s),
        savings_by_batch: savings(parts, &t, &strong),
        by_domain: by_domain(parts, row.route),
        worst_false_local: row.route.false_local.rows().to_vec(),
        worst_false_cloud: row.route.false_cloud.rows().to_vec(),
        off_policy: row.route.off_policy.figures(&parts.partial.rewards),
    }
}

fn wasted(t: &Tally) -> Wasted {
    Wasted {
        attempts: whole(t.attempts),
        attempt_joules: t.attempt_joules,
        wrong_local_joules: (t.energy_n > 0.0).then_some(t.wasted),
    }
}

fn mid([_, mid, _]: [f64; 3]) -> f64 {
    mid
}

/// Joules, mid; none where unknown.
pub fn joules_mid(t: &Tally) -> Option<f64> {
    (t.energy_n > 0.0).then(|| mid(t.local_joules) + mid(t.cloud_joules))
}

fn joules(t: &Tally) -> Three {
    let ([a, b, c], [x, y, z]) = (t.local_joules, t.cloud_joules);
    if t.energy_n > 0.0 { Three::of([a + x, b + y, c + z]) } else { Three::default() }
}

fn grams(parts: &Parts<'_>, t: &Tally) -> Three {
    let of = |joules: [f64; 3], grid: &Option<Grid>| -> Option<[f64; 3]> {
        let [a, b, c] = joules.map(|j| j / JOULES_PER_KWH);
        match grid {
            Some(g) => Some([a * g.low, b * g.mid, c * g.high]),
            None => (c <= 0.0).then_some([0.0; 3]),
        }
    };
    let both = of(t.local_joules, &parts.setup.local.grid).zip(of(t.cloud_joules, &parts.setup.cloud.grid));
    let known = both.filter(|_| t.energy_n > 0.0);
    known.map_or_else(Three::default, |([a, b, c], [x, y, z])| Three::of([a + x, b + y, c + z]))
}

fn confusion(t: &Tally) -> Confusion {
    Confusion {
        true_local: whole(t.true_local),
        false_local: whole(t.false_local),
        vain_local: whole(t.vain_local),
        true_cloud: whole(t.true_cloud),
        false_cloud: whole(t.false_cloud),
        vain_cloud: whole(t.vain_cloud),
    }
}

fn intervals(draws: &Draws, index: usize, t: &Tally) -> Intervals {
    // A resample holds more or fewer queries than the log: sums are scaled to the log's number.
    let n = t.n;
    let energy = t.energy_n > 0.0;
    let mean = |x: f64, s: &Slice| x / s.n;
    Intervals {
        local_share: draws.interval(index, |s| mean(s.local, s)),
        accuracy: draws.interval(index, |s| mean(s.right, s)),
        accuracy_minus_strong: draws.between(index, 0, |a, b| (a.right - b.right) / a.n),
        accuracy_minus_random: draws.among([index, 0, 1], |[a, s, w]| {
            let share = a.local / a.n;
            (a.right - share * w.right - (1.0 - share) * s.right) / a.n
        }),
        regret: draws.between(index, 2, |a, o| (o.right - a.right) / a.n),
        joules_mid: energy.then(|| draws.interval(index, |s| mean(s.joules, s) * n)).flatten(),
        saved_joules_mid: energy.then(|| draws.interval(index, |s| mean(s.saved, s) * n)).flatten(),
        usd: (t.usd_n > 0.0).then(|| draws.interval(index, |s| mean(s.usd, s) * n)).flatten(),
    }
}

fn savings(parts: &Parts<'_>, t: &Tally, strong: &Tally) -> Vec<Saving> {
    if t.energy_n <= 0.0 {
        return Vec::new();
    }
    let mut out = Vec::new();
    for pue in parts.stated.energy.pue {
        for batch in BATCHES {
            let Some(model) = at_batch(parts.strong, parts.stated, batch, pue) else { return Vec::new() };
            let (Some(all), Some(own)) = (
                model.joules(strong.cloud_input, strong.cloud_output).mid,
                model.joules(t.cloud_input, t.cloud_output).mid,
            ) else {
                return Vec::new();
            };
            let saved = all - own - mid(t.local_joules);
            out.push(Saving { batch, pue, strong_joules: all, saved_joules: saved, saved_share: saved / all });
        }
    }
    out
}

fn by_domain(parts: &Parts<'_>, route: &Route) -> Vec<DomainFigures> {
    let of =
        |i: usize, d: usize| parts.partial.routes.get(i).and_then(|r| r.domains.get(d)).copied().unwrap_or_default();
    let each = parts.domains.iter().enumerate().zip(&route.domains).filter(|(_, t)| t.n > 0.0);
    let mut out: Vec<DomainFigures> = each
        .map(|((d, name), t)| DomainFigures {
            domain: if name.is_empty() { "(none)".to_owned() } else { name.clone() },
            n: whole(t.n),
            local_share: t.local / t.n,
            accuracy: t.right / t.n,
            accuracy_strong: of(0, d).right / t.n,
            accuracy_weak: of(1, d).right / t.n,
            accuracy_oracle: of(2, d).right / t.n,
            joules_mid: joules_mid(t),
            saved_joules_mid: (t.energy_n > 0.0).then(|| mid(t.saved)),
        })
        .collect();
    out.sort_by(|a, b| b.n.cmp(&a.n).then_with(|| a.domain.cmp(&b.domain)));
    out
}

/// A count that sums of ones make.
pub fn whole(x: f64) -> u64 {
    x.round().max(0.0) as u64
}
