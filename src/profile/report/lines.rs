//! The charts of answers and assumptions: joules against tokens, savings against the cloud's batch, calibration. Pure.

use serde::Serialize;

use super::charts::{WIDTH, names};
use super::subject::{Point, Subject};
use crate::config::checked::Energy;
use crate::energy::cloud::{Model, stated};
use crate::picture::axis::{Scale, frame, legend};
use crate::picture::scene::{Anchor, Ink, Scene};
use crate::tables::sample::count;

/// Points drawn of one subject; more would only make the page heavy.
const MOST_POINTS: usize = 600;
/// Batches of the cloud's server.
pub const BATCHES: [u32; 7] = [8, 16, 32, 64, 128, 256, 512];
/// Least saving that is drawn, in %; below it a local answer costs three times the cloud's.
const WORST: f64 = -200.0;

/// Joules of every answer beyond its prompt's against its generated tokens, with the table's line. Without the prompt's share an
/// answer's dot and the line speak of the same joules: prompts differ a hundredfold within a suite.
pub fn tokens(subjects: &[Subject]) -> Option<Scene> {
    let beyond =
        |s: &Subject, p: &Point| (p.joules - s.table.tokens.joules_per_input_token.unwrap_or(0.0) * p.input).max(0.0);
    let each = || subjects.iter().flat_map(|s| s.points.iter().map(move |p| (p.output, beyond(s, p))));
    let most = |of: fn((f64, f64)) -> f64| each().map(of).fold(0.0_f64, f64::max);
    let (outputs, joules) = (most(|p| p.0), most(|p| p.1));
    if outputs <= 0.0 || joules <= 0.0 {
        return None;
    }
    let mut scene = Scene::new(WIDTH, 0.0);
    let mut shown = names(subjects);
    shown.retain(|(i, _)| subjects.get(*i).is_some_and(|s| !s.points.is_empty()));
    let top = 14.0 + legend(&mut scene, &shown, (80.0, 18.0), WIDTH - 120.0);
    scene.height = top + 390.0;
    let x = Scale::linear(0.0, outputs * 1.04, (80.0, WIDTH - 40.0));
    let y = Scale::linear(0.0, joules * 1.06, (top + 330.0, top));
    frame(&mut scene, &x, &y, ("generated tokens", "J per query beyond its prompt's"));
    for (i, s) in subjects.iter().enumerate() {
        let every = s.points.len().div_ceil(MOST_POINTS).max(1);
        for p in s.points.iter().step_by(every) {
            scene.dot((x.px(p.output), y.px(beyond(s, p))), 2.4, Ink::Series(i));
        }
    }
    for (i, s) in subjects.iter().enumerate() {
        let Some(output) = s.table.tokens.joules_per_output_token.filter(|_| !s.points.is_empty()) else { continue };
        // The line ends where the frame does.
        let end = outputs.min(joules * 1.06 / output);
        scene.path(vec![(x.px(0.0), y.px(0.0)), (x.px(end), y.px(output * end))], Ink::Series(i), 2.0);
    }
    Some(scene)
}

/// What a local answer saves against the cloud at one batch, %, low to high over set-ups and PUE.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Saving {
    /// Server batch.
    pub batch: u32,
    /// Against the leanest cloud.
    pub low: f64,
    /// Against the middle.
    pub mid: f64,
    /// Against the least efficient.
    pub high: f64,
    /// J of the same tokens in the cloud, middle.
    pub cloud_joules: f64,
}

/// Savings of one subject at every batch; none without joules and tokens.
///
/// # Errors
/// A cloud model that was neither measured nor has a known size.
pub fn savings(subject: &Subject, cloud: &str, assumed: &Energy) -> Result<Option<Vec<Saving>>, String> {
    let row = &subject.table.overall;
    let (Some(own), Some(output)) = (row.joules_per_query, row.output_tokens) else { return Ok(None) };
    let input = row.input_tokens.unwrap_or(0.0);
    let mut out = Vec::new();
    for batch in BATCHES {
        let at = Energy { batch: [batch; 3], ..assumed.clone() };
        let Some(model) = Model::new(&stated(cloud), &at)? else { return Ok(None) };
        let theirs = model.joules(input, output);
        let percent = |cloud: Option<f64>| cloud.map(|c| (1.0 - own / c) * 100.0);
        let (Some(low), Some(mid), Some(high)) = (percent(theirs.low), percent(theirs.mid), percent(theirs.high))
        else {
            return Ok(None);
        };
        out.push(Saving { batch, low, mid, high, cloud_joules: theirs.mid.unwrap_or_default() });
    }
    Ok(Some(out))
}

