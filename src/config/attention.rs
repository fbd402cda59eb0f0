//! `attention` of an embedded backend: softmax, or local linear attention with a ridge per layer and query head.
//!
//! Whether a matrix has the model's sizes is only known when its file is read: the engine checks that.

use std::fmt;

use config::ValueKind;
use serde_json::{Map, Number, Value as Json};

use super::problem::{Problems, did_you_mean, shown};

/// How a model attends.
#[derive(Clone, Debug, PartialEq)]
pub enum Attention {
    /// As its weights were trained.
    Softmax,
    /// Local linear attention.
    Lla(Lla),
}

/// Settings of local linear attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Lla {
    /// Ridge on normalised weights.
    pub lambda: Lambda,
    /// Ridges of single layers and heads; a later one wins.
    pub except: Vec<Except>,
    /// How the correction is found.
    pub solver: Solver,
    /// Residual at which conjugate gradients stop, relative to the right-hand side.
    pub tolerance: f32,
    /// Their iterations at most.
    pub iterations: usize,
    /// Bound on a correction in standard deviations of the values; infinity is none.
    pub radius: f32,
}

/// Ridge of every layer and head; infinity is softmax.
#[derive(Clone, Debug, PartialEq)]
pub enum Lambda {
    /// The same for all.
    One(f32),
    /// One list per layer, one number per query head.
    Matrix(Vec<Vec<f32>>),
}

/// A ridge of some layers and heads.
#[derive(Clone, Debug, PartialEq)]
pub struct Except {
    /// Layers, from 0; all if empty.
    pub layers: Vec<usize>,
    /// Query heads, from 0; all if empty.
    pub heads: Vec<usize>,
    /// Their ridge.
    pub lambda: f32,
}

/// How the correction is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solver {
    /// Whichever costs less.
    Auto,
    /// Conjugate gradients.
    Cg,
    /// Covariance and Cholesky factor.
    Gram,
}

/// Names of the keys, as people write them.
const KEYS: [&str; 6] = ["lambda", "except", "solver", "tolerance", "iterations", "radius"];
const EXCEPT_KEYS: [&str; 3] = ["layers", "heads", "lambda"];
const SOLVERS: [(&str, Solver); 3] = [("auto", Solver::Auto), ("cg", Solver::Cg), ("gram", Solver::Gram)];
/// How it is written, for messages.
const EXAMPLE: &str = "write \"softmax\" or { lla = { lambda = 1000.0 } }";

impl Attention {
    /// The smallest ridge anywhere; infinity for softmax.
    pub fn smallest(&self) -> f32 {
        self.extremes().0
    }

    fn extremes(&self) -> (f32, f32) {
        let Self::Lla(lla) = self else { return (f32::INFINITY, f32::INFINITY) };
        let base: Vec<f32> = match &lla.lambda {
            Lambda::One(one) => vec![*one],
            Lambda::Matrix(rows) => rows.concat(),
        };
        let all = base.into_iter().chain(lla.except.iter().map(|e| e.lambda));
        all.fold((f32::INFINITY, 0.0), |(low, high), x| (low.min(x), high.max(x)))
    }
}

impl fmt::Display for Attention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.extremes() {
            (low, _) if low == f32::INFINITY => f.write_str("softmax"),
            (low, high) if low == high => write!(f, "lla, lambda {low}"),
            (low, high) => write!(f, "lla, lambda {low} to {high} by layer and head"),
        }
    }
}

/// The checked setting; softmax where nothing is said. Every problem is noted with its key path.
pub fn check(raw: Option<&Json>, at: &str, problems: &mut Problems) -> Option<Attention> {
    match raw {
        None => Some(Attention::Softmax),
        Some(Json::String(word)) if word == "softmax" => Some(Attention::Softmax),
        Some(Json::String(word)) if word == "lla" => {
            problems.add(at, "needs a ridge: write { lla = { lambda = 1000.0 } }");
            None
        }
        Some(Json::Object(table)) => {
            known(table, &["lla"], at, problems)?;
            match table.get("lla") {
                Some(Json::Object(settings)) => lla(settings, &format!("{at}.lla"), problems).map(Attention::Lla),
                _ => problems.keep(at, Err(format!("must have a table lla: {EXAMPLE}"))),
            }
        }
        Some(Json::String(word)) => problems.keep(at, Err(format!("is {}: {EXAMPLE}", shown(word)))),
        Some(_) => problems.keep(at, Err(format!("is neither a word nor a table: {EXAMPLE}"))),
    }
}

