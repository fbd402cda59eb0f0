//! The results as lines and as tables for a README.

use std::fmt::Write as _;

use super::Judged;

/// Policies in the order of a table.
const ORDER: [&str; 8] =
    ["random", "domain", "subject", "words, question", "words", "predictor", "predictor, subjects", "oracle"];

/// One pair in a line.
pub fn line(j: &Judged) -> String {
    let worth: Vec<String> =
        ORDER.iter().map(|p| format!("{p} {}", of(j.policies.get(p).and_then(|f| f.apgr)))).collect();
    format!("{} {} -> {} ({:.0} s): {}", j.table, j.weak, j.strong, j.seconds, worth.join(" | "))
}

/// Tables in Markdown: APGR by policy, then the predictor's other figures, then means.
pub fn tables(all: &[Judged]) -> String {
    let mut out =
        format!("| table | weak -> strong | n | {} | ahead of the better of domain and words |\n", ORDER.join(" | "));
    let _ = writeln!(out, "|---|---|---:|{}---:|", "---:|".repeat(ORDER.len()));
    for j in all {
        let worth: Vec<String> = ORDER.iter().map(|p| of(j.policies.get(p).and_then(|f| f.apgr))).collect();
        let interval = j.ahead_interval.map_or(String::new(), |[low, high]| format!(" ({low:+.3} to {high:+.3})"));
        let ahead = j.ahead.map_or("–".to_owned(), |a| format!("{a:+.3}{interval}"));
        let _ = writeln!(
            out,
            "| {} | {} -> {} | {} | {} | {ahead} |",
            j.table,
            j.weak,
            j.strong,
            j.queries,
            worth.join(" | ")
        );
    }
    let means: Vec<String> = ORDER.iter().map(|p| of(mean(all.iter().map(|j| j.policies.get(p)?.apgr)))).collect();
    let ahead = mean(all.iter().map(|j| j.ahead)).map_or("–".to_owned(), |a| format!("{a:+.3}"));
    let _ = writeln!(out, "| mean | | | {} | {ahead} |\n", means.join(" | "));
    out + &rest(all)
}

fn rest(all: &[Judged]) -> String {
    let mut out = "| table | weak -> strong | CPT20 / 50 / 80: predictor | domain | words | AIQ: predictor / zero router / oracle \
                   | AUC of need: predictor / domain / words | P(right) weak: AUC, ECE | strong: AUC, ECE | regret at half: predictor \
                   / domain / words / oracle |\n|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for j in all {
        let p = |name: &str| j.policies.get(name).cloned().unwrap_or_default();
        let (ours, domain, words, oracle) = (p("predictor"), p("domain"), p("words"), p("oracle"));
        let cpt =
            |c: [Option<f64>; 3]| c.map(|c| c.map_or("–".to_owned(), |c| format!("{:.0}", 100.0 * c))).join(" / ");
        let _ = writeln!(
            out,
            "| {} | {} -> {} | {} | {} | {} | {} / {} / {} | {} / {} / {} | {}, {} | {}, {} | {} / {} / {} / {} |",
            j.table,
            j.weak,
            j.strong,
            cpt(ours.cpt),
            cpt(domain.cpt),
            cpt(words.cpt),
            of(ours.aiq),
            of(j.aiq_zero_router),
            of(oracle.aiq),
            of(ours.auc),
            of(domain.auc),
            of(words.auc),
            of(j.chances_weak.auc),
            of(j.chances_weak.ece),
            of(j.chances_strong.auc),
            of(j.chances_strong.ece),
            of(ours.regret_half),
            of(domain.regret_half),
            of(words.regret_half),
            of(oracle.regret_half),
        );
    }
    out
}

fn of(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |v| format!("{v:.3}"))
}

fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let known: Vec<f64> = values.flatten().collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}
