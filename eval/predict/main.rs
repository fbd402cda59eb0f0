//! How well queries are ordered before anybody answers them: five-fold by stem, against the known baselines.
//!
//! `predict-quality [--data DIR] [--pairs FILE] [--out FILE] [--only TABLE] [--splits N]`: for every pair of models the worth of
//! random scores, the mean gain of the domain and of the subject, TF-IDF with logistic regression, the predictor, and the oracle;
//! means over N splits into five folds (one of a large table). Nothing is fitted on a query that it is judged on, nor on one with
//! the same stem.

#![allow(clippy::print_stdout, reason = "a measuring program prints its results")]
#![allow(clippy::indexing_slicing, reason = "folds hold indices of the rows they were made from")]

mod data;
mod figures;
mod show;
mod words;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use data::{Pair, Row, Table};
use figures::{Chances, Figures};
use serde::Serialize;
use wattroute::predict::fit::cells::Cells;
use wattroute::predict::fit::{self, Example, Place, Seen};
use wattroute::predict::quality::{self, Both};
use words::Words;

/// Folds.
const FOLDS: u32 = 5;
/// Draws of random scores.
const RANDOM: u64 = 20;
/// A table of this many queries is split once: its figures move less between splits than those of a small one.
const LARGE: usize = 5000;
/// Baselines; the best of them is the bar.
const BARS: [&str; 3] = ["domain", "words, question", "words"];

/// All of one pair.
#[derive(Serialize)]
struct Judged {
    table: String,
    weak: String,
    strong: String,
    queries: usize,
    weak_accuracy: f64,
    strong_accuracy: f64,
    aiq_zero_router: Option<f64>,
    policies: BTreeMap<&'static str, Figures>,
    /// APGR of the predictor less that of the better baseline of domain and words, with its 95 % interval.
    ahead: Option<f64>,
    ahead_interval: Option<[f64; 2]>,
    better_baseline: &'static str,
    chances_weak: Chances,
    chances_strong: Chances,
    /// By domain: queries, regret of the predictor and of the domain's gain, half of all queries going to the strong model.
    regret_by_domain: BTreeMap<String, (usize, Option<f64>, Option<f64>)>,
    seconds: f64,
}

struct Args {
    data: PathBuf,
    pairs: PathBuf,
    out: Option<PathBuf>,
    only: Option<String>,
    splits: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = args()?;
    let pairs: Vec<Pair> = csv::Reader::from_path(&args.pairs)?.deserialize().collect::<Result<_, _>>()?;
    let mut tables: BTreeMap<String, Option<Table>> = BTreeMap::new();
    let mut all = Vec::new();
    for pair in pairs.iter().filter(|p| args.only.as_ref().is_none_or(|o| p.table.contains(o.as_str()))) {
        if !tables.contains_key(&pair.table) {
            tables.insert(pair.table.clone(), Table::read(&args.data, &pair.table)?);
        }
        let Some(Some(table)) = tables.get(&pair.table) else {
            println!("{}: no such table", pair.table);
            continue;
        };
        let (rows, both) = table.pair(pair).ok_or_else(|| format!("{}: no such models", pair.table))?;
        let judged = judge(pair, &rows, &both, args.splits).ok_or("too few queries, or equal models")?;
        println!("{}", show::line(&judged));
        all.push(judged);
    }
    println!("\n{}", show::tables(&all));
    if let Some(out) = args.out {
        fs::write(out, serde_json::to_string_pretty(&all)? + "\n")?;
    }
    Ok(())
}

fn args() -> Result<Args, Box<dyn Error>> {
    let mut args = Args {
        data: "eval/data/routing".into(),
        pairs: "eval/predict/pairs.csv".into(),
        out: None,
        only: None,
        splits: 5,
    };
    let mut given = std::env::args().skip(1);
    while let Some(key) = given.next() {
        let value = given.next().ok_or_else(|| format!("{key} needs a value"))?;
        match key.as_str() {
            "--data" => args.data = value.into(),
            "--pairs" => args.pairs = value.into(),
            "--out" => args.out = Some(value.into()),
            "--splits" => args.splits = value.parse()?,
            "--only" => args.only = Some(value),
            _ => return Err(format!("{key}: known are --data, --pairs, --out, --only, --splits").into()),
        }
    }
    Ok(args)
}

/// Out-of-fold scores and chances under one split.
struct Split {
    scores: BTreeMap<&'static str, Vec<f64>>,
    /// P(correct) of both sides by the predictor.
    chances: [Vec<f64>; 2],
}

fn split(rows: &[&Row], both: &[Both], seed: u64) -> Split {
    let foreseen = |subject: bool| -> [Vec<f64>; 2] {
        let one = |(row, b): (&&Row, &Both)| Example {
            text: row.text.clone(),
            place: Place::labelled(&row.domain, subject.then_some(row.subject.as_str())),
            weak: Some(b.weak),
            strong: Some(b.strong),
            ease: row.ease(),
        };
        let examples: Vec<Example> = rows.iter().zip(both).map(one).collect();
        let found = fit::cross_fit(&examples, FOLDS, seed);
        let side = |at: usize| found.iter().map(|p| f64::from(p[at])).collect();
        [side(0), side(1)]
    };
    let gain = |[weak, strong]: &[Vec<f64>; 2]| strong.iter().zip(weak).map(|(s, w)| s - w).collect();
    let chances = foreseen(false);
    let mut scores = baselines(rows, both, seed);
    scores.insert("predictor", gain(&chances));
    scores.insert("predictor, subjects", gain(&foreseen(true)));
    Split { scores, chances }
}