/// Savings against the batch, with break-even.
pub fn against_batch(subjects: &[Subject], all: &[Option<Vec<Saving>>]) -> Option<Scene> {
    all.iter().flatten().next()?;
    let mut scene = Scene::new(WIDTH, 0.0);
    let mut shown = names(subjects);
    shown.retain(|(i, _)| all.get(*i).is_some_and(Option::is_some));
    let top = 14.0 + legend(&mut scene, &shown, (80.0, 18.0), WIDTH - 120.0);
    scene.height = top + 390.0;
    let x = Scale::doubling(8.0, 512.0, (80.0, WIDTH - 40.0));
    let lowest = all.iter().flatten().flatten().map(|s| s.low).fold(0.0_f64, f64::min).max(WORST);
    let y = Scale::linear(if lowest < -5.0 { lowest } else { 0.0 }, 100.0, (top + 330.0, top));
    frame(&mut scene, &x, &y, ("batch of the cloud's server", "saved, % of the cloud's joules"));
    scene.line((80.0, y.px(0.0)), (WIDTH - 40.0, y.px(0.0)), Ink::Axis, 1.8);
    scene.text((WIDTH - 46.0, y.px(0.0) - 7.0), "break-even", Ink::Muted, Anchor::End);
    for (i, found) in all.iter().enumerate() {
        let Some(found) = found else { continue };
        let at = |s: &Saving, v: f64| (x.px(f64::from(s.batch)), y.px(v.max(WORST)));
        let up = found.iter().map(|s| at(s, s.high));
        let down = found.iter().rev().map(|s| at(s, s.low));
        scene.area(up.chain(down).collect(), Ink::Band(i));
        scene.path(found.iter().map(|s| at(s, s.mid)).collect(), Ink::Series(i), 2.2);
        found.iter().for_each(|s| scene.dot(at(s, s.mid), 3.2, Ink::Series(i)));
    }
    Some(scene)
}

/// Confidence by mean log-probability against correctness.
pub fn calibration(subjects: &[Subject]) -> Option<Scene> {
    subjects.iter().find_map(|s| s.calibration.as_ref())?;
    let mut scene = Scene::new(WIDTH, 0.0);
    let told = |(i, s): (usize, &Subject)| {
        let c = s.calibration.as_ref()?;
        let auc = c.auc.map_or_else(String::new, |a| format!(", AUC {a:.2}"));
        Some((i, format!("{} (n {}{auc}, off by {:.2})", s.name, c.n, c.error)))
    };
    let told: Vec<(usize, String)> = subjects.iter().enumerate().filter_map(told).collect();
    let top = 14.0 + legend(&mut scene, &told, (80.0, 18.0), WIDTH - 120.0);
    scene.height = top + 390.0;
    let x = Scale::linear(0.0, 1.0, (80.0, WIDTH - 40.0));
    let y = Scale::linear(0.0, 1.0, (top + 330.0, top));
    frame(&mut scene, &x, &y, ("confidence: e to the mean log-probability of its tokens", "share correct"));
    scene.dashes(vec![(x.px(0.0), y.px(0.0)), (x.px(1.0), y.px(1.0))], Ink::Axis, 1.4);
    for (i, c) in subjects.iter().enumerate().filter_map(|(i, s)| Some((i, s.calibration.as_ref()?))) {
        scene.path(c.bins.iter().map(|b| (x.px(b.confidence), y.px(b.correct))).collect(), Ink::Series(i), 1.8);
        for b in &c.bins {
            let px = x.px(b.confidence) + 2.0 * (count(i) - count(subjects.len() - 1) / 2.0);
            scene.line((px, y.px(b.low)), (px, y.px(b.high)), Ink::Series(i), 1.4);
            scene.dot((px, y.px(b.correct)), 4.0, Ink::Series(i));
        }
    }
    Some(scene)
}
