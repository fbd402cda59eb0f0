//! What a trained classifier is worth on texts that it did not see: accuracy, calibration, abstention, robustness.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::topics::Sample;
use crate::classify::measure::{COVERED, Change, curve, ece, spoilt, wilson};
use crate::classify::topics::{Sorted, Topics};

/// Ways a text may be typed or put otherwise.
const CHANGES: [(Change, &str); 4] = [
    (Change::Upper, "capitals"),
    (Change::Lower, "no capitals"),
    (Change::Typos, "misspelt"),
    (Change::Reworded, "reworded"),
];

/// Figures over one selection.
pub struct Report {
    /// Texts.
    pub n: usize,
    /// Most likely label is the label.
    pub correct: usize,
    /// Mean F1 over labels that occur.
    pub macro_f1: f64,
    /// Expected calibration error, 15 bins.
    pub ece: f64,
    /// Texts whose top probability reaches the threshold.
    pub sure: usize,
    /// Right among these.
    pub sure_correct: usize,
    /// `confusion[label][answer]`.
    pub confusion: Vec<Vec<u32>>,
    /// Accuracy at the shares of [`COVERED`].
    pub curve: Vec<f64>,
}

impl Report {
    /// Share correct.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.n.max(1) as f64
    }

    /// As JSON.
    pub fn facts(&self) -> Value {
        let (low, high) = wilson(self.correct, self.n);
        json!({
            "n": self.n, "correct": self.correct, "accuracy": self.accuracy(), "low": low, "high": high,
            "macro_f1": self.macro_f1, "ece": self.ece, "sure": self.sure, "sure_correct": self.sure_correct,
            "accuracy_at_coverage": COVERED.iter().zip(&self.curve).map(|(c, a)| json!([c, a])).collect::<Vec<_>>(),
        })
    }
}

/// Runs a sorter over labelled texts.
pub fn measure(labels: usize, samples: &[Sample], sort: &dyn Fn(&str) -> Sorted) -> Report {
    let mut confusion = vec![vec![0u32; labels]; labels];
    let (mut sure, mut sure_correct) = (0, 0);
    let mut stated: Vec<(f32, bool)> = Vec::with_capacity(samples.len());
    for sample in samples {
        let sorted = sort(&sample.text);
        let p = sorted.top.and_then(|top| sorted.p.get(top)).copied().unwrap_or(0.0);
        let right = sorted.top == Some(sample.label);
        if let Some(cell) = sorted.top.and_then(|top| confusion.get_mut(sample.label)?.get_mut(top)) {
            *cell += 1;
        }
        stated.push((p, right));
        sure += usize::from(sorted.sure);
        sure_correct += usize::from(sorted.sure && right);
    }
    let correct = stated.iter().filter(|s| s.1).count();
    let ece = ece(&stated);
    let curve = curve(stated);
    let macro_f1 = macro_f1(&confusion);
    Report { n: samples.len(), correct, macro_f1, ece, sure, sure_correct, confusion, curve }
}

/// Precision, recall and F1 of a label; `None` where it does not occur.
fn class(confusion: &[Vec<u32>], label: usize) -> Option<(f64, f64, f64)> {
    let row = confusion.get(label)?;
    let of_label: u32 = row.iter().sum();
    if of_label == 0 {
        return None;
    }
    let answered: u32 = confusion.iter().filter_map(|r| r.get(label)).sum();
    let hits = f64::from(row.get(label).copied().unwrap_or(0));
    let (precision, recall) = (hits / f64::from(answered.max(1)), hits / f64::from(of_label));
    Some((precision, recall, 2.0 * precision * recall / (precision + recall).max(1e-9)))
}

fn macro_f1(confusion: &[Vec<u32>]) -> f64 {
    let all: Vec<f64> = (0..confusion.len()).filter_map(|l| class(confusion, l)).map(|c| c.2).collect();
    all.iter().sum::<f64>() / all.len().max(1) as f64
}

/// Share of decisions that stay when a text is changed, per change.
pub fn robustness(texts: &[&str], sort: &dyn Fn(&str) -> Sorted) -> Vec<(&'static str, f64)> {
    let plain: Vec<Option<usize>> = texts.iter().map(|text| sort(text).top).collect();
    let share = |change: Change| {
        let same = texts.iter().zip(&plain).filter(|(text, top)| sort(&spoilt(text, change)).top == **top).count();
        same as f64 / texts.len().max(1) as f64
    };
    CHANGES.iter().map(|(change, name)| (*name, share(*change))).collect()
}

/// One line per selection.
pub fn table(reports: &[(&str, &Report)]) -> String {
    let mut out =
        format!("{:<34}{:>6}{:>10}{:>16}{:>10}{:>7}", "set", "n", "accuracy", "95 % interval", "macro-F1", "ECE");
    for share in COVERED.iter().skip(1) {
        let _ = write!(out, "{:>7}", format!("@{:.0}%", share * 100.0));
    }
    out.push('\n');
    for (name, r) in reports {
        let (low, high) = wilson(r.correct, r.n);
        let interval = format!("{low:.3}..{high:.3}");
        let _ =
            write!(out, "{name:<34}{:>6}{:>10.3}{interval:>16}{:>10.3}{:>7.3}", r.n, r.accuracy(), r.macro_f1, r.ece);
        for a in r.curve.iter().skip(1) {
            let _ = write!(out, "{a:>7.3}");
        }
        out.push('\n');
    }
    out
}

/// Per label: how many, precision, recall, F1, and the label it is most often mistaken for.
pub fn classes(topics: &Topics, r: &Report) -> String {
    let mut out =
        format!("{:<40}{:>6}{:>7}{:>8}{:>7}  most often mistaken for\n", "label", "n", "prec", "recall", "F1");
    let names: Vec<&str> = topics.taxonomy.labels.iter().map(|l| l.name.as_str()).collect();
    for (label, name) in names.iter().enumerate() {
        let (Some(row), Some((precision, recall, f1))) = (r.confusion.get(label), class(&r.confusion, label)) else {
            continue;
        };
        let n: u32 = row.iter().sum();
        let wrong = row.iter().enumerate().filter(|(at, n)| *at != label && **n > 0).max_by_key(|(_, n)| **n);
        let wrong = wrong.and_then(|(at, n)| names.get(at).map(|name| format!("{name} ({n})"))).unwrap_or_default();
        let _ = writeln!(out, "{name:<40}{n:>6}{precision:>7.2}{recall:>8.2}{f1:>7.2}  {wrong}");
    }
    out
}

/// The confusion matrix, labels down, answers across by number.
pub fn confusion(topics: &Topics, r: &Report) -> String {
    let mut out = format!("{:<32}", "label \\ answer");
    for at in 1..=r.confusion.len() {
        let _ = write!(out, "{at:>5}");
    }
    out.push('\n');
    for (at, (label, row)) in topics.taxonomy.labels.iter().zip(&r.confusion).enumerate() {
        let shown: String = label.name.chars().take(27).collect();
        let _ = write!(out, "{:>3} {shown:<28}", at + 1);
        for n in row {
            let _ = write!(out, "{n:>5}");
        }
        out.push('\n');
    }
    out
}
