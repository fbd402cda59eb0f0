//! Tables from answers: every figure by hand, then compared, joined and refused.

use std::process::Command;

use proptest::prelude::*;
use wattroute::energy::Basis;
use wattroute::tables::diff::{Verdict as Stands, diff};
use wattroute::tables::make::{About, Asked, Verdict, table};
use wattroute::tables::merge::{Questions, merge};
use wattroute::tables::{Provenance, Setup, Table, check_text, gain, save, show};

const DOMAINS: [&str; 3] = ["Legal services", "Computer and mathematical", "None"];

/// One question on one stream; `watts` for all of its `seconds`, a quarter of them before the first token.
fn asked(id: u32, verdict: Verdict, watts: f64, seconds: f64) -> Asked {
    let (input, output) = (20.0 + f64::from(id % 13), 5.0 + f64::from(id % 7));
    Asked {
        id: format!("q{id}"),
        domain: DOMAINS[id as usize % 3].parse().unwrap(),
        verdict,
        streams: 1,
        input: Some(input),
        output: Some(output),
        first_s: Some(seconds / 4.0),
        seconds,
        gross_j: Some(watts * seconds),
        prefill_j: Some(watts * seconds / 4.0),
        decode_j: Some(watts * seconds * 3.0 / 4.0),
        net_j: Some(watts * seconds * 0.8),
        gap_p50_s: Some(seconds / 10.0),
        gap_p99_s: Some(seconds / 5.0),
    }
}

fn about(suite: &str) -> About {
    About {
        model: "m".to_owned(),
        device: "d".to_owned(),
        runtime: "r".to_owned(),
        attention: "softmax".to_owned(),
        basis: Basis::Counter,
        relative_uncertainty: Some(0.05),
        provenance: Provenance {
            source: "test".to_owned(),
            date: "2026-01-01".to_owned(),
            licence: "none".to_owned(),
            suites: vec![suite.to_owned()],
            command: Some(format!("wattroute profile --suite {suite}")),
            ..Provenance::default()
        },
        setup: Setup {
            driver: Some("570.1".to_owned()),
            power_cap_w: Some(350.0),
            idle_w: Some(12.0),
            suite_hashes: vec![suite.to_owned()],
            ..Setup::default()
        },
    }
}

fn verdict(right: bool) -> Verdict {
    if right { Verdict::Right } else { Verdict::Wrong }
}

/// `n` questions of which one in `one_in` is right, at `watts`.
fn run(from: u32, n: u32, one_in: u32, watts: f64) -> Vec<Asked> {
    (from..from + n)
        .map(|i| asked(i, verdict(i % one_in == 0), watts + f64::from(i % 5), 1.0 + f64::from(i % 3)))
        .collect()
}

fn sound(table: &Table) -> Vec<String> {
    let text = serde_json::to_string(table).unwrap();
    check_text(&text, "made.json").iter().map(ToString::to_string).collect()
}

#[test]
fn every_figure_of_a_small_run_is_the_one_by_hand() {
    let all = [
        asked(0, Verdict::Right, 100.0, 2.0),
        asked(3, Verdict::Wrong, 200.0, 1.0),
        asked(6, Verdict::Right, 300.0, 4.0),
        asked(9, Verdict::Unscored, 900.0, 9.0),
        asked(12, Verdict::Failed, 900.0, 9.0),
    ];
    let t = table(&all, about("s"));
    assert_eq!(sound(&t), Vec::<String>::new());
    let r = &t.overall;
    assert_eq!((r.n, r.correct, r.unscored, r.failed), (3, 2, Some(1), Some(1)));
    let close = |got: Option<f64>, want: f64| assert!((got.unwrap() / want - 1.0).abs() < 1e-9, "{got:?} {want}");
    close(r.ipw, (2.0 / 3.0) / 200.0);
    close(r.ipj, (2.0 / 3.0) / (1600.0 / 3.0));
    close(r.joules_per_query, 1600.0 / 3.0);
    close(r.joules_per_correct, 800.0);
    close(r.net_joules_per_query, 1600.0 / 3.0 * 0.8);
    close(r.prefill_joules, 400.0 / 3.0);
    close(r.decode_joules, 400.0);
    close(r.watts, 200.0);
    close(r.ttft_p50_s, 0.5);
    close(r.ttft_p95_s, 0.5 + 0.9 * 0.5);
    close(r.gap_p50_s, 0.2);
    close(r.gap_p99_s, 0.4);
    let [low, high] = r.ipj_interval.unwrap_or([0.0, f64::MAX]);
    assert!(low < r.ipj.unwrap() && r.ipj.unwrap() < high);
    // Three queries are too few for a line: the phases speak, and it is said why.
    assert_eq!(t.tokens.method.as_deref(), Some("phases"));
    assert!(t.tokens.refused.as_deref().unwrap().contains("at least 10"));
    assert_eq!(t.domains.len(), 1, "all ids fall into one domain");
    let shown = show::text(&t);
    assert!(shown.contains("1 questions without an answer and 1 that nobody graded"));
    let ipw = format!("{:.2e}", r.ipw.unwrap());
    let hash = t.setup.questions.as_deref().unwrap();
    for told in [ipw.as_str(), "IPW 1/W", "questions: s; hashes s, ids ", hash, "made by: wattroute profile --suite s"]
    {
        assert!(shown.contains(told), "{told} in {shown}");
    }
}

