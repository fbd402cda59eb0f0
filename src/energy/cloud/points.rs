//! Measured J per output token by server batch: the ML.ENERGY points, as curves.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::{SERVER_GPUS, SERVER_W};
use crate::config::energy::SetUp;
use crate::config::problem::did_you_mean;

/// The shipped points; see the README beside the file for source and licence.
const CSV: &str = include_str!("../../../eval/data/energy/ml_energy_points.csv");

/// Models to their curves.
type Curves = BTreeMap<String, Vec<Curve>>;

static CURVES: LazyLock<Curves> = LazyLock::new(|| read(CSV));

#[derive(Deserialize)]
struct Point {
    task: String,
    model_id: String,
    active_b: f64,
    precision: String,
    gpu: String,
    gpus: f64,
    batch: f64,
    joules_per_output_token: f64,
    tokens_per_s: f64,
    itl_ms: f64,
}

/// One model on one set-up: J, tokens per second and seconds per token by batch.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Benchmark: `lm-arena-chat`, `gpqa` or `sourcegraph-fim`.
    pub task: String,
    /// Weights' precision.
    pub precision: String,
    /// Accelerator.
    pub gpu: String,
    /// How many.
    pub gpus: f64,
    /// Active parameters, billions.
    pub active_b: f64,
    /// By rising batch.
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    batch: f64,
    joules: f64,
    tokens_per_s: f64,
    seconds: f64,
}

/// Curves of a model id, or of its part after the slash; its 8-bit release counts as the same model. Chat where it was
/// measured, else whatever was.
///
/// # Errors
/// A name that was not measured, with the nearest one that was.
pub fn curves(id: &str) -> Result<Vec<&'static Curve>, String> {
    all(id).map(best)
}

/// The same, of certain set-ups only.
///
/// # Errors
/// Also a set-up that was not measured, with those that were.
pub fn curves_on(id: &str, on: &SetUp) -> Result<Vec<&'static Curve>, String> {
    let measured = all(id)?;
    let fits = |c: &&&Curve| {
        on.gpu.as_ref().is_none_or(|gpu| gpu.eq_ignore_ascii_case(&c.gpu))
            && on.gpus.is_none_or(|n| c.gpus.total_cmp(&f64::from(n)).is_eq())
            && on.precision.as_ref().is_none_or(|p| p.eq_ignore_ascii_case(&c.precision))
    };
    let found: Vec<&Curve> = measured.iter().filter(fits).copied().collect();
    if !found.is_empty() {
        return Ok(best(found));
    }
    let near = |written: &Option<String>, known: fn(&Curve) -> &str| {
        let names: Vec<&str> = measured.iter().map(|c| known(c)).collect();
        let written = written.as_ref().filter(|w| !names.iter().any(|k| k.eq_ignore_ascii_case(w)))?;
        let lower: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
        let near = did_you_mean(written, lower.iter().map(String::as_str))?;
        names.into_iter().find(|name| name.eq_ignore_ascii_case(near))
    };
    let near = near(&on.gpu, |c| &c.gpu).or_else(|| near(&on.precision, |c| &c.precision));
    let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
    let mut there: Vec<String> = measured.iter().map(|c| format!("{}x {} {}", c.gpus, c.gpu, c.precision)).collect();
    there.sort();
    there.dedup();
    Err(format!("was not measured on such a set-up, but on {}{near}", there.join(", ")))
}

/// Chat where it was measured, else whatever was.
fn best(found: Vec<&'static Curve>) -> Vec<&'static Curve> {
    let chat: Vec<&Curve> = found.iter().copied().filter(|c| c.task == "lm-arena-chat").collect();
    if chat.is_empty() { found } else { chat }
}

fn all(id: &str) -> Result<Vec<&'static Curve>, String> {
    let wanted = plain(id);
    let found: Vec<&Curve> =
        CURVES.iter().filter(|(name, _)| plain(name) == wanted).flat_map(|(_, curves)| curves).collect();
    if found.is_empty() {
        let near = nearest(id);
        let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        return Err(format!("no measured points of that model{near}"));
    }
    Ok(found)
}

/// The measured model whose name a misspelt one is nearest to.
pub fn nearest(id: &str) -> Option<&'static str> {
    did_you_mean(&id.to_lowercase(), LOWER.iter().map(String::as_str))
}

/// Names of the measured models.
pub fn names() -> impl Iterator<Item = &'static str> {
    CURVES.keys().map(String::as_str)
}

static LOWER: LazyLock<Vec<String>> = LazyLock::new(|| names().map(str::to_lowercase).collect());

fn plain(id: &str) -> String {
    let short = id.rsplit('/').next().unwrap_or(id).to_lowercase();
    short.strip_suffix("-fp8").unwrap_or(&short).to_owned()
}

impl Curve {
    /// J per output token of the accelerators, interpolated in the logarithm of the batch; nearest end outside.
    pub fn at(&self, batch: f64) -> f64 {
        self.between(batch, |s| s.joules)
    }

