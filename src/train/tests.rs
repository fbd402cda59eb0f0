//! Labels of a user's own, from a few hundred rows to a classifier, and what happens to rows that are wrong.

use super::own::{self, Fields};
use super::topics::{self, Options};
use crate::classify::taxonomy::Taxonomy;
use crate::classify::topics::file;

const TAXONOMY: &str = r#"
name = "shop"
[[group]]
name = "goods"
[[label]]
name = "bread"
parent = "goods"
[[label]]
name = "tools"
parent = "goods"
[[label]]
name = "invoices"
domain = "Business and financial operations"
[[label]]
name = "seeds"
parent = "goods"
"#;

fn fields() -> Fields {
    Fields { text: "prompt".into(), label: "label".into() }
}

fn read(lines: &[String]) -> Result<own::Sides, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    own::read(&path, &Taxonomy::parse(TAXONOMY).unwrap(), &fields())
}

fn row(label: &str, text: &str) -> String {
    serde_json::json!({ "prompt": text, "label": label }).to_string()
}

/// Hundred rows each of three labels, three of the fourth.
fn rows() -> Vec<String> {
    let mut rng = fastrand::Rng::with_seed(1);
    let words = [
        ("bread", ["flour", "yeast", "oven", "dough", "crust", "rye"]),
        ("tools", ["hammer", "drill", "screw", "saw", "bench", "blade"]),
        ("invoices", ["due", "payment", "reminder", "tax", "account", "total"]),
    ];
    let mut all = Vec::new();
    for (label, words) in words {
        for i in 0..100 {
            let mut word = || words[rng.usize(..words.len())];
            all.push(row(label, &format!("{i}: about {} with {} and the {}", word(), word(), word())));
        }
    }
    all.extend((0..3).map(|i| row("seeds", &format!("{i}: when to sow tomato seeds"))));
    all
}

#[test]
fn a_few_hundred_rows_and_a_label_with_three_make_a_calibrated_classifier() {
    let taxonomy = Taxonomy::parse(TAXONOMY).unwrap();
    let mut sides = read(&rows()).unwrap();
    // All three examples teach, whatever side their hash puts them on.
    sides.train.extend(sides.test.extract_if(.., |s| s.label == 3));
    let (trained, _) =
        topics::fit(&taxonomy, &sides.train, &sides.dev, &Options { seed: 7, epochs: 8 }, (None, &|| ())).unwrap();
    let again = file::parse(&file::render(&trained)).unwrap();
    assert_eq!(again, trained);
    let right = sides.test.iter().filter(|s| again.sort(&s.text).top == Some(s.label)).count();
    assert!(right * 10 >= sides.test.len() * 9, "{right} of {}", sides.test.len());
    let far = again.sort("the reminder of payment is due");
    let p = |l: usize| far.p[l];
    assert_eq!(far.top, Some(2), "{far:?}");
    assert!(p(3) < 0.2, "a thin label must not win by accident: {far:?}");
    let domains = again.taxonomy.onto_domains(&far.p);
    assert_eq!(domains.top().0.name(), "Business and financial operations");
}

#[test]
fn training_twice_gives_the_same_bytes() {
    let taxonomy = Taxonomy::parse(TAXONOMY).unwrap();
    let sides = read(&rows()).unwrap();
    let bytes = || {
        let options = Options { seed: 7, epochs: 2 };
        topics::fit(&taxonomy, &sides.train, &sides.dev, &options, (None, &|| ())).map(|(t, _)| file::render(&t))
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn wrong_rows_are_told_with_their_places() {
    let mut lines = rows();
    lines.insert(1, row("braed", "x y z"));
    lines.insert(3, "not json".into());
    lines.insert(5, r#"{"prompt":3,"label":"bread"}"#.into());
    lines.insert(6, r#"{"label":"bread"}"#.into());
    lines.insert(7, r#"{"prompt":"a loaf","label":"bread","split":"exam"}"#.into());
    let told = read(&lines).err().unwrap();
    for part in [
        ":2: unknown label `braed` in taxonomy `shop` (did you mean `bread`?)",
        ":4:",
        ":6: field `prompt` is not a string",
        ":7: no field `prompt`",
        ":8: unknown split `exam`",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn too_little_is_an_error_that_says_what_is_missing() {
    assert!(read(&rows()[..5]).err().unwrap().contains("at least 20"));
    let taxonomy = Taxonomy::parse(TAXONOMY).unwrap();
    let sides = read(&rows()[..300]).unwrap();
    let why =
        topics::fit(&taxonomy, &sides.train, &sides.dev, &Options { seed: 7, epochs: 1 }, (None, &|| ())).unwrap_err();
    assert!(why.contains("no training example of: seeds"), "{why}");
}

#[test]
fn rows_without_text_are_counted_and_left_out() {
    let mut lines = rows();
    lines.extend([row("bread", ""), row("bread", "\u{0}\u{1}\u{2}")]);
    assert_eq!(read(&lines).unwrap().empty, 2);
}

#[test]
fn a_number_that_is_not_finite_is_an_error() {
    use super::dense::{Row, Settings, regress};
    let row = |x: f32, label| Row { x: vec![1.0, x], label, weight: 1.0, fold: 0 };
    let rows = [row(0.0, 0), row(f32::NAN, 1)];
    let settings = Settings { alpha: 1.0, steps: 5, rows: 10.0, seed: 1 };
    let why = regress(&rows.iter().collect::<Vec<_>>(), 2, &settings).unwrap_err();
    assert_eq!(why, "input 1 of the head is not a finite number");
}
