//! Asks every question of a suite once, greedily, and appends each result to a record file at once.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use futures_util::StreamExt as _;

use super::record::{self, Counted, Joules, Record};
use super::suite::Question;
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
    if path.exists() { Ok(record::read(path)?.answers) } else { Ok(Vec::new()) }
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
                let (prefill, decode) = (share(done.prefill_s), share(done.decode_s));
                return Some(Record {
                    id: question.id.clone(),
                    domain: question.domain,
                    streams: 1,
                    correct: question.grade(&answer),
                    answer,
                    tokens_in: Some(done.input_tokens),
                    tokens_out: Some(done.output_tokens),
                    tokens_from: Some(Counted::Engine),
                    seconds: clock::now().duration_since(started).as_secs_f64(),
                    ttft_s: Some(done.prefill_s),
                    joules: Joules { gross: joules, prefill, decode, ..Joules::default() },
                    ..Record::default()
                });
            }
        }
    }
    None
}