/// A value of any form; infinity, which JSON lacks, becomes the word `inf`.
pub fn as_json(kind: &ValueKind) -> Json {
    match kind {
        ValueKind::Boolean(b) => Json::Bool(*b),
        ValueKind::I64(i) => Json::from(*i),
        ValueKind::Float(x) => Number::from_f64(*x).map_or_else(|| Json::String(x.to_string()), Json::Number),
        ValueKind::String(s) => Json::String(s.clone()),
        ValueKind::Table(entries) => entries.iter().map(|(k, v)| (k.clone(), as_json(&v.kind))).collect(),
        ValueKind::Array(items) => items.iter().map(|v| as_json(&v.kind)).collect(),
        _ => Json::Null,
    }
}

fn lla(table: &Map<String, Json>, at: &str, problems: &mut Problems) -> Option<Lla> {
    known(table, &KEYS, at, problems)?;
    let missing = || Err("is missing: a number above 0, such as 1000.0, or a list of numbers per layer".to_owned());
    let lambda = match table.get("lambda") {
        None if table.contains_key("except") => Ok(Lambda::One(f32::INFINITY)),
        None => missing(),
        Some(Json::Array(rows)) => matrix(rows),
        Some(one) => positive(one).map(Lambda::One),
    };
    let lambda = problems.keep(&format!("{at}.lambda"), lambda);
    let except = excepts(table.get("except"), &format!("{at}.except"), problems);
    let radius = table.get("radius").map_or(Ok(f32::INFINITY), positive);
    let radius = problems.keep(&format!("{at}.radius"), radius);
    let tolerance = table.get("tolerance").map_or(Ok(1e-3), positive).ok().filter(|t| *t < 1.0);
    let small = || "must be above 0 and below 1".to_owned();
    let tolerance = problems.keep(&format!("{at}.tolerance"), tolerance.ok_or_else(small));
    let iterations = match table.get("iterations").map(Json::as_u64) {
        None => Some(32),
        Some(Some(n @ 1..=255)) => usize::try_from(n).ok(),
        Some(_) => problems.keep(&format!("{at}.iterations"), Err("must be a whole number from 1 to 255".to_owned())),
    };
    let word = table.get("solver").map_or(Some("auto"), Json::as_str).unwrap_or_default();
    let solver = SOLVERS.iter().find(|(name, _)| *name == word).map(|(_, solver)| *solver);
    let solver = problems.keep(
        &format!("{at}.solver"),
        solver.ok_or_else(|| "must be \"auto\", \"cg\" (conjugate gradients) or \"gram\"".to_owned()),
    );
    Some(Lla {
        lambda: lambda?,
        except: except?,
        solver: solver?,
        tolerance: tolerance?,
        iterations: iterations?,
        radius: radius?,
    })
}

fn excepts(raw: Option<&Json>, at: &str, problems: &mut Problems) -> Option<Vec<Except>> {
    let list = match raw {
        None => return Some(Vec::new()),
        Some(Json::Array(list)) => list,
        Some(_) => {
            return problems
                .keep(at, Err("must be a list: [{ layers = [0, 1], heads = [3], lambda = 1000.0 }]".to_owned()));
        }
    };
    let mut out = Vec::new();
    for (i, item) in list.iter().enumerate() {
        let here = format!("{at}[{i}]");
        let Json::Object(table) = item else {
            problems.add(here, "must be a table: { layers = [0, 1], heads = [3], lambda = 1000.0 }");
            continue;
        };
        let fine = known(table, &EXCEPT_KEYS, &here, problems);
        let mut which = |key: &str| problems.keep(&format!("{here}.{key}"), indices(table.get(key)));
        let (layers, heads) = (which("layers"), which("heads"));
        let lambda = table.get("lambda").map_or_else(|| Err("is missing".to_owned()), positive);
        let lambda = problems.keep(&format!("{here}.lambda"), lambda);
        if let (Some(()), Some(layers), Some(heads), Some(lambda)) = (fine, layers, heads, lambda) {
            out.push(Except { layers, heads, lambda });
        }
    }
    (out.len() == list.len()).then_some(out)
}

