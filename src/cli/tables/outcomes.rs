//! `wattroute tables outcomes`: profile records of several models to one outcome table, for `replay`, `tune` and `train success`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::profile::pick;
use crate::profile::record::{self, Record};
use crate::profile::suite::Question;
use crate::replay::outcomes::Models;

/// Answers to one question, one place per model.
type Answers = Vec<Option<Record>>;

/// Writes NAME.jsonl with NAME.models.json beside it; says how many questions.
///
/// # Errors
/// A file that holds no run, two files of one model, no question that all models answered, or a file that cannot be written.
pub fn write(records: &[PathBuf], out: &Path) -> Result<String, String> {
    if out.extension().is_none_or(|e| e != "jsonl") {
        return Err(format!("{}: must end in .jsonl", out.display()));
    }
    let (mut models, mut rows, mut suites) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for (place, path) in records.iter().enumerate() {
        let file = record::read(path)?;
        let model = file.runs.first().map(|run| run.model.clone()).filter(|m| !m.is_empty());
        let model = model.ok_or_else(|| format!("{}: no run names its model", path.display()))?;
        if models.contains(&model) {
            return Err(format!("{}: {model} is in another file already", path.display()));
        }
        models.push(model);
        suites.extend(file.runs.iter().flat_map(|run| &run.suites).map(|s| (s.hash.clone(), s.name.clone())));
        for answer in file.answers.into_iter().filter(|a| a.repeat == 0) {
            let key = (answer.suite.clone(), answer.id.clone());
            let row: &mut Answers = rows.entry(key).or_insert_with(|| vec![None; records.len()]);
            if let Some(cell) = row.get_mut(place) {
                *cell = Some(answer);
            }
        }
    }
    let questions = questions(&suites);
    let both = rows.values().filter(|row| row.iter().all(Option::is_some)).count();
    if both == 0 {
        return Err(format!("no question was answered by all of {}", models.join(", ")));
    }
    let lines: Vec<String> =
        rows.iter().map(|(key, row)| line(key, row, &suites, questions.get(key)).to_string() + "\n").collect();
    whole(out, &lines.concat())?;
    let beside = Models::path(out);
    let about: Vec<Value> = models.iter().map(|id| json!({ "id": id })).collect();
    let suites: Vec<&String> = suites.values().collect();
    let facts = json!({ "dataset": format!("own records of {}", suites.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ")), "models": about });
    whole(&beside, &format!("{facts:#}\n"))?;
    Ok(format!(
        "{} questions, {both} answered by all of {}; wrote {} and {}\n",
        rows.len(),
        models.join(", "),
        out.display(),
        beside.display()
    ))
}

/// Texts of the shipped suites that the records are of.
fn questions(suites: &BTreeMap<String, String>) -> BTreeMap<(String, String), Question> {
    let opened = suites.iter().filter_map(|(hash, name)| pick::open(name).ok().filter(|suite| *suite.hash == **hash));
    let each = opened.flat_map(|suite| {
        let hash = suite.hash.to_string();
        suite.questions.into_iter().map(move |q| ((hash.clone(), q.id.clone()), q))
    });
    each.collect()
}

fn line(
    (suite, id): &(String, String),
    row: &Answers,
    suites: &BTreeMap<String, String>,
    question: Option<&Question>,
) -> Value {
    let each = |of: &dyn Fn(&Record) -> Option<f64>| -> Vec<Option<f64>> {
        row.iter().map(|answer| answer.as_ref().and_then(of)).collect()
    };
    let quality = |a: &Record| a.correct.map(|c| f64::from(u8::from(c))).or(a.judged);
    let domain = row.iter().flatten().next().map(|a| a.domain.name());
    let mut line = json!({
        "id": format!("{}/{id}", suites.get(suite).unwrap_or(suite)),
        "domain": domain,
        "ok": each(&quality),
        "in_tokens": each(&|a| a.tokens_in.map(f64::from)),
        "out_tokens": each(&|a| a.tokens_out.map(f64::from)),
        "latency_ms": each(&|a| Some(1e3 * a.seconds)),
        "mean_logprob": each(&|a| a.logprobs.as_ref().map(|l| l.mean)),
        "min_logprob": each(&|a| a.logprobs.as_ref().map(|l| l.min)),
        "cut": each(&|a| Some(f64::from(u8::from(a.finish.as_deref() == Some("length"))))),
    });
    if let (Some(question), Some(map)) = (question, line.as_object_mut()) {
        map.insert("prompt".to_owned(), json!(question.prompt));
        if !question.options.is_empty() {
            map.insert("options".to_owned(), json!(question.options));
        }
    }
    line
}

/// Writes a file whole or not at all.
fn whole(path: &Path, text: &str) -> Result<(), String> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".part");
    let written = std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, path));
    written.map_err(|e| format!("{}: {e}", path.display()))
}