#[test]
fn joules_that_follow_tokens_give_a_line_and_ones_that_do_not_are_refused() {
    let line = |i: u32| {
        let mut a = asked(i, verdict(i.is_multiple_of(2)), 10.0, 1.0);
        let (input, output) = (f64::from(50 + i * 37 % 400), f64::from(10 + i * 53 % 200));
        (a.input, a.output, a.gross_j) = (Some(input), Some(output), Some(0.01 * input + 0.3 * output));
        (a.prefill_j, a.decode_j) = (Some(0.01 * input), Some(0.3 * output));
        a
    };
    let t = table(&(0..60).map(line).collect::<Vec<_>>(), about("s"));
    assert_eq!(sound(&t), Vec::<String>::new());
    assert_eq!((t.tokens.method.as_deref(), t.tokens.refused.as_deref()), (Some("regression"), None));
    assert!((t.tokens.joules_per_input_token.unwrap() - 0.01).abs() < 1e-9);
    assert!((t.tokens.joules_per_output_token.unwrap() - 0.3).abs() < 1e-9 && t.tokens.r2.unwrap() > 0.999);
    let together = |i: u32| {
        let mut a = line(i);
        a.output = a.input.map(|x| x / 4.0);
        a
    };
    let t = table(&(0..60).map(together).collect::<Vec<_>>(), about("s"));
    assert!(t.tokens.refused.as_deref().unwrap().contains("rise together"), "{:?}", t.tokens);
    assert_eq!(sound(&t), Vec::<String>::new());
}

#[test]
fn levels_of_concurrency_have_rows_of_their_own_and_repeats_count_once() {
    let mut all = run(0, 30, 3, 50.0);
    all.extend(run(0, 30, 3, 50.0).into_iter().map(|a| Asked {
        streams: 4,
        gross_j: Some(20.0),
        prefill_j: Some(5.0),
        decode_j: Some(15.0),
        ..a
    }));
    all.extend(run(0, 30, 3, 60.0));
    // What nobody could grade is in no figure of a level either.
    all.push(Asked { streams: 4, ..asked(99, Verdict::Unscored, 9000.0, 9.0) });
    let t = table(&all, about("s"));
    assert_eq!(sound(&t), Vec::<String>::new());
    assert_eq!((t.overall.n, t.overall.correct), (30, 10), "a question asked twice is one question");
    assert_eq!(t.concurrency.keys().copied().collect::<Vec<_>>(), [1, 4]);
    assert_eq!((t.concurrency[&1].n, t.concurrency[&4].n), (60, 30));
    assert!((t.concurrency[&4].joules_per_query.unwrap() - 20.0).abs() < 1e-9);
    assert!(
        (t.concurrency[&4].output_tokens_per_s.unwrap() / t.concurrency[&1].output_tokens_per_s.unwrap() - 4.0).abs()
            < 0.1
    );
    let one = table(&run(0, 30, 3, 55.0), about("s"));
    assert!((one.overall.joules_per_query.unwrap() - t.overall.joules_per_query.unwrap()).abs() < 1e-9);
    assert!(show::text(&t).contains("at a time"));
}

