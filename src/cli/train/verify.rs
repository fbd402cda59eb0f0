//! `wattroute train verify`: profile records to the weights of a cascade's check, with what they are worth. Feature `train`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::recorded::Recorded;
use crate::profile::record::{self, Record};
use crate::train::front::{self, Pair, auc, ece, interval};
use crate::train::verify::{Held, Row, cross_validate, learn};
use crate::verify::evidence::FEATURES;
use crate::verify::{Evidence, Expected, Model, detect};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  wattroute profile --backend local/small --suite gsm8k --limit 300 --out small.json
  wattroute train verify --records small.records.jsonl
  wattroute train verify --records small.records.jsonl --strong large.records.jsonl
  wattroute train verify --records small.records.jsonl --strong-outcomes eval/data/routing/zeroeval_gsm.jsonl.gz=gpt-4o-2024-08-06")]
pub struct VerifyArgs {
    /// Record files of `wattroute profile` to learn from
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    records: Vec<PathBuf>,
    /// Records of a stronger model on the same questions: quality against joules of a cascade from the first file to it
    #[arg(long, value_name = "FILE")]
    strong: Option<PathBuf>,
    /// The same with a stronger model that an outcome table has on the same questions; its joules are the cloud's assumptions
    #[arg(long, value_name = "TABLE=MODEL", num_args = 1.., conflicts_with = "strong")]
    strong_outcomes: Vec<String>,
    /// Write the learned weights here, as a policy's [verify.model] takes them
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Folds of the cross-validation
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=50))]
    folds: u32,
    /// Seed of folds and intervals
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Reads, judges by cross-validation, learns from all, prints and writes.
pub fn run(args: &VerifyArgs) -> Result<(), String> {
    let (mut rows, mut suites, mut bounds) = (Vec::new(), BTreeMap::new(), Vec::new());
    for path in &args.records {
        let from = rows.len();
        rows.extend(read(path, &mut suites)?);
        bounds.push((path, from..rows.len()));
    }
    let held = cross_validate(&rows, args.folds as usize, args.seed)?;
    for (path, range) in bounds {
        let rows = rows.get(range.clone()).unwrap_or_default();
        let held = held.get(range).unwrap_or_default();
        print!("{}", worth(&path.display().to_string(), rows, held, &suites, args.seed));
    }
    let first = rows.first().map(|r| r.model.clone()).unwrap_or_default();
    if let Some(strong) = &args.strong {
        let strong = read(strong, &mut suites)?;
        let by_key: BTreeMap<&str, &Row> = strong.iter().map(|r| (r.key.as_str(), r)).collect();
        let pairs = pairs(&rows, &held, &first, |key| by_key.get(key).map(|r| (r.correct, r.joules)));
        print!("{}", fronts(&first, &pairs, args.seed));
    }
    if !args.strong_outcomes.is_empty() {
        let recorded = Recorded::read(&args.strong_outcomes)?;
        recorded.told.iter().for_each(|line| println!("\n{line}"));
        for (i, name) in ["low", "mid", "high"].into_iter().enumerate() {
            let strong = |key: &str| {
                let (right, joules) = recorded.get(question(key))?;
                Some((right, joules.get(i).copied()?))
            };
            let pairs = pairs(&rows, &held, &first, strong);
            println!("\ncloud's joules: {name}");
            print!("{}", fronts(&first, &pairs, args.seed));
        }
    }
    let weights = weights(&learn(&rows)?, &rows, args);
    print!("\n{weights}");
    if let Some(out) = &args.out {
        std::fs::write(out, &weights).map_err(|e| format!("{}: {e}", out.display()))?;
        println!("wrote {}", out.display());
    }
    Ok(())
}

