//! The rules of one row, one level of concurrency and the costs of a token: ratios that must hold, ends that must enclose.

use super::values::At;
use crate::config::problem::Problems;
use crate::tables::stats::wilson;

/// A printed share is rounded to a tenth of a percent at worst; beyond this it is another number.
const COVERAGE_TOLERANCE: f64 = 0.0015;
/// Interval ends may come from a rounded share.
const WILSON_TOLERANCE: f64 = 0.003;
/// Ratios of separately rounded means. Rows of the paper that pass are within 10 %; those that are wrong are off threefold.
const RATIO_TOLERANCE: f64 = 0.2;

/// Mean watts times mean seconds is not the mean of the products: queries that draw more may take longer. Beyond this factor
/// one of the three figures is another quantity.
const POWER_FACTOR: f64 = 4.0;

/// Keys of the costs per token.
pub const TOKENS: &[&str] = &[
    "joules_per_input_token",
    "joules_per_output_token",
    "relative_uncertainty",
    "ttft_s",
    "input_tokens_per_s",
    "output_tokens_per_s",
    "watts",
    "input_interval",
    "output_interval",
    "method",
    "refused",
    "r2",
];
/// Keys of a row.
pub const ROW: &[&str] = &[
    "n",
    "correct",
    "coverage",
    "coverage_low",
    "coverage_high",
    "baseline_coverage",
    "gain",
    "ipw",
    "ipj",
    "joules_per_query",
    "seconds_per_query",
    "output_tokens",
    "shrunk",
    "shrunk_interval",
    "gain_interval",
    "ipw_interval",
    "ipj_interval",
    "joules_interval",
    "net_joules_per_query",
    "joules_per_correct",
    "prefill_joules",
    "decode_joules",
    "prefill_s",
    "decode_s",
    "ttft_p50_s",
    "ttft_p95_s",
    "gap_p50_s",
    "gap_p99_s",
    "watts",
    "input_tokens",
    "output_quantiles",
    "unscored",
    "metered",
    "failed",
];
/// Keys of a level of concurrency.
pub const LEVEL: &[&str] = &[
    "n",
    "joules_per_query",
    "joules_interval",
    "joules_per_output_token",
    "seconds_per_query",
    "output_tokens_per_s",
    "ttft_p50_s",
];
/// Keys of a spread of lengths, rising.
pub const QUANTILES: &[&str] = &["p5", "p25", "p50", "p75", "p95"];
const METHODS: [&str; 2] = ["regression", "phases"];
/// Figures of a row that are above 0 or null.
const POSITIVE: &[&str] = &[
    "ipw",
    "ipj",
    "joules_per_query",
    "seconds_per_query",
    "output_tokens",
    "net_joules_per_query",
    "joules_per_correct",
    "prefill_joules",
    "decode_joules",
    "prefill_s",
    "decode_s",
    "ttft_p50_s",
    "ttft_p95_s",
    "gap_p50_s",
    "gap_p99_s",
    "watts",
    "input_tokens",
];
const JOULES: &[&str] = &[
    "ipw",
    "ipj",
    "joules_per_query",
    "net_joules_per_query",
    "joules_per_correct",
    "prefill_joules",
    "decode_joules",
    "watts",
];

/// The costs per token.
pub fn tokens(at: At, unknown: bool, problems: &mut Problems) {
    at.keys(TOKENS, problems);
    let figures = TOKENS.iter().take_while(|k| **k != "input_interval");
    for key in figures {
        at.positive(key, problems);
    }
    at.interval("input_interval", "joules_per_input_token", problems);
    at.interval("output_interval", "joules_per_output_token", problems);
    at.optional_text("refused", problems);
    let method = at.map.get("method").and_then(|m| m.as_str());
    if !at.absent("method") && !method.is_some_and(|m| METHODS.contains(&m)) {
        problems.add(at.key("method"), format!("must be {}", METHODS.join(" or ")));
    }
    if method == Some("regression") && !at.absent("refused") {
        problems.add(at.key("refused"), "stands beside method = regression");
    }
    if at.number("r2").is_some_and(|r| r > 1.0) {
        problems.add(at.key("r2"), "must be at most 1");
    }
    if unknown {
        at.no_joules(&["joules_per_input_token", "joules_per_output_token", "watts"], problems);
    }
}

/// One row. `watts` is the table's own mean power, for a row that tells none.
pub fn row(at: At, watts: Option<f64>, unknown: bool, problems: &mut Problems) {
    at.keys(ROW, problems);
    for key in POSITIVE {
        at.positive(key, problems);
    }
    if unknown {
        at.no_joules(JOULES, problems);
    }
    for key in ["unscored", "metered", "failed"] {
        at.optional_count(key, problems);
    }
    at.rising(&["ttft_p50_s", "ttft_p95_s"], problems);
    at.rising(&["gap_p50_s", "gap_p99_s"], problems);
    if let Some(spread) = at.map.get("output_quantiles").and_then(|q| q.as_object()) {
        let path = at.key("output_quantiles");
        let inside = At { map: spread, path: &path };
        inside.keys(QUANTILES, problems);
        inside.rising(QUANTILES, problems);
    }
    let (n, correct) = (at.count("n", problems), at.count("correct", problems));
    let coverage = at.share("coverage", problems);
    let ends = (at.share("coverage_low", problems), at.share("coverage_high", problems));
    if let (Some(n), Some(correct)) = (n, correct) {
        counted(at, (n, correct), coverage, ends, problems);
    }
    at.optional_share("shrunk", problems);
    for (interval, figure) in [
        ("shrunk_interval", "shrunk"),
        ("gain_interval", "gain"),
        ("ipw_interval", "ipw"),
        ("ipj_interval", "ipj"),
        ("joules_interval", "joules_per_query"),
    ] {
        at.interval(interval, figure, problems);
    }
    if let Some(coverage) = coverage {
        gain(at, coverage, problems);
        ratios(at, coverage, watts, problems);
    }
}

