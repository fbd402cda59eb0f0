//! Labels of a user's own, from a few hundred rows to a classifier, and what happens to rows that are wrong.

use super::gist;
use super::noise::HEAVY;
use super::own::{self, Fields};
use super::topics::{self, Aids, Options};
use super::vectors::Vectors;
use crate::classify::gist::{Gist, Mean};
use crate::classify::taxonomy::Taxonomy;
use crate::classify::topics::{VECTOR, file};

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

fn aids<'a>() -> Aids<'a> {
    Aids { gist: Gist::shipped(), vectors: None, tick: &|| () }
}

fn fields() -> Fields {
    Fields { text: "prompt".into(), label: "label".into(), source: None }
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
        topics::fit(&taxonomy, &sides.train, &sides.dev, &Options { seed: 7, epochs: 8, copies: &HEAVY }, &aids())
            .unwrap();
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
        let options = Options { seed: 7, epochs: 2, copies: &HEAVY };
        topics::fit(&taxonomy, &sides.train, &sides.dev, &options, &aids()).map(|(t, _)| file::render(&t))
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
        topics::fit(&taxonomy, &sides.train, &sides.dev, &Options { seed: 7, epochs: 1, copies: &HEAVY }, &aids())
            .unwrap_err();
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

#[test]
fn a_fit_that_stopped_early_is_started_again() {
    use super::dense::{Row, Settings, loss, regress};
    let mut rng = fastrand::Rng::with_seed(5);
    let mut row = || {
        let x: Vec<f32> = (0..12).map(|_| rng.f32() - 0.5).collect();
        let score = |label: usize| (0..12).map(|i| x[i] * ((i * (label + 2)) as f32).sin()).sum::<f32>() * 9.0;
        let label = (0..4).max_by(|a, b| score(*a).total_cmp(&score(*b))).unwrap();
        Row { x, label, weight: 1.0, fold: 0 }
    };
    let rows: Vec<Row> = (0..400).map(|_| row()).collect();
    let misfit = |steps: u64| {
        let settings = Settings { alpha: 0.1, steps, rows: 400.0, seed: 1 };
        let head = regress(&rows.iter().collect::<Vec<_>>(), 4, &settings).unwrap();
        loss(&rows.iter().map(|r| (head.logits(&r.x), r.label, 1.0)).collect::<Vec<_>>(), 1.0)
    };
    assert!(misfit(60) < 0.45, "one start ends at 0.487, whatever steps it is given");
}

#[test]
fn sentence_vectors_that_know_the_label_are_believed_and_kept_once() {
    let taxonomy = Taxonomy::parse(TAXONOMY).unwrap();
    let mut sides = read(&rows()).unwrap();
    sides.train.extend(sides.test.extract_if(.., |s| s.label == 3));
    let all = [&sides.train, &sides.dev, &sides.test];
    let labels: std::collections::HashMap<String, usize> =
        all.into_iter().flatten().map(|s| (s.text.clone(), s.label)).collect();
    let asked = std::cell::Cell::new(0);
    let encode = |texts: &[&str]| -> Result<Vec<Vec<f32>>, String> {
        asked.set(asked.get() + texts.len());
        Ok(texts.iter().map(|t| (0..VECTOR).map(|at| f32::from(u8::from(at == labels[*t]))).collect()).collect())
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("vectors.bin");
    let mut vectors = Vectors::open(&path, &[1; 32]).unwrap();
    assert!(Vectors::open(&path, &[1; 32]).err().unwrap().contains("another training"));
    let texts: Vec<&str> = labels.keys().map(String::as_str).collect();
    let missing = vectors.missing(texts.iter().copied());
    vectors.fill(&missing, &encode, &|_| ()).unwrap();
    drop(vectors);
    // Cut in the middle of the last record: one text is encoded again.
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let mut vectors = Vectors::open(&path, &[1; 32]).unwrap();
    let missing = vectors.missing(texts.iter().copied());
    assert_eq!(missing.len(), 1);
    vectors.fill(&missing, &encode, &|_| ()).unwrap();
    assert_eq!((asked.get(), std::fs::metadata(&path).unwrap().len() as usize), (texts.len() + 1, whole.len()));
    let lookup = |text: &str| vectors.of(text);
    let aids = Aids { vectors: Some(&lookup), ..aids() };
    let (trained, _) =
        topics::fit(&taxonomy, &sides.train, &sides.dev, &Options { seed: 7, epochs: 2, copies: &HEAVY }, &aids)
            .unwrap();
    assert_eq!(file::parse(&file::render(&trained)).unwrap(), trained);
    let said = |label: usize| {
        let mut vector = vec![0.0; VECTOR];
        vector[label] = 1.0;
        trained.sort_with("nothing that was ever said before", &vector).top
    };
    assert_eq!([said(0), said(1), said(2)], [Some(0), Some(1), Some(2)]);
    drop(vectors);
    assert!(Vectors::open(&path, &[2; 32]).err().unwrap().contains("of another encoder"));
    std::fs::write(&path, b"something else").unwrap();
    assert!(Vectors::open(&path, &[1; 32]).err().unwrap().contains("no file of sentence vectors"));
}

#[test]
fn word_vectors_come_near_the_vectors_of_texts() {
    // Every word points its own way; a text's vector is the mean of its words'.
    let words: Vec<String> =
        (0..90u8).map(|i| format!("w{}{}", char::from(b'a' + i / 26), char::from(b'a' + i % 26))).collect();
    let of = |text: &str| -> Option<Vec<f32>> {
        let mut vector = vec![0.0; VECTOR];
        for word in text.split(' ') {
            vector[words.iter().position(|w| w == word)?] += 1.0;
        }
        Some(vector)
    };
    let mut rng = fastrand::Rng::with_seed(4);
    let texts: Vec<String> = (0..600)
        .map(|_| (0..4).map(|_| words[rng.usize(..words.len())].clone()).collect::<Vec<_>>().join(" "))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let chosen = gist::choose(&words[..50], &texts);
    assert_eq!(chosen.len(), words.len(), "the encoder's words, and those that the texts have");
    let table = std::sync::Arc::new(Gist::parse(&gist::fit(&chosen, &texts, &of).unwrap()).unwrap());
    let numbers = |text: &str| {
        let mut mean = Mean::default();
        crate::classify::features::scan(text, |group, batch| {
            if group == crate::classify::features::Group::Whole {
                mean.add(&table, batch);
            }
        });
        mean.numbers()
    };
    let near = |a: &str, b: &str| numbers(a).iter().zip(numbers(b)).map(|(x, y)| x * y).sum::<f32>();
    let [a, b, c, d] = [&words[3], &words[60], &words[7], &words[80]];
    assert!(near(&format!("{a} {b}"), &format!("{b} {a} {c}")) > 0.6);
    assert!(near(&format!("{a} {b}"), &format!("{c} {d}")) < 0.4);
    assert!(gist::fit(&chosen, &texts[..10], &of).is_err());
}
