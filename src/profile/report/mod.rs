//! Measured tables as pictures: one page that needs nothing else, the same figures as JSON, and PNGs.
//!
//! Everything but [`Report::write`] is pure. A chart whose figures are missing is left out, and the report says why.

mod charts;
mod lines;
mod page;
mod subject;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use self::lines::Saving;
pub use self::subject::Subject;
use crate::config::checked::Energy;
use crate::picture::raster;
use crate::picture::scene::{Anchor, Ink, Scene};
use crate::tables::routing::{Outcome, Router};

/// Batch of the cloud's server that the routers are counted with.
const ROUTED_AT: u32 = 64;
/// Charts that show joules or watts.
const JOULES: [&str; 4] = ["efficiency", "pareto", "tokens", "savings"];
/// Shares of the solvable questions that a router keeps local: an oracle, and the two of the paper.
const KEPT: [f64; 3] = [1.0, 0.8, 0.6];
/// Of the questions it gets wrong, those that an honest router keeps all the same.
const FALSE_LOCAL: f64 = 0.1;

/// One picture.
pub struct Chart {
    /// File name without ending, and its id in JSON.
    pub id: &'static str,
    /// Heading.
    pub title: String,
    /// What it shows and how to read it.
    pub lede: String,
    /// What its joules may be wrong by, for the picture alone; empty where it has none.
    pub caption: String,
    scene: Scene,
}

/// What a router between a model and the cloud would save.
#[derive(Clone, Debug, Serialize)]
pub struct Routed {
    /// The local model.
    pub name: String,
    /// Of the solvable questions, those kept local.
    pub kept: f64,
    /// By the paper's arithmetic.
    pub paper: Outcome,
    /// With wasted attempts and false locals.
    pub honest: Outcome,
}

/// A whole report.
pub struct Report {
    /// Date, ISO 8601.
    pub date: String,
    /// What it is about.
    pub subjects: Vec<Subject>,
    /// Its pictures.
    pub charts: Vec<Chart>,
    /// Pictures that could not be made, and why.
    pub missing: Vec<String>,
    /// Savings of each subject by the cloud's batch.
    pub savings: Vec<Option<Vec<Saving>>>,
    /// Routers.
    pub routers: Vec<Routed>,
    /// The cloud that savings are against.
    pub cloud: String,
}

impl Report {
    /// Makes every picture that the figures allow. `cloud` is a model as [`crate::energy::cloud::stated`] reads it.
    ///
    /// # Errors
    /// No subjects, or a cloud model that was neither measured nor has a known size.
    pub fn new(subjects: Vec<Subject>, cloud: &str, assumed: &Energy, date: String) -> Result<Self, String> {
        if subjects.is_empty() {
            return Err("no tables".to_owned());
        }
        let savings: Vec<Option<Vec<Saving>>> =
            subjects.iter().map(|s| lines::savings(s, cloud, assumed)).collect::<Result<_, _>>()?;
        let routers = subjects.iter().zip(&savings).flat_map(|(s, found)| routed(s, found.as_deref())).collect();
        let mut report =
            Self { date, subjects, charts: Vec::new(), missing: Vec::new(), savings, routers, cloud: cloud.to_owned() };
        report.draw(assumed);
        Ok(report)
    }

    fn draw(&mut self, assumed: &Energy) {
        let s = &self.subjects;
        let [low, mid, high] = assumed.pue;
        let told = meters(s);
        let unsure = if told.is_empty() { String::new() } else { format!(" {told}") };
        let made = [
            ("coverage", "Coverage by domain", "Share answered correctly with its Wilson interval; the tick is the share pulled towards the model's overall share as far as the domain is thin.".to_owned(), Some(charts::coverage(s)), ""),
            ("efficiency", "Intelligence per joule and per watt", format!("Ratios of means on logarithmic scales. IPJ leads: IPW rewards slowness, because a slow machine draws fewer watts for longer.{unsure}"), Some(charts::efficiency(s)), ""),
            ("pareto", "Accuracy against energy", format!("The dashed front joins the models that no other beats in both.{unsure}"), charts::pareto(s), "No front: no table knows joules."),
            ("tokens", "Joules against tokens", format!("One dot an answer, without its prompt: its joules less the table's J per prompt token times its prompt. The line is the table's J per generated token.{unsure}"), lines::tokens(s), "No joules against tokens: give the record files, or put them beside the tables as NAME.records.jsonl."),
            ("savings", "Savings against the cloud's batch", format!("Against {} answering with as many tokens, host and PUE {mid} included; the band spans the measured set-ups, or the sizes it may have, and PUE {low} to {high}. Above the line a local answer takes fewer joules.{unsure}", self.cloud), lines::against_batch(s, &self.savings), "No savings: no table knows joules and tokens."),
            ("calibration", "Confidence against correctness", "Answers by rising confidence; on the diagonal a model is right as often as it is sure.".to_owned(), lines::calibration(s), "No calibration: no record file has log-probabilities of at least 20 graded answers."),
        ];
        for (id, title, lede, scene, why) in made {
            match scene {
                Some(scene) => {
                    let caption = if JOULES.contains(&id) { told.clone() } else { String::new() };
                    self.charts.push(Chart { id, title: title.to_owned(), lede, caption, scene });
                }
                None => self.missing.push(why.to_owned()),
            }
        }
    }

