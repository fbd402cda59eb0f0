//! The first pass over a log: what each side gets right, by domain and fold, and what the labels are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::case::Case;
use super::foreseen::{Sample, TRAINED};
use super::form::Form;
use super::outcome::BadLine;
use super::outcomes::Read;
use super::predictions::Counts;
use super::run::{Predictor, Request};
use super::source::{Chunk, Lines};
use crate::classify::domain::Domain;

/// Lines of a batch.
pub const LINES: usize = 4096;
/// Labelled queries learned from, at most: a domain's coverage is known to a percent long before.
pub const LEARNED: usize = 200_000;
/// Domains told apart; more are counted as one.
const DOMAINS: usize = 1024;
/// Name of what is beyond.
pub const OTHER: &str = "(other)";

/// A batch that was read.
#[derive(Default)]
pub struct Parsed {
    /// Each line with a query, read or not.
    pub rows: Vec<Result<Read, BadLine>>,
    /// Lines that hold no query.
    pub passed: u64,
}

/// Reads a batch; empty lines do not count.
pub fn parse(form: &Form, chunk: &Chunk) -> Parsed {
    let mut parsed = Parsed { rows: Vec::with_capacity(chunk.len()), passed: 0 };
    for (n, line) in chunk.lines().filter(|(_, line)| !line.trim_ascii().is_empty()) {
        match form.read(n, line) {
            Ok(None) => parsed.passed += 1,
            Ok(Some(read)) => parsed.rows.push(Ok(read)),
            Err(why) => parsed.rows.push(Err(BadLine { line: n, why })),
        }
    }
    parsed
}

/// The next batches of a log, at most `left` lines.
///
/// # Errors
/// The file's.
pub fn rounds(lines: &mut Lines, chunks: usize, left: &mut u64) -> Result<Vec<Chunk>, String> {
    let mut out = Vec::new();
    while out.len() < chunks && *left > 0 {
        let wanted = LINES.min(usize::try_from(*left).unwrap_or(LINES));
        match lines.chunk(wanted)? {
            Some(chunk) => {
                *left -= chunk.len() as u64;
                out.push(chunk);
            }
            None => break,
        }
    }
    Ok(out)
}

/// Names of the log's domains, in the order of their first query.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The names.
    pub all: Vec<String>,
    index: HashMap<String, usize>,
}

impl Names {
    /// The taxonomy's, in its order.
    pub fn of_the_taxonomy() -> Self {
        let mut names = Self::default();
        for domain in Domain::all() {
            names.index(domain.name());
        }
        names
    }

    /// The index of a name.
    pub fn index(&mut self, name: &str) -> usize {
        if let Some(index) = self.index.get(name) {
            return *index;
        }
        let name = if self.all.len() < DOMAINS { name } else { OTHER };
        let next = self.all.len();
        let index = *self.index.entry(name.to_owned()).or_insert(next);
        if index == next {
            self.all.push(name.to_owned());
        }
        index
    }
}

/// What the first pass tells.
#[derive(Default)]
pub struct Learned {
    /// Labels by domain and fold.
    pub counts: Counts,
    /// A full grade; 1 where labels are right and wrong.
    pub scale: f64,
    /// Labels are grades.
    pub graded: bool,
    /// The models file states the full grade.
    pub stated_scale: bool,
    /// Lengths of answers are characters.
    pub by_chars: bool,
    /// Queries to learn a predictor from, where one is asked for.
    pub sample: Option<Sample>,
    /// What was learned from them, in words.
    pub foreseen: Option<String>,
}

/// Reads the log's beginning.
///
/// # Errors
/// File and line: nothing in it can be used, or its labels are of two kinds; `stop` was set.
pub fn learn(
    request: &Request,
    form: &Form,
    stated: Option<f64>,
    names: &mut Names,
    stop: &AtomicBool,
) -> Result<Learned, String> {
    let mut lines = Lines::open(&request.file)?;
    let (mut cases, mut top, mut graded, mut by_chars): (Vec<Case>, f64, usize, bool) = (Vec::new(), 0.0, 0, false);
    let mut first_bad: Option<BadLine> = None;
    let mut sample = (request.predictor == Predictor::Query).then(|| Sample::new(TRAINED, request.seed));
    let mut left = request.limit.unwrap_or(u64::MAX);
    let round = 2 * rayon::current_num_threads();
    'log: loop {
        if stop.load(Ordering::Relaxed) {
            return Err(too_soon(request));
        }
        let chunks = rounds(&mut lines, round, &mut left)?;
        if chunks.is_empty() {
            break;
        }
        let parsed: Vec<Parsed> = chunks.par_iter().map(|chunk| parse(form, chunk)).collect();
        for read in parsed.into_iter().flat_map(|p| p.rows) {
            let mut read = match read {
                Ok(read) => read,
                Err(bad) => {
                    first_bad = first_bad.or(Some(bad));
                    continue;
                }
            };
            if cases.len() >= LEARNED {
                break 'log;
            }
            read.case.domain_index = names.index(&read.case.domain);
            top = top.max(read.top);
            graded += usize::from(read.graded);
            by_chars |= read.by_chars;
            if let Some(sample) = &mut sample {
                sample.offer(&read.case, read.ease);
            }
            cases.push(Case { id: Box::default(), domain: Box::default(), text: None, ..read.case });
        }
    }
    usable(request, cases.len(), graded, first_bad)?;
    let scale = if graded > 0 { stated.unwrap_or(top).max(f64::MIN_POSITIVE) } else { 1.0 };
    let mut counts = Counts::default();
    for case in &cases {
        if let (Some(w), Some(s)) = (case.weak.ok, case.strong.ok) {
            counts.add(case, (w / scale).clamp(0.0, 1.0), (s / scale).clamp(0.0, 1.0));
        }
    }
    Ok(Learned { counts, scale, graded: graded > 0, stated_scale: stated.is_some(), by_chars, sample, foreseen: None })
}

/// A stop before there is a result.
pub fn too_soon(request: &Request) -> String {
    format!("{}: stopped before the first query was replayed", request.file.display())
}

fn usable(request: &Request, read: usize, graded: usize, first_bad: Option<BadLine>) -> Result<(), String> {
    let file = request.file.display();
    match first_bad {
        Some(bad) if read == 0 => {
            Err(format!("{file}:{}: {}; no line of it is a row of an outcome table", bad.line, bad.why))
        }
        None if read == 0 => Err(format!("{file}: holds no queries")),
        _ if graded > 0 && graded < read => Err(format!(
            "{file}: {} rows have `ok` and {graded} have `score`: one table, one kind of label",
            read - graded
        )),
        _ => Ok(()),
    }
}