    /// [`Curve::at`] plus the host's share.
    pub fn with_host(&self, batch: f64) -> f64 {
        let rate = self.between(batch, |s| s.tokens_per_s);
        let host = if rate > 0.0 { SERVER_W * self.gpus / SERVER_GPUS / rate } else { 0.0 };
        self.at(batch) + host
    }

    /// Median seconds between two tokens of one answer.
    pub fn seconds_per_token(&self, batch: f64) -> f64 {
        self.between(batch, |s| s.seconds)
    }

    /// The set-up in words.
    pub fn about(&self) -> String {
        let ends = self.steps.first().zip(self.steps.last());
        let (from, to) = ends.map_or((0.0, 0.0), |(a, b)| (a.batch, b.batch));
        format!("{}x {}, {}, {}, batch {from:.0} to {to:.0}", self.gpus, self.gpu, self.precision, self.task)
    }

    fn between(&self, batch: f64, value: impl Fn(&Step) -> f64) -> f64 {
        let upper = self.steps.partition_point(|s| s.batch < batch);
        match (upper.checked_sub(1).and_then(|i| self.steps.get(i)), self.steps.get(upper)) {
            (Some(a), Some(b)) => {
                let share = (batch / a.batch).ln() / (b.batch / a.batch).ln();
                // Energy falls like a power of the batch: straight in log-log.
                (value(a).ln() * (1.0 - share) + value(b).ln() * share).exp()
            }
            (Some(end), None) | (None, Some(end)) => value(end),
            (None, None) => f64::NAN,
        }
    }
}

fn read(text: &str) -> Curves {
    let mut out = Curves::new();
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
    for p in reader.deserialize::<Point>().filter_map(Result::ok) {
        let curves = out.entry(p.model_id).or_default();
        let step = Step {
            batch: p.batch,
            joules: p.joules_per_output_token,
            tokens_per_s: p.tokens_per_s,
            seconds: p.itl_ms / 1e3,
        };
        let same = curves.iter_mut().find(|c: &&mut Curve| {
            c.task == p.task && c.precision == p.precision && c.gpu == p.gpu && c.gpus.total_cmp(&p.gpus).is_eq()
        });
        match same {
            Some(curve) => curve.steps.push(step),
            None => curves.push(Curve {
                task: p.task,
                precision: p.precision,
                gpu: p.gpu,
                gpus: p.gpus,
                active_b: p.active_b,
                steps: vec![step],
            }),
        }
    }
    for curve in out.values_mut().flatten() {
        curve.steps.sort_by(|a, b| a.batch.total_cmp(&b.batch));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read_and_is_plausible() {
        let rows = CSV.lines().filter(|l| !l.starts_with('#')).count() - 1;
        let steps: usize = CURVES.values().flatten().map(|c| c.steps.len()).sum();
        assert_eq!(rows, steps);
        assert!(rows > 500, "{rows}");
        for step in CURVES.values().flatten().flat_map(|c| &c.steps) {
            assert!(
                step.joules > 0.001 && step.joules < 50.0 && step.tokens_per_s > 1.0 && step.seconds > 0.0,
                "{step:?}"
            );
        }
    }

    #[test]
    fn curves_pass_through_their_points_and_stop_at_their_ends() {
        let all = curves("qwen3-235b-a22b-instruct-2507").unwrap();
        let c = all.iter().find(|c| c.gpu == "H100" && c.precision == "bfloat16").unwrap();
        assert!((c.at(16.0) - 5.1783).abs() < 1e-6);
        let between = c.at(24.0);
        assert!(between < 5.1783 && between > 3.8255, "{between}");
        assert!((c.at(1.0) - 7.2926).abs() < 1e-6);
        assert!((c.at(100_000.0) - 1.0927).abs() < 1e-6);
        assert!(c.with_host(16.0) > c.at(16.0));
    }

    #[test]
    fn a_set_up_that_was_not_measured_gets_the_choices() {
        let id = "qwen3-235b-a22b-instruct-2507";
        let on = |gpu: &str, gpus: Option<u32>| SetUp { gpu: Some(gpu.to_owned()), gpus, precision: None };
        let found = curves_on(id, &on("h100", Some(8))).unwrap();
        assert!(!found.is_empty() && found.iter().all(|c| c.gpu == "H100" && c.gpus == 8.0));
        let e = curves_on(id, &on("H10O", None)).unwrap_err();
        assert!(e.contains("8x H100 bfloat16") && e.ends_with("did you mean `H100`?"), "{e}");
        let e = curves_on(id, &on("H100", Some(3))).unwrap_err();
        assert!(e.starts_with("was not measured on such a set-up, but on ") && !e.contains("did you mean"), "{e}");
    }

    #[test]
    fn a_name_that_was_not_measured_gets_a_suggestion() {
        let e = curves("Qwen/Qwen3-235B-A22B-Instruct-2508").unwrap_err();
        assert!(e.contains("did you mean `qwen/qwen3-235b-a22b-instruct-2507"), "{e}");
    }
}
