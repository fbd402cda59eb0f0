//! From sums to figures: [`Outcome`] out of a [`Partial`]. Pure.

use super::boot::Draws;
use super::cost::Stated;
use super::figures::{Point, Worth, at, points, worth};
use super::front::{diff, pareto};
use super::outcome::Outcome;
use super::outcomes::Model;
use super::partial::{Partial, Route, Slice};
use super::queue::Device;
use super::rows::{Order, Row, figures};
use super::simulate::{REFERENCES, Setup};
use crate::policy::Rule;

/// Points of a curve in the output.
const POINTS: usize = 101;

/// Everything that a result is made of.
pub struct Parts<'a> {
    /// The simulation.
    pub setup: &'a Setup,
    /// What the command line states.
    pub stated: &'a Stated,
    /// The cloud model.
    pub strong: &'a Model,
    /// Names of the log's domains.
    pub domains: &'a [String],
    /// Sums.
    pub partial: &'a Partial,
    /// The local device under each route; empty without arrival times.
    pub devices: &'a [Device],
    /// Seats of the local device.
    pub seats: usize,
}

/// Fills in policies, front, curve and difference.
pub fn assemble(parts: &Parts<'_>, outcome: &mut Outcome) {
    let routes = &parts.partial.routes;
    let [Some(strong), Some(weak), ..] = [routes.first(), routes.get(1)] else { return };
    let (like, share) = flipped(parts);
    let coin = mixed(weak, strong, share);
    let mut rows = rows(parts);
    rows.push(Row {
        name: "random".to_owned(),
        about: format!("a coin that keeps as many queries local as {like}, in expectation"),
        reference: true,
        route: &coin,
        index: routes.len(),
        order: Order::Coin,
    });
    let groups: Vec<&[Slice]> = routes.iter().chain([&coin]).map(|r| r.groups.as_slice()).collect();
    let draws = Draws::new(&groups, parts.setup.seed);
    let curves: Vec<Vec<Point>> = parts.partial.curves.iter().map(|c| points(&c.falling())).collect();
    let known = strong.total().energy_n > 0.0;
    let worths: Vec<Worth> = curves.iter().map(|c| blank(worth(c), known)).collect();
    outcome.policies = rows.iter().map(|row| figures(parts, row, &draws, &worths)).collect();
    outcome.pareto = pareto(&outcome.policies);
    outcome.worth = worths.first().copied().unwrap_or_default();
    outcome.curve = curves.first().map(|c| thinned(c)).unwrap_or_default();
    outcome.diff =
        parts.setup.diff.zip(parts.partial.parting.as_ref()).and_then(|(pair, p)| diff(parts, pair, p, &draws));
}

/// Whose share the coin keeps: the first policy's that parts with some queries and keeps others, else the domain rule's.
fn flipped(parts: &Parts<'_>) -> (String, f64) {
    let routes = &parts.partial.routes;
    let share = |route: &Route| {
        let t = route.total();
        if t.n > 0.0 { t.local / t.n } else { 0.0 }
    };
    let named = parts.setup.policies.iter().map(|p| p.name.to_string()).zip(routes.iter().skip(REFERENCES));
    let mut each = named.map(|(name, route)| (name, share(route)));
    let mixed = each.find(|(_, share)| (0.001..0.999).contains(share));
    mixed.unwrap_or_else(|| ("domain-rule".to_owned(), routes.get(3).map_or(0.5, share)))
}

/// Joules of a curve mean nothing where none are known.
fn blank(w: Worth, known: bool) -> Worth {
    if known { w } else { Worth { aiq: None, aiq_coin: None, ..w } }
}

fn rows<'a>(parts: &Parts<'a>) -> Vec<Row<'a>> {
    let routes = &parts.partial.routes;
    let mut out = Vec::new();
    for ((index, route), policy) in routes.iter().enumerate().skip(REFERENCES).zip(&parts.setup.policies) {
        let order = match policy.rule {
            Rule::AllLocal | Rule::AllCloud => Order::None,
            Rule::CoverageThreshold(_) => Order::Curve(1),
            Rule::Objective { .. } => Order::Curve(0),
        };
        let order = if policy.private { Order::None } else { order };
        out.push(Row {
            name: policy.name.to_string(),
            about: policy.about.clone(),
            reference: false,
            route,
            index,
            order,
        });
    }
    let references = [
        ("oracle", "knows the labels: local where the weak model is as good", 2, Order::Curve(2)),
        (
            "domain-rule",
            "local in domains that gain less from the strong model than the log as a whole",
            3,
            Order::Curve(0),
        ),
    ];
    for (name, about, index, order) in references {
        if let Some(route) = routes.get(index) {
            out.push(Row { name: name.to_owned(), about: about.to_owned(), reference: true, route, index, order });
        }
    }
    out
}

/// A coin: everything is linear in what is kept.
fn mixed(weak: &Route, strong: &Route, share: f64) -> Route {
    let mut coin = Route::default();
    for (route, part) in [(weak, share), (strong, 1.0 - share)] {
        for (index, tally) in route.domains.iter().enumerate() {
            if let Some(own) = coin.domain(index) {
                own.add(&tally.times(part));
            }
        }
        coin.groups.iter_mut().zip(&route.groups).for_each(|(a, b)| a.add(b, part));
    }
    coin
}

fn thinned(curve: &[Point]) -> Vec<Point> {
    let share = |i: usize| i as f64 / (POINTS - 1) as f64;
    let between = |x: f64| {
        let accuracy = at(curve, x)?;
        let joules: Vec<Point> = curve.iter().map(|p| Point { accuracy: p.joules, ..*p }).collect();
        Some(Point { strong_share: x, accuracy, joules: at(&joules, x)? })
    };
    (0..POINTS).filter_map(|i| between(share(i))).collect()
}