/// Graded answers with log-probabilities; suites by their hashes.
fn read(path: &Path, suites: &mut BTreeMap<String, String>) -> Result<Vec<Row>, String> {
    let file = record::read(path)?;
    let model = file.runs.first().map(|r| r.model.clone()).unwrap_or_default();
    suites.extend(file.runs.iter().flat_map(|r| &r.suites).map(|s| (s.hash.clone(), s.name.clone())));
    let rows: Vec<Row> = file.answers.iter().filter_map(|r| row(r, &model)).collect();
    if rows.is_empty() {
        return Err(format!("{}: no graded answer with log-probabilities", path.display()));
    }
    Ok(rows)
}

fn row(r: &Record, model: &str) -> Option<Row> {
    let p = r.logprobs.as_ref()?;
    let seen = Evidence {
        expected: Expected { prior: 0.5, tokens: 1.0, prompt: f64::from(r.tokens_in?) },
        tokens: r.tokens_out?,
        whole: true,
        mean_logprob: Some(p.mean),
        min_logprob: Some(p.min),
        cut: r.finish.as_deref() == Some("length"),
        empty: detect::is_empty(&r.answer),
        refuses: detect::refuses(&r.answer),
        loops: detect::loops(&r.answer),
        stated: detect::stated(&r.answer),
    };
    Some(Row {
        key: format!("{} {} {}", r.suite, r.id, r.repeat),
        model: model.to_owned(),
        group: format!("{} {}", r.suite, r.domain.name()),
        correct: r.correct?,
        seen,
        joules: r.joules.gross.unwrap_or(f64::NAN),
    })
}

/// One figure of every row.
type Score = fn(&Row, &Held) -> f64;

const SCORES: [(&str, Score); 8] = [
    ("prompt length alone (before)", |r, _| -r.seen.expected.prompt),
    ("prior and prompt length (before)", |_, h| h.before),
    ("mean ln P", |r, _| r.seen.mean_logprob.unwrap_or(f64::NAN)),
    ("least ln P", |r, _| r.seen.min_logprob.unwrap_or(f64::NAN)),
    ("answer length", |r, _| -f64::from(r.seen.tokens)),
    ("answer length against expected", |_, h| -(f64::from(h.evidence.tokens) / h.evidence.expected.tokens - 1.0).abs()),
    ("shipped weights", |_, h| h.shipped),
    ("weights learned on other folds", |_, h| h.learned),
];

/// AUC of every signal, over all and by suite.
fn worth(name: &str, rows: &[Row], held: &[Held], suites: &BTreeMap<String, String>, seed: u64) -> String {
    let mut t = String::new();
    let mut sets: Vec<(String, Vec<usize>)> = vec![("all".to_owned(), (0..rows.len()).collect())];
    for (hash, suite) in suites {
        let own: Vec<usize> =
            rows.iter().enumerate().filter(|(_, r)| r.key.starts_with(hash)).map(|(i, _)| i).collect();
        sets.push((suite.clone(), own));
    }
    for (set, own) in sets.into_iter().filter(|(_, own)| !own.is_empty()) {
        let pick: Vec<(&Row, &Held)> = own.iter().filter_map(|i| rows.get(*i).zip(held.get(*i))).collect();
        let truth: Vec<bool> = pick.iter().map(|(r, _)| r.correct).collect();
        let right = truth.iter().filter(|t| **t).count();
        let _ = writeln!(t, "\n{name}, {set}: {} answers, {right} right", pick.len());
        let _ = writeln!(t, "  {:<34} {:>6} {:>17}", "AUC of \"the answer is right\"", "", "95 %");
        for (what, score) in SCORES {
            let scores: Vec<f64> = pick.iter().map(|(r, h)| score(r, h)).collect();
            let [low, high] = interval(scores.len(), seed, |at| auc(&at_all(&scores, at), &at_all(&truth, at)));
            let _ = writeln!(t, "  {what:<34} {:>6.3} ({low:.3} to {high:.3})", auc(&scores, &truth));
        }
        let error = |p: fn(&Held) -> f64| ece(&pick.iter().map(|(_, h)| p(h)).collect::<Vec<_>>(), &truth);
        let (learned, shipped, before) = (error(|h| h.learned), error(|h| h.shipped), error(|h| h.before));
        let _ = writeln!(t, "  calibration error: learned {learned:.3}, shipped {shipped:.3}, before {before:.3}");
    }
    t
}