fn judge(pair: &Pair, rows: &[&Row], both: &[Both], splits: u64) -> Option<Judged> {
    let begun = wattroute::clock::now();
    let splits = if both.len() < LARGE { splits } else { 1 };
    let all: Vec<Split> = (1..=splits).map(|seed| split(rows, both, seed)).collect();
    let first = all.first()?;
    let over =
        |name: &str| -> Vec<Figures> { all.iter().filter_map(|s| figures::of(s.scores.get(name)?, both)).collect() };
    let mut policies: BTreeMap<&'static str, Figures> =
        first.scores.keys().map(|name| (*name, figures::mean(&over(name)))).collect();
    let random = |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        figures::of(&both.iter().map(|_| rng.f64()).collect::<Vec<_>>(), both)
    };
    policies.insert("random", figures::mean(&(0..RANDOM).filter_map(random).collect::<Vec<_>>()));
    policies.insert("oracle", figures::oracle(both)?);
    let apgr = |name: &str| policies.get(name).and_then(|f| f.apgr);
    let better = BARS.into_iter().max_by(|a, b| apgr(a).unwrap_or(0.0).total_cmp(&apgr(b).unwrap_or(0.0)))?;
    let (weak_accuracy, strong_accuracy) = figures::ends(both);
    let [weak, strong] = &first.chances;
    Some(Judged {
        table: pair.table.clone(),
        weak: pair.weak.clone(),
        strong: pair.strong.clone(),
        queries: both.len(),
        weak_accuracy,
        strong_accuracy,
        aiq_zero_router: figures::zero_router(both),
        ahead: apgr("predictor").zip(apgr(better)).map(|(ours, bar)| ours - bar),
        ahead_interval: figures::difference(&first.scores["predictor"], &first.scores[better], both),
        better_baseline: better,
        chances_weak: figures::chances(weak, both.iter().map(|b| b.weak)),
        chances_strong: figures::chances(strong, both.iter().map(|b| b.strong)),
        regret_by_domain: by_domain(rows, both, &first.scores["predictor"], &first.scores["domain"]),
        policies,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// A cell's gain beyond the mean of all training rows, so that folds compare; with one domain it is nothing, a coin.
fn over(gain: f64, cells: &Cells) -> f64 {
    ((gain - cells.overall) * 1e9).round()
}

/// Out-of-fold scores of the baselines.
fn baselines(rows: &[&Row], both: &[Both], seed: u64) -> BTreeMap<&'static str, Vec<f64>> {
    let mut scores: BTreeMap<&'static str, Vec<f64>> =
        ["domain", "subject", "words", "words, question"].into_iter().map(|n| (n, vec![0.0; rows.len()])).collect();
    let place = |row: &Row| Place::labelled(&row.domain, Some(&row.subject));
    let folds: Vec<u32> = rows.iter().map(|row| Seen::of(&row.text).fold(FOLDS, seed)).collect();
    for fold in 0..FOLDS {
        let inside = |i: &usize| folds[*i] == fold;
        let (test, train): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(inside);
        let places: Vec<(Place, f64)> =
            train.iter().map(|i| (place(rows[*i]), both[*i].strong - both[*i].weak)).collect();
        let cells = Cells::fit(places.iter().map(|(p, v)| (p, *v)));
        let needed = |i: usize| both[i].strong > both[i].weak;
        let asked: Vec<(&str, bool)> = train.iter().map(|i| (rows[*i].question.as_str(), needed(*i))).collect();
        let whole: Vec<(&str, bool)> = train.iter().map(|i| (rows[*i].text.as_str(), needed(*i))).collect();
        let (asked, whole) = (Words::fit(&asked), Words::fit(&whole));
        for i in test {
            let of = [
                ("domain", over(cells.of_domain(&place(rows[i])), &cells)),
                ("subject", over(cells.at(&place(rows[i])), &cells)),
                ("words, question", asked.score(&rows[i].question)),
                ("words", whole.score(&rows[i].text)),
            ];
            for (name, score) in of {
                if let Some(all) = scores.get_mut(name) {
                    all[i] = score;
                }
            }
        }
    }
    scores
}

fn by_domain(
    rows: &[&Row],
    both: &[Both],
    ours: &[f64],
    domain: &[f64],
) -> BTreeMap<String, (usize, Option<f64>, Option<f64>)> {
    let (ours, domain) = (figures::half(ours), figures::half(domain));
    let mut members: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, row) in rows.iter().enumerate() {
        members.entry(row.domain.clone()).or_default().push(i);
    }
    let regret = |of: &[bool], at: &[usize]| {
        let (taken, both): (Vec<bool>, Vec<Both>) = at.iter().map(|i| (of[*i], both[*i])).unzip();
        quality::regret(&taken, &both)
    };
    members.into_iter().map(|(name, at)| (name, (at.len(), regret(&ours, &at), regret(&domain, &at)))).collect()
}