    /// Every figure of the report.
    pub fn json(&self) -> Value {
        let front: Vec<&str> = charts::front(&self.subjects)
            .into_iter()
            .filter_map(|i| Some(self.subjects.get(i)?.name.as_str()))
            .collect();
        let savings: serde_json::Map<String, Value> =
            self.subjects.iter().zip(&self.savings).map(|(s, found)| (s.name.clone(), json!(found))).collect();
        json!({ "date": self.date, "subjects": self.subjects, "front": front, "cloud": self.cloud, "savings": savings,
            "routers": self.routers, "charts": self.charts.iter().map(|c| c.id).collect::<Vec<_>>(), "missing": self.missing })
    }

    /// The page.
    pub fn html(&self) -> String {
        page::html(self)
    }

    /// The page without its frame.
    pub fn body(&self, out: &mut String) {
        page::body(out, self);
    }

    /// Writes `report.html`, `report.json`, `report.png` and a PNG of every chart; returns the files.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, String> {
        let told = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
        std::fs::create_dir_all(folder).map_err(|e| told(folder, e))?;
        let json = serde_json::to_string_pretty(&self.json()).map_err(|e| e.to_string())? + "\n";
        let mut files = vec![
            ("report.html".to_owned(), self.html().into_bytes()),
            ("report.json".to_owned(), json.into_bytes()),
            ("report.png".to_owned(), raster::png(&self.poster())?),
        ];
        for chart in &self.charts {
            files.push((format!("{}.png", chart.id), raster::png(&titled(chart))?));
        }
        let mut written = Vec::new();
        for (name, bytes) in files {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(|e| told(&path, e))?;
            written.push(path);
        }
        Ok(written)
    }

    /// All charts in two columns.
    fn poster(&self) -> Scene {
        let mut columns = [Scene::new(charts::WIDTH, 0.0), Scene::new(charts::WIDTH, 0.0)];
        for chart in &self.charts {
            let one = titled(chart);
            let [left, right] = &mut columns;
            let shorter = if left.height <= right.height { left } else { right };
            let below = shorter.height;
            shorter.put(&one, (0.0, below));
            shorter.height += one.height + 16.0;
        }
        let [left, right] = columns;
        let mut all = Scene::new(2.0 * charts::WIDTH + 60.0, left.height.max(right.height) + 80.0);
        all.bold((20.0, 40.0), 24.0, "Intelligence per watt", Anchor::Start);
        let about = format!("{}; intervals are at 95 % and speak of the spread of the questions alone", self.date);
        all.text((20.0, 62.0), about, Ink::Muted, Anchor::Start);
        all.put(&left, (20.0, 76.0));
        all.put(&right, (charts::WIDTH + 40.0, 76.0));
        all
    }
}

/// A chart under its heading.
fn titled(chart: &Chart) -> Scene {
    let below = if chart.caption.is_empty() { 40.0 } else { 60.0 };
    let mut scene = Scene::new(chart.scene.width, chart.scene.height + below);
    scene.bold((20.0, 26.0), 17.0, chart.title.clone(), Anchor::Start);
    scene.text((20.0, 46.0), chart.caption.clone(), Ink::Muted, Anchor::Start);
    scene.put(&chart.scene, (0.0, below));
    scene
}

/// What the joules of these tables may be wrong by: one sentence, for each basis the widest that is stated.
fn meters(subjects: &[Subject]) -> String {
    let mut widest: BTreeMap<&str, Option<f64>> = BTreeMap::new();
    for table in subjects.iter().map(|s| &s.table).filter(|t| t.overall.joules_per_query.is_some()) {
        let unsure = widest.entry(table.basis.name()).or_default();
        *unsure = (*unsure).into_iter().chain(table.tokens.relative_uncertainty).reduce(f64::max);
    }
    let each = widest.iter().map(|(basis, unsure)| match unsure {
        Some(unsure) => format!("\u{b1} {:.0} % ({basis})", unsure * 100.0),
        None => format!("by an amount that is not stated ({basis})"),
    });
    let each: Vec<String> = each.collect();
    if each.is_empty() {
        String::new()
    } else {
        format!("All joules of a table may be off together: {}.", each.join(", "))
    }
}

/// Routers between a model and the cloud at one batch.
fn routed(subject: &Subject, savings: Option<&[Saving]>) -> Vec<Routed> {
    let at = savings.and_then(|all| all.iter().find(|s| s.batch == ROUTED_AT));
    let Some((at, own)) = at.zip(subject.table.overall.joules_per_query) else { return Vec::new() };
    let ratio = own / at.cloud_joules;
    let of = |kept: f64| {
        let paper = Router::paper(subject.table.overall.coverage, ratio, kept);
        let honest = Router { tried_first: 1.0, false_local: FALSE_LOCAL, ..paper };
        Routed { name: subject.name.clone(), kept, paper: paper.outcome(), honest: honest.outcome() }
    };
    KEPT.map(of).into()
}