fn at_all<T: Copy>(all: &[T], at: &[usize]) -> Vec<T> {
    at.iter().filter_map(|i| all.get(*i).copied()).collect()
}

/// A row's question without its suite and repeat, as [`row`] puts them together.
fn question(key: &str) -> &str {
    let bare = key.split_once(' ').map_or(key, |(_, rest)| rest);
    bare.rsplit_once(' ').map_or(bare, |(id, _)| id)
}

/// Questions that both models answered; `strong` has whether it was right, and its joules.
fn pairs(rows: &[Row], held: &[Held], weak: &str, strong: impl Fn(&str) -> Option<(bool, f64)>) -> Vec<Pair> {
    let first = rows.iter().zip(held).filter(|(r, _)| r.model == weak);
    let both = first.filter_map(|(r, h)| Some((r, h, strong(&r.key)?)));
    let pair = |(r, h, (right, joules)): (&Row, &Held, (bool, f64))| Pair {
        weak: r.correct,
        strong: right,
        weak_j: r.joules,
        strong_j: joules,
        after: h.learned,
        before: h.before,
    };
    both.map(pair).filter(|p| p.weak_j.is_finite() && p.strong_j.is_finite()).collect()
}

/// Quality against joules of always-weak, a router before the answer, a cascade after it, always-strong.
fn fronts(weak: &str, pairs: &[Pair], seed: u64) -> String {
    let mut t = String::new();
    let _ = writeln!(t, "\ncascade from {weak}, {} questions that both answered", pairs.len());
    let _ = writeln!(
        t,
        "{:>9} {:>9} {:>9} {:>9} {:>9}   cascade minus the best router at its joules (95 %)",
        "escalated", "right", "J", "router", "J"
    );
    let (mut wins, mut losses) = (0, 0);
    for step in 0..=10 {
        let share = f64::from(step) / 10.0;
        let (c, r) = (front::cascade(pairs, share), front::router(pairs, share));
        let lead = |pairs: &[Pair]| {
            let c = front::cascade(pairs, share);
            let lead = c.quality - front::router_at(pairs, c.joules);
            // The same answers interpolated are the same but for rounding.
            if lead.abs() < 1e-9 { 0.0 } else { lead }
        };
        let [low, high] = interval(pairs.len(), seed, |at| lead(&at_all(pairs, at)));
        wins += u32::from(low > 0.0);
        losses += u32::from(high < 0.0);
        let _ = writeln!(
            t,
            "{:>7.0} % {:>7.1} % {:>9.2} {:>7.1} % {:>9.2}   {:+.1} points ({:+.1} to {:+.1})",
            c.share * 1e2,
            c.quality * 1e2,
            c.joules,
            r.quality * 1e2,
            r.joules,
            lead(pairs) * 1e2,
            low * 1e2,
            high * 1e2
        );
    }
    let verdict = if wins > 0 { "is above it" } else { "is nowhere above it" };
    let _ = writeln!(
        t,
        "the cascade {verdict} beyond the interval ({wins} of 11 shares above, {losses} below); row 0 % is always weak; always \
         strong is the router's last row"
    );
    t
}

/// The weights as TOML, with where they come from.
fn weights(model: &Model, rows: &[Row], args: &VerifyArgs) -> String {
    let mut models: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for r in rows {
        let (n, right) = models.entry(&r.model).or_default();
        (*n, *right) = (*n + 1, *right + usize::from(r.correct));
    }
    let of: Vec<String> = models.iter().map(|(m, (n, right))| format!("{m}: {n} answers, {right} right")).collect();
    let mut t = format!("# Learned by `wattroute train verify`, seed {}, from {}.\n", args.seed, of.join("; "));
    for (name, weight) in FEATURES.iter().zip(model.weights) {
        let _ = writeln!(t, "{name:<15} = {weight:.4}");
    }
    t
}
