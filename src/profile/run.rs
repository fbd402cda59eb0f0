//! Asks every question of a suite once, greedily, and appends each result to a record file at once.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use futures_util::StreamExt as _;

use super::suite::Question;
use super::table::Record;
use crate::api::query::{Message, Sampling};
use crate::clock;
use crate::energy::estimate::Estimator;
use crate::engine::Engine;
use crate::engine::types::{Event, Job, Prompt};

/// Records of an earlier run that was cut; a torn last line is dropped.
///
/// # Errors
/// The file exists and cannot be read, or a line other than the last is not a record.
pub fn earlier(path: &Path) -> Result<Vec<Record>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(format!("{}: {e}", path.display())),
    };
    let lines: Vec<String> =
        BufReader::new(file).lines().collect::<Result<_, _>>().map_err(|e| format!("{}: {e}", path.display()))?;
    let mut records = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(record) => records.push(record),
            Err(_) if index + 1 == lines.len() => break,
            Err(e) => return Err(format!("{}:{}: {e}", path.display(), index + 1)),
        }
    }
    Ok(records)
}

/// Asks the questions that `done` lacks. `progress` is called after each with the record.
///
/// # Errors
/// The record file cannot be written; questions that the engine fails are counted in the result instead.
pub async fn all(
    engine: &Engine,
    questions: &[Question],
    done: &mut Vec<Record>,
    file: &Path,
    mut progress: impl FnMut(&Record),
) -> Result<u32, String> {
    let told = |e: std::io::Error| format!("{}: {e}", file.display());
    let asked: HashSet<String> = done.iter().map(|r| r.id.clone()).collect();
    let whole: String = done.iter().filter_map(|r| serde_json::to_string(r).ok()).map(|line| line + "\n").collect();
    std::fs::write(file, whole).map_err(told)?;
    let mut out = OpenOptions::new().append(true).open(file).map_err(told)?;
    let mut failed = 0;
    for question in questions.iter().filter(|q| !asked.contains(&q.id)) {
        let Some(record) = one(engine, question).await else {
            failed += 1;
            continue;
        };
        let line = serde_json::to_string(&record).map_err(|e| e.to_string())?;
        writeln!(out, "{line}").map_err(told)?;
        progress(&record);
        done.push(record);
    }
    Ok(failed)
}

/// One question; none if the engine gave no answer.
async fn one(engine: &Engine, question: &Question) -> Option<Record> {
    let sampling = Sampling {
        temperature: 0.0,
        top_p: 1.0,
        max_tokens: Some(question.max_tokens()),
        stop: Vec::new(),
        seed: Some(0),
        logprobs: None,
    };
    let prompt = Prompt::Chat(vec![Message { role: "user".to_owned(), content: question.text() }]);
    let started = clock::now();
    let meter = Estimator::start();
    let mut answer = String::new();
    let mut generation = engine.submit(Job { prompt, sampling, owner: None }).ok()?;
    while let Some(event) = generation.next().await {
        match event.ok()? {
            Event::Token(token) => answer.push_str(&token.text),
            Event::Done(done) => {
                answer.push_str(&done.tail);
                let joules = meter.stop().map(|j| j.mid).unwrap_or_default();
                let busy = done.prefill_s + done.decode_s;
                let share = |part: f64| joules.filter(|_| busy > 0.0).map(|j| j * part / busy);
                return Some(Record {
                    id: question.id.clone(),
                    domain: question.domain,
                    correct: question.grade(&answer),
                    input_tokens: done.input_tokens,
                    output_tokens: done.output_tokens,
                    prefill_s: done.prefill_s,
                    decode_s: done.decode_s,
                    seconds: clock::now().duration_since(started).as_secs_f64(),
                    prefill_j: share(done.prefill_s),
                    decode_j: share(done.decode_s),
                });
            }
        }
    }
    None
}
