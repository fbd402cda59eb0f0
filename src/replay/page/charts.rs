//! The charts of a replay: fronts, domains, the cloud's batch, the local device hour by hour. Pure.

use crate::picture::axis::{Scale, frame, legend};
use crate::picture::names::name_point;
use crate::picture::scene::{Anchor, Ink, Scene};
use crate::replay::outcome::{Outcome, PolicyFigures};

const WIDTH: f64 = 1060.0;
const LEFT: f64 = 80.0;
/// Domains drawn; the rest stand in the table.
const DOMAINS: usize = 24;
/// Lowest share of a saving that is drawn: beyond it a line only says "far below".
const FLOOR: f64 = -100.0;

/// A title, how to read it, and the chart or why there is none.
type Drawn = (&'static str, String, Result<Scene, String>);

/// All of them, in the page's order.
pub fn all(outcome: &Outcome, main: Option<&PolicyFigures>) -> Vec<Drawn> {
    let because = |scene: Option<Scene>, why: &str| scene.ok_or_else(|| why.to_owned());
    let name = main.map_or("", |p| p.name.as_str());
    vec![
        (
            "Accuracy against energy",
            "Each point is a policy. The line is what the order of predicted gain would reach at every share of cloud answers; the dashed one joins \
             the two models by a coin, and a router is worth something only above it."
                .to_owned(),
            because(front(outcome), "No front: the joules of one side are not known."),
        ),
        (
            "By domain",
            format!("Bars: share that {name} answers locally. Marks: share right by {name}, by the cloud alone and by the local model alone."),
            because(main.and_then(domains), "No domains in the log."),
        ),
        (
            "Savings against the cloud's batch",
            "The same decisions under other assumptions about the cloud's server; a policy that is tuned for one batch may decide otherwise under \
             another. Below the line the local device is the dearer one."
                .to_owned(),
            because(batches(outcome), "No savings by batch: the cloud model's joules do not depend on a batch here."),
        ),
        (
            "Load of the local device",
            format!("Service that {name} asks of the device in each slot, over what it can do; above the line the queue grows."),
            because(main.and_then(load), "No load over time: the log has no arrival times, and no rate was given."),
        ),
    ]
}

fn front(outcome: &Outcome) -> Option<Scene> {
    let of = |p: &PolicyFigures| Some((p.joules.mid? / count(p.energy_n.max(1)), p.accuracy));
    let points: Vec<(usize, &PolicyFigures, (f64, f64))> =
        outcome.policies.iter().enumerate().filter_map(|(i, p)| Some((i, p, of(p)?))).collect();
    let curve: Vec<(f64, f64)> =
        outcome.curve.iter().filter(|p| p.joules > 0.0).map(|p| (p.joules, p.accuracy)).collect();
    if points.is_empty() {
        return None;
    }
    let all = points.iter().map(|(.., at)| *at).chain(curve.iter().copied());
    let (mut least, mut most, mut low, mut high) = (f64::INFINITY, 0.0_f64, 1.0_f64, 0.0_f64);
    for (j, a) in all {
        (least, most, low, high) = (least.min(j), most.max(j), low.min(a), high.max(a));
    }
    let mut scene = Scene::new(WIDTH, 440.0);
    let room = 0.08 * (most - least).max(1e-9);
    let x = Scale::linear((least - room).max(0.0), most + room, (LEFT, WIDTH - 40.0));
    let y = Scale::linear((low - 0.03).max(0.0), (high + 0.03).min(1.0), (380.0, 24.0));
    frame(&mut scene, &x, &y, ("J a query, middle assumption (fewer is better)", "share right"));
    if let (Some(from), Some(to)) = (curve.first(), curve.last()) {
        scene.dashes(vec![(x.px(from.0), y.px(from.1)), (x.px(to.0), y.px(to.1))], Ink::Axis, 1.4);
        scene.path(curve.iter().map(|(j, a)| (x.px(*j), y.px(*a))).collect(), Ink::Muted, 1.8);
    }
    let mut taken = Vec::new();
    for (i, policy, (j, a)) in points {
        let at = (x.px(j), y.px(a));
        if let Some([low, high]) = policy.ci.accuracy {
            scene.line((at.0, y.px(low)), (at.0, y.px(high)), Ink::Series(i), 1.4);
        }
        scene.dot(at, 5.0, Ink::Series(i));
        name_point(&mut scene, at, policy.name.clone(), &mut taken);
    }
    Some(scene)
}

fn domains(policy: &PolicyFigures) -> Option<Scene> {
    let mut shown: Vec<_> = policy.by_domain.iter().collect();
    if shown.is_empty() {
        return None;
    }
    shown.sort_by(|a, b| b.n.cmp(&a.n).then(a.domain.cmp(&b.domain)));
    shown.truncate(DOMAINS);
    let mut scene = Scene::new(WIDTH, 0.0);
    let names = [(1, "right".to_owned()), (2, "cloud alone".to_owned()), (3, "local alone".to_owned())];
    scene.area(vec![(20.0, 8.0), (40.0, 8.0), (40.0, 20.0), (20.0, 20.0)], Ink::Band(0));
    scene.text((46.0, 18.0), "answered locally", Ink::Text, Anchor::Start);
    let top = 14.0 + legend(&mut scene, &names, (190.0, 18.0), WIDTH - 220.0);
    let tall = 26.0;
    let bottom = top + tall * count(shown.len() as u64);
    scene.height = bottom + 48.0;
    let x = Scale::linear(0.0, 1.0, (280.0, WIDTH - 90.0));
    for (value, text) in x.ticks() {
        scene.line((x.px(value), top), (x.px(value), bottom), Ink::Grid, 1.0);
        scene.text((x.px(value), bottom + 18.0), text, Ink::Muted, Anchor::Middle);
    }
    scene.text((WIDTH - 20.0, top - 6.0), "n", Ink::Muted, Anchor::End);
    for (k, d) in shown.iter().enumerate() {
        let from = top + tall * count(k as u64);
        let middle = from + tall / 2.0;
        let (left, right) = (x.px(0.0), x.px(d.local_share));
        let (above, below) = (from + 4.0, from + tall - 4.0);
        scene.area(vec![(left, above), (right, above), (right, below), (left, below)], Ink::Band(0));
        let name: String = d.domain.chars().take(38).collect();
        scene.text((268.0, middle + 4.0), name, Ink::Text, Anchor::End);
        for (series, share) in [(3, d.accuracy_weak), (2, d.accuracy_strong), (1, d.accuracy)] {
            scene.dot((x.px(share), middle), if series == 1 { 5.0 } else { 3.6 }, Ink::Series(series));
        }
        scene.sized((WIDTH - 20.0, middle + 4.0), 11.0, d.n.to_string(), Ink::Muted, Anchor::End);
    }
    Some(scene)
}

fn batches(outcome: &Outcome) -> Option<Scene> {
    let named: Vec<(usize, &PolicyFigures)> = outcome
        .policies
        .iter()
        .enumerate()
        .filter(|(_, p)| !p.savings_by_batch.is_empty() && p.local_share > 0.0)
        .collect();
    if named.is_empty() {
        return None;
    }
    // One line a policy, at the middle of the data centres' overheads.
    let middle = |p: &PolicyFigures| {
        let mut pues: Vec<f64> = p.savings_by_batch.iter().map(|s| s.pue).collect();
        pues.sort_unstable_by(f64::total_cmp);
        pues.get(pues.len() / 2).copied().unwrap_or(1.0)
    };
    let line = |p: &PolicyFigures| -> Vec<(f64, f64)> {
        let pue = middle(p);
        let each = p.savings_by_batch.iter().filter(|s| (s.pue - pue).abs() < 1e-9);
        each.map(|s| (f64::from(s.batch), (100.0 * s.saved_share).max(FLOOR))).collect()
    };
    let lines: Vec<(usize, Vec<(f64, f64)>)> = named.iter().map(|(i, p)| (*i, line(p))).collect();
    let mut scene = Scene::new(WIDTH, 0.0);
    let names: Vec<(usize, String)> = named.iter().map(|(i, p)| (*i, p.name.clone())).collect();
    let top = 14.0 + legend(&mut scene, &names, (LEFT, 18.0), WIDTH - 120.0);
    scene.height = top + 350.0;
    let lowest = lines.iter().flat_map(|(_, l)| l).map(|(_, y)| *y).fold(0.0_f64, f64::min);
    let x = Scale::doubling(8.0, 512.0, (LEFT, WIDTH - 40.0));
    let y = Scale::linear(lowest, 100.0, (top + 290.0, top));
    frame(&mut scene, &x, &y, ("batch of the cloud's server", "saved, % of everything in the cloud"));
    scene.line((LEFT, y.px(0.0)), (WIDTH - 40.0, y.px(0.0)), Ink::Axis, 1.8);
    for (i, line) in lines {
        let drawn: Vec<(f64, f64)> = line.iter().map(|(b, s)| (x.px(*b), y.px(*s))).collect();
        drawn.iter().for_each(|at| scene.dot(*at, 3.2, Ink::Series(i)));
        scene.path(drawn, Ink::Series(i), 2.0);
    }
    Some(scene)
}

fn load(policy: &PolicyFigures) -> Option<Scene> {
    let load = policy.load.as_ref().filter(|l| !l.slots.is_empty())?;
    let mut scene = Scene::new(WIDTH, 340.0);
    let hours = |s: f64| s / 3600.0;
    let end = load.slots.last().map_or(1.0, |s| hours(s.start_s + load.slot_s));
    let most = load.slots.iter().map(|s| s.load).fold(1.0_f64, f64::max);
    let x = Scale::linear(0.0, end, (LEFT, WIDTH - 40.0));
    let y = Scale::linear(0.0, most * 1.1, (280.0, 24.0));
    frame(&mut scene, &x, &y, ("hours since the log's first query", "work over capacity"));
    for slot in &load.slots {
        let (left, right) = (x.px(hours(slot.start_s)), x.px(hours(slot.start_s + load.slot_s)));
        let (bottom, top) = (y.px(0.0), y.px(slot.load));
        let ink = if slot.load > 1.0 { Ink::Series(3) } else { Ink::Series(0) };
        scene.area(
            vec![
                (left, bottom),
                (left, top),
                ((right - 1.0).max(left + 0.5), top),
                ((right - 1.0).max(left + 0.5), bottom),
            ],
            ink,
        );
    }
    scene.line((LEFT, y.px(1.0)), (WIDTH - 40.0, y.px(1.0)), Ink::Axis, 1.8);
    scene.text((WIDTH - 46.0, y.px(1.0) - 7.0), "all it can do", Ink::Muted, Anchor::End);
    Some(scene)
}

#[expect(clippy::cast_precision_loss, reason = "counts of queries")]
fn count(n: u64) -> f64 {
    n as f64
}