fn counted(
    at: At,
    (n, correct): (u64, u64),
    coverage: Option<f64>,
    ends: (Option<f64>, Option<f64>),
    problems: &mut Problems,
) {
    if n == 0 {
        return problems.add(at.key("n"), "must be above 0: leave the row out where nothing was scored");
    }
    if at.number("metered").zip(at.number("n")).is_some_and(|(metered, n)| metered > n) {
        problems.add(at.key("metered"), format!("is more than n = {n}"));
    }
    if correct > n {
        return problems.add(at.key("correct"), format!("is {correct}, more than n = {n}"));
    }
    let (Ok(small_n), Ok(small_correct)) = (u32::try_from(n), u32::try_from(correct)) else {
        return problems.add(at.key("n"), "is too large");
    };
    let want = f64::from(small_correct) / f64::from(small_n);
    if let Some(c) = coverage.filter(|c| (c - want).abs() > COVERAGE_TOLERANCE) {
        problems.add(at.key("coverage"), format!("is {c}, but correct / n = {want:.4}"));
    }
    let (low, high) = wilson(small_correct, small_n);
    for (key, got, want) in [("coverage_low", ends.0, low), ("coverage_high", ends.1, high)] {
        if let Some(got) = got.filter(|g| (g - want).abs() > WILSON_TOLERANCE) {
            problems.add(at.key(key), format!("is {got}, but the Wilson interval at 95 % ends at {want:.4}"));
        }
    }
}

fn gain(at: At, coverage: f64, problems: &mut Problems) {
    let baseline = at.optional_share("baseline_coverage", problems);
    match (baseline, at.number("gain")) {
        (Some(b), Some(g)) if (b - coverage - g).abs() > 2.0 * COVERAGE_TOLERANCE => {
            problems.add(at.key("gain"), format!("is {g}, but baseline_coverage - coverage = {:.4}", b - coverage))
        }
        (None, Some(_)) => problems.add(at.key("gain"), "has no baseline_coverage beside it"),
        _ => {}
    }
}

/// Figures of one row that follow from each other.
fn ratios(at: At, coverage: f64, watts: Option<f64>, problems: &mut Problems) {
    let joules = at.number("joules_per_query");
    if let (Some(ipj), Some(joules)) = (at.number("ipj"), joules) {
        ratio(at, "ipj", ipj, coverage / joules, "coverage / joules_per_query", problems);
    }
    let implied = joules.zip(at.number("seconds_per_query")).map(|(j, s)| j / s);
    if let (Some(ipw), Some(watts)) = (at.number("ipw"), at.number("watts").or(watts).or(implied)) {
        ratio(at, "ipw", ipw, coverage / watts, "coverage / watts", problems);
    }
    let Some(joules) = joules else { return };
    let spent = at.number("watts").or(watts).zip(at.number("seconds_per_query")).map(|(w, s)| w * s);
    if let Some(spent) = spent.filter(|x| *x > 0.0 && !(1.0 / POWER_FACTOR..=POWER_FACTOR).contains(&(joules / x))) {
        let told = format!("is {joules:.4e}, but watts x seconds_per_query = {spent:.4e}");
        problems.add(at.key("joules_per_query"), told);
    }
    if let Some(per_correct) = at.number("joules_per_correct") {
        ratio(at, "joules_per_correct", per_correct, joules / coverage, "joules_per_query / coverage", problems);
    }
    if let (Some(a), Some(b)) = (at.number("prefill_joules"), at.number("decode_joules")) {
        ratio(at, "joules_per_query", joules, a + b, "prefill_joules + decode_joules", problems);
    }
    if at.number("net_joules_per_query").is_some_and(|net| net > joules * (1.0 + 1e-9)) {
        problems.add(at.key("net_joules_per_query"), "is more than joules_per_query, which includes it");
    }
}

fn ratio(at: At, key: &str, got: f64, want: f64, formula: &str, problems: &mut Problems) {
    if want > 0.0 && (got / want - 1.0).abs() > RATIO_TOLERANCE {
        problems.add(at.key(key), format!("is {got:.4e}, but {formula} = {want:.4e}"));
    }
}

/// One level of concurrency; `name` is the number of streams as written.
pub fn level(at: At, name: &str, unknown: bool, problems: &mut Problems) {
    if name.parse::<u32>().is_ok_and(|streams| streams == 0) || name.parse::<u32>().is_err() {
        problems.add(at.path, "must be a whole number of queries at a time, 1 or more");
    }
    at.keys(LEVEL, problems);
    at.count("n", problems);
    for key in LEVEL.iter().filter(|k| !["n", "joules_interval"].contains(k)) {
        at.positive(key, problems);
    }
    at.interval("joules_interval", "joules_per_query", problems);
    if unknown {
        at.no_joules(&["joules_per_query", "joules_per_output_token"], problems);
    }
}