/// Notes every key that is not one of `names`.
fn known(table: &Map<String, Json>, names: &[&'static str], at: &str, problems: &mut Problems) -> Option<()> {
    let mut fine = Some(());
    for key in table.keys().filter(|key| !names.contains(&key.as_str())) {
        fine = None;
        let text = match did_you_mean(key, names.iter().copied()) {
            Some(near) => format!("unknown key; did you mean `{near}`?"),
            None => format!("unknown key; known here: {}", names.join(", ")),
        };
        problems.add(format!("{at}.{key}"), text);
    }
    fine
}

/// A number above zero; infinity comes as a word, since JSON has none.
fn positive(value: &Json) -> Result<f32, String> {
    #[expect(clippy::cast_possible_truncation, reason = "a ridge needs no more than single precision")]
    let number = match value {
        Json::String(word) if word == "inf" => Some(f32::INFINITY),
        other => other.as_f64().map(|x| x as f32),
    };
    number.filter(|x| *x > 0.0).ok_or_else(|| "must be a number above 0 (inf is softmax)".to_owned())
}

fn matrix(rows: &[Json]) -> Result<Lambda, String> {
    let row = |row: &Json| {
        let cells = row.as_array().ok_or("must be a number, or one list of numbers per layer")?;
        cells.iter().map(positive).collect::<Result<Vec<f32>, String>>()
    };
    let rows = rows.iter().map(row).collect::<Result<Vec<_>, String>>()?;
    match rows.first() {
        Some(first) if !first.is_empty() && rows.iter().all(|r| r.len() == first.len()) => Ok(Lambda::Matrix(rows)),
        _ => Err("must have as many numbers for each layer as the model has query heads".to_owned()),
    }
}

fn indices(value: Option<&Json>) -> Result<Vec<usize>, String> {
    let wrong = || "must be a list of whole numbers from 0".to_owned();
    let Some(value) = value else { return Ok(Vec::new()) };
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(wrong)?;
    let one = |x: &Json| x.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong);
    list.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(raw: &Json) -> Result<Attention, String> {
        let mut problems = Problems::default();
        let found = check(Some(raw), "a", &mut problems);
        let text: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        assert_eq!(found.is_some(), text.is_empty(), "{text:?}");
        found.ok_or_else(|| text.join("; "))
    }

    #[test]
    fn what_people_write_is_read() {
        assert_eq!(check(None, "a", &mut Problems::default()), Some(Attention::Softmax));
        assert_eq!(checked(&json!("softmax")), Ok(Attention::Softmax));
        let one = checked(&json!({"lla": {"lambda": 300}})).unwrap();
        assert_eq!((one.smallest(), one.to_string()), (300.0, "lla, lambda 300".to_owned()));
        let matrix = checked(&json!({"lla": {"lambda": [[1000.0, "inf"], [500, 600]], "solver": "cg"}})).unwrap();
        assert_eq!(matrix.to_string(), "lla, lambda 500 to inf by layer and head");
        let heads = json!({"lla": {"except": [{"layers": [2], "lambda": 400.0}], "radius": 2.0, "iterations": 8}});
        let Attention::Lla(heads) = checked(&heads).unwrap() else { panic!("lla") };
        assert_eq!((heads.radius, heads.iterations, &heads.lambda), (2.0, 8, &Lambda::One(f32::INFINITY)));
        assert_eq!(heads.except, [Except { layers: vec![2], heads: vec![], lambda: 400.0 }]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (raw, expected) in [
            (json!("soft"), "a: is `soft`"),
            (json!("lla"), "a: needs a ridge"),
            (json!(3), "a: is neither"),
            (json!({"lal": {}}), "a.lal: unknown key; did you mean `lla`?"),
            (json!({"lla": {}}), "a.lla.lambda: is missing"),
            (json!({"lla": {"lambda": 1, "solvr": "cg"}}), "a.lla.solvr: unknown key; did you mean `solver`?"),
            (json!({"lla": {"lambda": 0}}), "a.lla.lambda: must be a number above 0"),
            (json!({"lla": {"lambda": -5.0}}), "a.lla.lambda: must be a number above 0"),
            (json!({"lla": {"lambda": [[1.0], [1.0, 2.0]]}}), "a.lla.lambda: must have as many"),
            (json!({"lla": {"lambda": [1.0]}}), "a.lla.lambda: must be a number, or one list"),
            (json!({"lla": {"lambda": 1, "iterations": 0}}), "a.lla.iterations: must be a whole number"),
            (json!({"lla": {"lambda": 1, "tolerance": 1.5}}), "a.lla.tolerance: must be above 0 and below 1"),
            (json!({"lla": {"lambda": 1, "solver": "lu"}}), "a.lla.solver: must be"),
            (json!({"lla": {"except": [{"lambda": 1, "head": [1]}]}}), "a.lla.except[0].head: unknown key"),
            (json!({"lla": {"except": [{"layers": [-1], "lambda": 1}]}}), "a.lla.except[0].layers: must be a list"),
            (json!({"lla": {"except": 3}}), "a.lla.except: must be a list"),
        ] {
            let error = checked(&raw).unwrap_err();
            assert!(error.contains(expected), "{raw}: {error}");
        }
    }
}