#[test]
fn a_difference_within_noise_is_called_noise_and_pairs_see_more() {
    let (a, b) = (run(0, 120, 3, 50.0), run(0, 120, 3, 52.0));
    // The second gets eight more right, and nothing less.
    let mut better = b.clone();
    better.iter_mut().filter(|x| x.verdict == Verdict::Wrong).take(8).for_each(|x| x.verdict = Verdict::Right);
    let (ta, tb) = (table(&a, about("s")), table(&better, about("s")));
    let alone = diff(&ta, &tb, None);
    let together = diff(&ta, &tb, Some((&a, &better)));
    assert_eq!((alone.lines[0].quality, alone.lines[0].energy), (Stands::WithinNoise, Stands::WithinNoise));
    assert_eq!((together.lines[0].quality, together.lines[0].energy), (Stands::Better, Stands::Worse));
    assert!(together.lines[0].paired && !alone.lines[0].paired);
    assert!(alone.notes.iter().any(|n| n.contains("not paired")), "{:?}", alone.notes);
    assert!(show::comparison(&alone).contains("within noise"));
    let same = diff(&ta, &ta, Some((&a, &a)));
    assert!(same.lines.iter().all(|l| l.quality == Stands::WithinNoise && l.energy == Stands::WithinNoise));
    let other = diff(&ta, &table(&run(0, 90, 2, 50.0), about("other")), None);
    assert!(other.notes[0].contains("other questions"));
}

#[test]
fn merging_gives_what_measuring_together_would_have_given() {
    let (a, b) = (run(0, 60, 3, 50.0), run(60, 90, 4, 70.0));
    let all: Vec<Asked> = a.iter().chain(&b).cloned().collect();
    let parts = [table(&a, about("one")), table(&b, about("two"))];
    let joined = merge(&parts, Questions::Disjoint).unwrap();
    let whole = table(&all, about("both"));
    assert_eq!(sound(&joined), Vec::<String>::new());
    assert_eq!((joined.overall.n, joined.overall.correct), (whole.overall.n, whole.overall.correct));
    let close = |x: Option<f64>, y: Option<f64>, within: f64| {
        assert!((x.unwrap() / y.unwrap() - 1.0).abs() < within, "{x:?} {y:?}");
    };
    close(joined.overall.joules_per_query, whole.overall.joules_per_query, 1e-9);
    close(joined.overall.ipj, whole.overall.ipj, 1e-9);
    close(joined.overall.ipw, whole.overall.ipw, 1e-9);
    for (domain, row) in &joined.domains {
        close(row.joules_per_query, whole.domains[domain].joules_per_query, 1e-9);
        assert_eq!(row.n, whole.domains[domain].n);
    }
    assert_eq!(joined.setup.suite_hashes, ["one", "two"]);
    let twice = merge(&[parts[0].clone(), parts[0].clone()], Questions::Disjoint).unwrap_err();
    assert!(twice.contains("the same questions are in more than one table (one)"), "{twice}");
    assert!(
        merge(&[parts[0].clone(), parts[0].clone()], Questions::Pooled)
            .unwrap()
            .provenance
            .notes
            .iter()
            .any(|n| n.contains("too narrow"))
    );
    let mut other = parts[1].clone();
    (other.device, other.setup.power_cap_w) = ("e".to_owned(), Some(200.0));
    let unlike = merge(&[parts[0].clone(), other], Questions::Disjoint).unwrap_err();
    assert!(unlike.contains("device: `d` and `e`; power cap: `350 W` and `200 W`"), "{unlike}");
    assert!(merge(&parts[..1], Questions::Disjoint).unwrap_err().contains("at least two"));
}

