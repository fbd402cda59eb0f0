//! The charts of what tables say: coverage by domain, IPJ and IPW, and the front of accuracy against energy. Pure.

use std::collections::BTreeSet;

use super::subject::Subject;
use crate::classify::domain::Domain;
use crate::picture::axis::{Scale, frame, label, legend};
use crate::picture::names::name_point;
use crate::picture::scene::{Anchor, Ink, Scene};
use crate::tables::Row;
use crate::tables::sample::count;

/// Pixels of every chart's width.
pub const WIDTH: f64 = 920.0;

/// Names of the subjects with their colours' numbers.
pub fn names(subjects: &[Subject]) -> Vec<(usize, String)> {
    subjects.iter().map(|s| s.name.clone()).enumerate().collect()
}

/// One line of the coverage chart: its name, and the rows of the subjects that have it.
type Lane<'a> = (&'static str, Vec<(usize, &'a Row)>);

/// Pixels of one subject in a lane, and between two lanes.
const LANE: (f64, f64) = (12.0, 14.0);

/// Coverage by domain with Wilson intervals; the shrunk estimate is a tick.
pub fn coverage(subjects: &[Subject]) -> Scene {
    let domains: BTreeSet<Domain> = subjects.iter().flat_map(|s| s.table.domains.keys().copied()).collect();
    let overall = ("overall", subjects.iter().map(|s| &s.table.overall).enumerate().collect());
    let of = |d: &Domain| subjects.iter().enumerate().filter_map(|(i, s)| Some((i, s.table.domains.get(d)?))).collect();
    let each = domains.iter().map(|d| (d.name(), of(d)));
    let lanes: Vec<Lane> = std::iter::once(overall).chain(each).collect();
    let mut scene = Scene::new(WIDTH, 0.0);
    let top = 14.0 + legend(&mut scene, &names(subjects), (20.0, 18.0), WIDTH - 40.0);
    let tall = |lane: &Lane| LANE.0 * count(lane.1.len().max(1)) + LANE.1;
    let bottom = top + lanes.iter().map(tall).sum::<f64>();
    scene.height = bottom + 48.0;
    // Half of an axis to 1 would stay empty where no model comes far.
    let highest = lanes.iter().flat_map(|(_, rows)| rows).map(|(_, row)| row.coverage_high).fold(0.0_f64, f64::max);
    let x = Scale::linear(
        0.0,
        if highest > 0.8 { 1.0 } else { ((highest * 10.0).ceil() / 10.0).max(0.2) },
        (330.0, WIDTH - 90.0),
    );
    for (value, text) in x.ticks() {
        scene.line((x.px(value), top), (x.px(value), bottom), Ink::Grid, 1.0);
        scene.text((x.px(value), bottom + 18.0), text, Ink::Muted, Anchor::Middle);
    }
    let middle = f64::midpoint(330.0, WIDTH - 90.0);
    scene.text((middle, bottom + 38.0), "share correct, 95 % interval", Ink::Muted, Anchor::Middle);
    scene.text((WIDTH - 20.0, top - 6.0), "n", Ink::Muted, Anchor::End);
    let mut from = top;
    for (i, lane) in lanes.iter().enumerate() {
        draw_lane(&mut scene, &x, lane, (from, tall(lane)), i == 0);
        from += tall(lane);
    }
    scene
}

fn draw_lane(scene: &mut Scene, x: &Scale, (name, rows): &Lane, (from, tall): (f64, f64), whole: bool) {
    scene.line((20.0, from), (WIDTH - 20.0, from), Ink::Grid, 1.0);
    let middle = from + tall / 2.0 + 4.0;
    if whole {
        scene.bold((316.0, middle), 12.0, *name, Anchor::End);
    } else {
        scene.text((316.0, middle), short(name), Ink::Text, Anchor::End);
    }
    for (k, (i, row)) in rows.iter().enumerate() {
        let y = from + f64::midpoint(LANE.0, LANE.1) + LANE.0 * count(k);
        let at = [row.coverage_low, row.coverage, row.coverage_high].map(|v| x.px(v));
        scene.whisker(y, at, *i, 3.6);
        if let Some(shrunk) = row.shrunk {
            scene.line((x.px(shrunk), y - 5.0), (x.px(shrunk), y + 5.0), Ink::Text, 1.6);
        }
        scene.sized((WIDTH - 20.0, y + 4.0), 11.0, row.n.to_string(), Ink::Muted, Anchor::End);
    }
}

fn short(name: &str) -> String {
    if name.chars().count() <= 46 { name.to_owned() } else { name.chars().take(45).chain(['.']).collect() }
}

/// IPJ and IPW by model, each on its own scale; those that are not known are said.
pub fn efficiency(subjects: &[Subject]) -> Scene {
    let row_height = 30.0;
    let height = 62.0 + row_height * count(subjects.len()) + 44.0;
    let mut scene = Scene::new(WIDTH, height);
    type Panel = (&'static str, f64, fn(&Row) -> Figure);
    let panels: [Panel; 2] = [
        ("IPJ: correct answers per joule (1/J)", 310.0, |r| (r.ipj, r.ipj_interval)),
        ("IPW: accuracy per watt (1/W)", 620.0, |r| (r.ipw, r.ipw_interval)),
    ];
    for (i, s) in subjects.iter().enumerate() {
        let y = 66.0 + row_height * count(i);
        scene.text((290.0, y + 4.0), clipped(&s.name, NAME), Ink::Text, Anchor::End);
    }
    for (title, left, of) in panels {
        panel(&mut scene, subjects, title, (left, left + 270.0), of);
    }
    scene
}

/// Letters of a name left of the panels.
const NAME: usize = 40;

type Figure = (Option<f64>, Option<[f64; 2]>);

fn panel(scene: &mut Scene, subjects: &[Subject], title: &str, at: (f64, f64), of: fn(&Row) -> Figure) {
    let figures: Vec<Figure> = subjects.iter().map(|s| of(&s.table.overall)).collect();
    let ends = figures.iter().flat_map(|(v, ends)| v.iter().copied().chain(ends.iter().flatten().copied()));
    let x = Scale::around(&ends.filter(|v| *v > 0.0).collect::<Vec<_>>(), at);
    let (top, bottom) = (48.0, scene.height - 40.0);
    scene.bold((at.0, 24.0), 13.0, title, Anchor::Start);
    for (value, text) in x.ticks() {
        scene.line((x.px(value), top), (x.px(value), bottom), Ink::Grid, 1.0);
        scene.text((x.px(value), bottom + 18.0), text, Ink::Muted, Anchor::Middle);
    }
    for (i, (value, ends)) in figures.iter().enumerate() {
        let y = 66.0 + 30.0 * count(i);
        let Some(value) = value else {
            scene.text((at.0 + 4.0, y + 4.0), "not known", Ink::Muted, Anchor::Start);
            continue;
        };
        let [low, high] = ends.unwrap_or([*value, *value]);
        scene.whisker(y, [low, *value, high].map(|v| x.px(v)), i, 5.0);
    }
}

/// As much of a name as there is room for.
pub fn clipped(name: &str, most: usize) -> String {
    if name.chars().count() <= most { name.to_owned() } else { name.chars().take(most - 1).chain(['.']).collect() }
}

/// Subjects that no other one beats in both accuracy and energy.
pub fn front(subjects: &[Subject]) -> Vec<usize> {
    let at = |s: &Subject| s.table.overall.joules_per_query.map(|j| (j, s.table.overall.coverage));
    let beaten =
        |(j, c): (f64, f64)| subjects.iter().filter_map(at).any(|(j2, c2)| j2 <= j && c2 >= c && (j2 < j || c2 > c));
    let mut found: Vec<(f64, usize)> =
        subjects.iter().enumerate().filter_map(|(i, s)| at(s).filter(|p| !beaten(*p)).map(|p| (p.0, i))).collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found.into_iter().map(|(_, i)| i).collect()
}

/// The room that a step of the front takes.
fn between(step: &[(f64, f64)]) -> Option<[f64; 4]> {
    let &[(x1, y1), (x2, y2)] = step else { return None };
    Some([x1.min(x2) - 1.0, y1.min(y2) - 1.0, x1.max(x2) + 1.0, y1.max(y2) + 1.0])
}

/// Accuracy against J per query: who is on the front, and who is not.
pub fn pareto(subjects: &[Subject]) -> Option<Scene> {
    let known = |s: &&Subject| s.table.overall.joules_per_query.is_some();
    let joules: Vec<f64> = subjects
        .iter()
        .filter(known)
        .flat_map(|s| {
            let row = &s.table.overall;
            row.joules_per_query.into_iter().chain(row.joules_interval.into_iter().flatten())
        })
        .collect();
    if joules.is_empty() {
        return None;
    }
    let mut scene = Scene::new(WIDTH, 420.0);
    let highest = subjects.iter().filter(known).map(|s| s.table.overall.coverage_high).fold(0.0_f64, f64::max);
    let x = Scale::around(&joules, (80.0, WIDTH - 40.0));
    let y = Scale::linear(0.0, (highest * 1.15).min(1.0), (360.0, 24.0));
    frame(&mut scene, &x, &y, ("J per query (fewer is better)", "share correct"));
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for i in front(subjects) {
        let Some((row, j)) = subjects.get(i).map(|s| &s.table.overall).and_then(|r| Some((r, r.joules_per_query?)))
        else {
            continue;
        };
        if let Some(last) = steps.last().copied() {
            steps.push((x.px(j), last.1));
        }
        steps.push((x.px(j), y.px(row.coverage)));
    }
    if let Some(last) = steps.last().copied() {
        steps.push((WIDTH - 40.0, last.1));
    }
    scene.dashes(steps.clone(), Ink::Axis, 1.4);
    // Names keep clear of the front and of every point's whiskers.
    let mut taken: Vec<[f64; 4]> = steps.windows(2).filter_map(between).collect();
    for s in subjects {
        let row = &s.table.overall;
        let Some(j) = row.joules_per_query else { continue };
        let ends = row.joules_interval.unwrap_or([j, j]).map(|v| x.px(v));
        let (px, py) = (x.px(j), y.px(row.coverage));
        taken.push([ends[0], py - 2.0, ends[1], py + 2.0]);
        taken.push([px - 2.0, y.px(row.coverage_high), px + 2.0, y.px(row.coverage_low)]);
    }
    for (i, s) in subjects.iter().enumerate() {
        let row = &s.table.overall;
        let Some(j) = row.joules_per_query else { continue };
        let at = (x.px(j), y.px(row.coverage));
        let ends = row.joules_interval.unwrap_or([j, j]).map(|v| x.px(v));
        scene.line((ends[0], at.1), (ends[1], at.1), Ink::Series(i), 1.6);
        scene.line((at.0, y.px(row.coverage_low)), (at.0, y.px(row.coverage_high)), Ink::Series(i), 1.6);
        scene.dot(at, 5.5, Ink::Series(i));
        let text = format!("{} ({} J)", s.name, label((j * 100.0).round() / 100.0));
        name_point(&mut scene, at, text, &mut taken);
    }
    Some(scene)
}
