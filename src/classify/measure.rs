//! How good a classifier is on labelled examples: accuracy with its interval, F1, calibration, coverage after abstention.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Classifier;
use super::domain::{DOMAINS, Domain, Posterior};
use super::labelled::{Example, Set, Split};

/// Classes of equal width for the calibration error.
const BINS: usize = 15;
/// Shares of the texts, the surest first, at which accuracy is told.
pub const COVERED: [f64; 6] = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5];

/// A named selection of held-out texts with their labels.
pub struct Held {
    /// As printed.
    pub name: &'static str,
    /// Texts as they are asked, and their labels.
    pub rows: Vec<(String, Domain)>,
}

/// Name of all selections together: what the calibration is set for.
pub const ALL: &str = "all of these";

/// The measured selections of one split. `with options` shows exam questions as they are usually asked.
pub fn held(examples: &[Example], split: Split) -> Vec<Held> {
    let pick = |name, set: Set, options: bool| {
        let of_set = examples.iter().filter(|e| e.split == split && e.set == set);
        let text = |e: &Example| if options { e.with_options() } else { e.text.clone() };
        Held { name, rows: of_set.map(|e| (text(e), e.domain)).collect() }
    };
    let sets = [
        pick("MMLU-Pro, question only", Set::MmluPro, false),
        pick("MMLU-Pro, with options", Set::MmluPro, true),
        pick("O*NET tasks, unseen occupations", Set::Onet, false),
        pick("GSM8K", Set::Gsm8k, false),
        pick("CRUXEval", Set::CruxEval, false),
        pick("MT-Bench, never trained on", Set::MtBench, false),
        pick("Acts, never trained on", Set::Acts, false),
        pick("chat", Set::Chat, false),
        pick("none", Set::Nothing, false),
    ];
    let mut sets: Vec<Held> = sets.into_iter().filter(|h| !h.rows.is_empty()).collect();
    sets.push(Held { name: ALL, rows: sets.iter().flat_map(|h| h.rows.clone()).collect() });
    sets
}

/// How a text is spoilt to see what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// All capitals.
    Upper,
    /// No capitals.
    Lower,
    /// Two neighbouring letters swapped in every sixth word of at least four letters, in the middle of the word.
    Typos,
    /// Said otherwise by rule: a polite opening, and common words of questions by others that mean the same.
    Reworded,
}

/// The same labels with spoilt texts.
pub fn changed(rows: &[(String, Domain)], change: Change) -> Vec<(String, Domain)> {
    rows.iter().map(|(text, domain)| (spoilt(text, change), *domain)).collect()
}

/// A text changed.
pub fn spoilt(text: &str, change: Change) -> String {
    match change {
        Change::Upper => text.to_uppercase(),
        Change::Lower => text.to_lowercase(),
        Change::Typos => typos(text),
        Change::Reworded => reworded(text),
    }
}

/// Words of questions and what else is said for them; none of them says what a question is about.
const SYNONYMS: [(&str, &str); 24] = [
    ("calculate", "work out"),
    ("compute", "work out"),
    ("determine", "find out"),
    ("find", "give"),
    ("which", "what"),
    ("following", "below"),
    ("describe", "explain"),
    ("explain", "describe"),
    ("write", "draft"),
    ("create", "make"),
    ("make", "create"),
    ("assume", "suppose"),
    ("suppose", "assume"),
    ("show", "demonstrate"),
    ("list", "name"),
    ("name", "list"),
    ("best", "most fitting"),
    ("help", "assist"),
    ("need", "want"),
    ("statement", "claim"),
    ("statements", "claims"),
    ("correct", "right"),
    ("true", "right"),
    ("about", "roughly"),
];

fn reworded(text: &str) -> String {
    let other = |word: &str| {
        let lower = word.to_lowercase();
        let found = SYNONYMS.iter().find(|(from, _)| *from == lower);
        found.map_or_else(|| word.to_owned(), |(_, to)| (*to).to_owned())
    };
    let words: Vec<String> = text.split(' ').map(other).collect();
    format!("Could you please help me with this? {}", words.join(" "))
}