#[test]
fn gain_is_the_baselines_on_the_same_questions_only() {
    let own = run(0, 90, 3, 50.0);
    let mut base = run(0, 90, 2, 500.0);
    let mut t = table(&own, about("s"));
    gain::from_answers(&mut t, &own, &base, "big").unwrap();
    assert_eq!(sound(&t), Vec::<String>::new());
    assert!((t.overall.gain.unwrap() - (0.5 - 1.0 / 3.0)).abs() < 1e-9);
    let [low, high] = t.overall.gain_interval.unwrap();
    assert!(low > 0.0 && high < 0.4, "{low} {high}");
    assert_eq!(t.setup.baseline.as_deref(), Some("big"));
    base.pop();
    let refused = gain::from_answers(&mut t, &own, &base, "big").unwrap_err();
    assert_eq!(refused, "big did not answer 1 of the 90 scored questions");
    let mut by_table = table(&own, about("s"));
    gain::from_table(&mut by_table, &table(&run(0, 90, 2, 500.0), about("s"))).unwrap();
    assert!((by_table.overall.gain.unwrap() - t.overall.gain.unwrap()).abs() < 1e-9);
    // Two samples know less than pairs do.
    let [wide_low, wide_high] = by_table.overall.gain_interval.unwrap();
    assert!(wide_high - wide_low > 0.0 && wide_low < 0.0 + high);
    let refused = gain::from_table(&mut by_table, &table(&own, about("other"))).unwrap_err();
    assert!(refused.contains("not measured on the same questions"), "{refused}");
    // Other questions of the same suite, in the same domains, are no baseline; neither are those of another domain.
    for others in
        [run(90, 90, 2, 500.0), run(0, 90, 2, 500.0).into_iter().filter(|a| a.domain == own[0].domain).collect()]
    {
        let theirs = table(&others, about("s"));
        let refused = gain::from_table(&mut by_table, &theirs).unwrap_err();
        assert!(refused.contains("not measured on the same questions of these suites"), "{refused}");
        let told = diff(&by_table, &theirs, None);
        assert!(told.notes.iter().any(|note| note.starts_with("measured on other questions")), "{:?}", told.notes);
    }
}

proptest! {
    /// Whatever the answers were, a written table passes its own check.
    #[test]
    fn any_run_gives_a_sound_table(
        seeds in prop::collection::vec((0_u32..40, 0_u8..4, 100.0_f64..400.0, 0.1_f64..9.0, prop::bool::ANY, 1_u32..3), 1..60),
        without_joules in prop::bool::ANY,
    ) {
        let verdicts = [Verdict::Right, Verdict::Wrong, Verdict::Unscored, Verdict::Failed];
        let all: Vec<Asked> = seeds
            .into_iter()
            .map(|(id, v, watts, seconds, short, streams)| {
                let mut a = asked(id, verdicts[usize::from(v)], watts, seconds);
                a.streams = streams;
                if short {
                    (a.output, a.first_s, a.gap_p50_s, a.gap_p99_s) = (None, None, None, None);
                }
                if without_joules {
                    (a.gross_j, a.prefill_j) = (None, None);
                }
                a
            })
            .collect();
        let t = table(&all, about("s"));
        if t.overall.n > 0 {
            prop_assert_eq!(sound(&t), Vec::<String>::new());
        }
        prop_assert!(!show::text(&t).is_empty());
    }
}

fn tables(args: &[&str]) -> (bool, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_wattroute")).arg("tables").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.success(), text(out.stdout), text(out.stderr))
}

#[test]
fn the_command_shows_checks_compares_and_joins() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (a, b, out) = (at("a.json"), at("b.json"), at("out.json"));
    save(&table(&run(0, 60, 3, 50.0), about("one")), a.as_ref()).unwrap();
    save(&table(&run(60, 60, 3, 50.0), about("two")), b.as_ref()).unwrap();
    let (ok, shown, _) = tables(&["show", &a]);
    assert!(
        ok && shown.contains("driver 570.1; power cap 350 W") && shown.contains("J net of the idle machine"),
        "{shown}"
    );
    let (ok, compared, _) = tables(&["diff", &a, &b]);
    assert!(ok && compared.contains("differs in suites: one | two") && compared.contains("within noise"), "{compared}");
    let (ok, json, _) = tables(&["diff", &a, &b, "--json"]);
    assert!(ok && serde_json::from_str::<serde_json::Value>(&json).unwrap()["lines"][0]["quality"] == "within_noise");
    let (ok, joined, _) = tables(&["merge", &a, &b, "--out", &out]);
    assert!(ok && joined.contains("2 tables merged"), "{joined}");
    assert!(tables(&["check", &out]).0);
    let (ok, _, why) = tables(&["merge", &a, &a, "--out", &out]);
    assert!(!ok && why.contains("the same questions are in more than one table"), "{why}");
    let (ok, list, _) = tables(&["show"]);
    let places = ["gpt-oss-120b@sn40l", "qwen3-8b@m4-max", "gpt-5 "].map(|name| list.find(name).unwrap());
    assert!(ok && places.is_sorted(), "best IPJ first, unknown last: {list}");
    std::fs::write(&a, std::fs::read_to_string(&a).unwrap().replace("\"watts\"", "\"wats\"")).unwrap();
    let (ok, said, _) = tables(&["check", &a]);
    assert!(!ok && said.contains("a.json: overall.wats: unknown key; did you mean `watts`?"), "{said}");
}