fn typos(text: &str) -> String {
    let mut long = 0;
    let words: Vec<String> = text
        .split(' ')
        .map(|word| {
            let mut letters: Vec<char> = word.chars().collect();
            if letters.len() < 4 {
                return word.to_owned();
            }
            long += 1;
            if long % 6 == 1 {
                let middle = letters.len() / 2;
                letters.swap(middle - 1, middle);
            }
            letters.into_iter().collect()
        })
        .collect();
    words.join(" ")
}

/// Figures over one selection.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Texts.
    pub n: usize,
    /// Most likely domain, before abstention, is the label.
    pub correct: usize,
    /// Most likely domain after abstention is not `None`, or the label is.
    pub answered: usize,
    /// Right among the answered.
    pub answered_correct: usize,
    /// Mean F1 over the labels that occur.
    pub macro_f1: f64,
    /// Expected calibration error of the posterior before abstention, 15 bins.
    pub ece: f64,
    /// Accuracy at the shares of [`COVERED`].
    pub curve: Vec<f64>,
    /// `confusion[label][answer]`, before abstention.
    pub confusion: Vec<[u32; DOMAINS]>,
}

impl Score {
    /// Share correct.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.n.max(1) as f64
    }

    /// As JSON.
    pub fn facts(&self) -> Value {
        let (low, high) = wilson(self.correct, self.n);
        json!({
            "n": self.n, "correct": self.correct, "accuracy": self.accuracy(), "low": low, "high": high,
            "macro_f1": self.macro_f1, "ece": self.ece, "answered": self.answered,
            "answered_correct": self.answered_correct,
            "accuracy_at_coverage": COVERED.iter().zip(&self.curve).map(|(c, a)| json!([c, a])).collect::<Vec<_>>(),
        })
    }
}

/// Runs the classifier's fast tier over labelled texts.
pub fn score(classifier: &Classifier, rows: &[(String, Domain)]) -> Score {
    score_by(rows, &|text| (classifier.calibrated(text), classifier.posterior(text)))
}

/// Runs anything that gives a posterior before and after abstention over labelled texts.
pub fn score_by(rows: &[(String, Domain)], sort: &dyn Fn(&str) -> (Posterior, Posterior)) -> Score {
    let mut confusion = vec![[0u32; DOMAINS]; DOMAINS];
    let (mut correct, mut answered, mut answered_correct) = (0, 0, 0);
    let mut sure = Vec::with_capacity(rows.len());
    for (text, label) in rows {
        let (calibrated, posterior) = sort(text);
        let (top, p) = calibrated.top();
        if let Some(cell) = confusion.get_mut(label.index()).and_then(|r| r.get_mut(top.index())) {
            *cell += 1;
        }
        correct += usize::from(top == *label);
        sure.push((p, top == *label));
        let (said, _) = posterior.top();
        answered += usize::from(said != Domain::NONE || *label == Domain::NONE);
        answered_correct += usize::from(said == *label);
    }
    let macro_f1 = macro_f1(&confusion);
    let (ece, curve) = (ece(&sure), curve(sure));
    Score { n: rows.len(), correct, answered, answered_correct, macro_f1, ece, curve, confusion }
}

/// Accuracy at the shares of [`COVERED`] of answers with their certainty.
pub fn curve(mut sure: Vec<(f32, bool)>) -> Vec<f64> {
    sure.sort_by(|a, b| b.0.total_cmp(&a.0));
    let at = |share: &f64| {
        let kept = ((sure.len() as f64 * share).round() as usize).max(1);
        sure.iter().take(kept).filter(|s| s.1).count() as f64 / kept as f64
    };
    COVERED.iter().map(at).collect()
}

/// Mean gap between stated and observed certainty over bins of the stated one, weighted by their size.
pub fn ece(sure: &[(f32, bool)]) -> f64 {
    let mut bins = vec![(0usize, 0f64, 0usize); BINS];
    for (p, right) in sure {
        let at = ((p * BINS as f32) as usize).min(BINS - 1);
        if let Some(bin) = bins.get_mut(at) {
            *bin = (bin.0 + 1, bin.1 + f64::from(*p), bin.2 + usize::from(*right));
        }
    }
    bins.iter().map(|(_, stated, right)| (stated - *right as f64).abs()).sum::<f64>() / sure.len().max(1) as f64
}

/// Wilson interval of a share at 95 %.
pub fn wilson(correct: usize, n: usize) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (n, z) = (n as f64, 1.959_964);
    let p = correct as f64 / n;
    let middle = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    ((middle - half) / (1.0 + z * z / n), (middle + half) / (1.0 + z * z / n))
}

/// Precision, recall and F1 of one domain; None where it neither occurs nor is answered.
pub fn class(confusion: &[[u32; DOMAINS]], domain: Domain) -> Option<(f64, f64, f64)> {
    let at = domain.index();
    let row = confusion.get(at)?;
    let hits = f64::from(*row.get(at)?);
    let labelled: f64 = row.iter().map(|n| f64::from(*n)).sum();
    let answered: f64 = confusion.iter().filter_map(|r| r.get(at)).map(|n| f64::from(*n)).sum();
    if labelled + answered == 0.0 {
        return None;
    }
    Some((hits / answered.max(1.0), hits / labelled.max(1.0), 2.0 * hits / (labelled + answered)))
}

fn macro_f1(confusion: &[[u32; DOMAINS]]) -> f64 {
    let occurring = Domain::all().filter(|d| confusion.get(d.index()).is_some_and(|r| r.iter().any(|n| *n > 0)));
    let scores: Vec<f64> = occurring.filter_map(|d| class(confusion, d)).map(|c| c.2).collect();
    scores.iter().sum::<f64>() / scores.len().max(1) as f64
}

/// A line per selection.
pub fn table(scores: &[(&str, &Score)]) -> String {
    let mut out = format!(
        "{:<34}{:>6}{:>10}{:>16}{:>10}{:>7}{:>10}{:>11}{:>7}{:>7}{:>7}\n",
        "set", "n", "accuracy", "95 % interval", "macro-F1", "ECE", "answered", "right then", "@90%", "@70%", "@50%"
    );
    for (name, s) in scores {
        let (low, high) = wilson(s.correct, s.n);
        let answered = s.answered as f64 / s.n.max(1) as f64;
        let then = s.answered_correct as f64 / s.answered.max(1) as f64;
        let at = |share: usize| s.curve.get(share).copied().unwrap_or(0.0);
        let _ = writeln!(
            out,
            "{name:<34}{:>6}{:>10.3}{:>16}{:>10.3}{:>7.3}{answered:>10.3}{then:>11.3}{:>7.3}{:>7.3}{:>7.3}",
            s.n,
            s.accuracy(),
            format!("{low:.3}..{high:.3}"),
            s.macro_f1,
            s.ece,
            at(1),
            at(3),
            at(5),
        );
    }
    out
}

/// Per domain: how many, precision, recall, F1, and the answer it is most often mistaken for.
pub fn classes(score: &Score) -> String {
    let mut out =
        format!("{:<48}{:>6}{:>7}{:>8}{:>7}  most often mistaken for\n", "domain", "n", "prec", "recall", "F1");
    for domain in Domain::all() {
        let Some(row) = score.confusion.get(domain.index()) else { continue };
        let Some((precision, recall, f1)) = class(&score.confusion, domain) else { continue };
        let n: u32 = row.iter().sum();
        let wrong = Domain::all().zip(row).filter(|(d, n)| *d != domain && **n > 0).max_by_key(|(_, n)| **n);
        let wrong = wrong.map(|(d, n)| format!("{d} ({n})")).unwrap_or_default();
        let _ = writeln!(out, "{:<48}{n:>6}{precision:>7.2}{recall:>8.2}{f1:>7.2}  {wrong}", domain.name());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_interval_of_eight_in_ten() {
        let (low, high) = wilson(8, 10);
        assert!((low - 0.4902).abs() < 1e-3 && (high - 0.9433).abs() < 1e-3, "{low} {high}");
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }

    #[test]
    fn honest_certainty_has_no_calibration_error() {
        let honest: Vec<_> = (0..100).map(|i| (0.7, i % 10 < 7)).collect();
        assert!(ece(&honest) < 1e-6);
        let boastful: Vec<_> = (0..100).map(|i| (0.95, i % 2 == 0)).collect();
        assert!((ece(&boastful) - 0.45).abs() < 1e-6);
    }
}
