//! The shipped artifact against the committed held-out sets, and against everything that is no text.

use std::path::Path;

use serde_json::Value;

use super::Classifier;
use super::artifact::ArtifactError;
use super::domain::Domain;
use super::labelled::{self, Example, Split};
use super::measure::{self, Change};
use super::topics::AEI_BYTES;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn examples() -> Vec<Example> {
    labelled::load(&root().join("eval/data/domain")).unwrap()
}

fn published() -> Value {
    serde_json::from_slice(&std::fs::read(root().join("eval/artifacts/domain.json")).unwrap()).unwrap()
}

#[test]
fn held_out_accuracy_is_what_the_provenance_says() {
    let figures = published();
    let shipped = Classifier::shipped();
    for held in measure::held(&examples(), Split::Test) {
        let score = measure::score(&shipped, &held.rows);
        let told = &figures["figures"]["test"][held.name];
        assert_eq!(told["n"], score.n, "{}", held.name);
        let correct = told["correct"].as_f64().unwrap();
        // Floating-point sums may differ between processors in the last bit; a tie may then fall the other way.
        let near = 1.0 + 0.003 * score.n as f64;
        assert!((score.correct as f64 - correct).abs() <= near, "{}: {} against {correct}", held.name, score.correct);
        assert!((score.ece - told["ece"].as_f64().unwrap()).abs() < 0.01, "{}", held.name);
    }
}

#[test]
fn floors_of_quality_hold() {
    let (all, shipped) = (examples(), Classifier::shipped());
    let floors = [
        ("MMLU-Pro, question only", 0.80, 0.10),
        ("MMLU-Pro, with options", 0.84, 0.06),
        ("O*NET tasks, unseen occupations", 0.51, 0.10),
        ("Acts, never trained on", 0.55, 0.25),
        ("MT-Bench, never trained on", 0.50, 0.25),
        ("chat", 0.74, 0.30),
    ];
    let held = measure::held(&all, Split::Test);
    for (name, accuracy, ece) in floors {
        let rows = &held.iter().find(|h| h.name == name).unwrap().rows;
        let score = measure::score(&shipped, rows);
        assert!(score.accuracy() >= accuracy, "{name}: accuracy {}", score.accuracy());
        assert!(score.ece <= ece, "{name}: calibration error {}", score.ece);
        let then = score.answered_correct as f64 / score.answered as f64;
        assert!(then >= score.accuracy(), "{name}: abstention must not make the rest worse");
    }
}

#[test]
fn casing_changes_little_and_typos_cost_a_bounded_share() {
    let held = measure::held(&examples(), Split::Test);
    let shipped = Classifier::shipped();
    let rows = &held.iter().find(|h| h.name == "MMLU-Pro, question only").unwrap().rows;
    let plain = measure::score(&shipped, rows).accuracy();
    for (change, loss) in [(Change::Upper, 0.08), (Change::Lower, 0.02), (Change::Typos, 0.10)] {
        let after = measure::score(&shipped, &measure::changed(rows, change)).accuracy();
        assert!(plain - after <= loss, "{change:?}: {plain} to {after}");
    }
}

#[test]
fn most_decisions_stay_when_a_question_is_typed_or_put_otherwise() {
    let held = measure::held(&examples(), Split::Test);
    let shipped = Classifier::shipped();
    let decided = |text: &str| shipped.topics().unwrap().sort(text).top;
    for (name, floor) in [("MMLU-Pro, question only", 0.90), ("chat", 0.85)] {
        let told = &published()["figures"]["decisions_kept"][name];
        let rows = &held.iter().find(|h| h.name == name).unwrap().rows;
        for (change, as_told) in
            [(Change::Lower, "no capitals"), (Change::Typos, "misspelt"), (Change::Reworded, "reworded")]
        {
            let same = rows.iter().filter(|(text, _)| decided(text) == decided(&measure::spoilt(text, change))).count();
            let share = same as f64 / rows.len() as f64;
            assert!(share >= floor, "{name}, {as_told}: {share}");
            assert!((share - told[as_told].as_f64().unwrap()).abs() < 0.01, "{name}, {as_told}: {share}");
        }
    }
}

#[test]
fn no_text_leaves_its_split() {
    let all = examples();
    let trained: std::collections::HashSet<&str> =
        all.iter().filter(|e| e.split == Split::Train).map(|e| e.text.trim()).collect();
    for e in all.iter().filter(|e| e.split == Split::Test && !e.id.starts_with("onet/") && !e.id.starts_with("mmlu")) {
        assert!(!trained.contains(e.text.trim()), "{}", e.id);
    }
    let side = |split| -> std::collections::HashSet<&str> {
        all.iter()
            .filter(|e| e.split == split)
            .filter_map(|e| e.id.strip_prefix("onet/"))
            .filter_map(|s| s.split('/').next())
            .collect()
    };
    assert!(side(Split::Train).is_disjoint(&side(Split::Test)), "an occupation is on one side only");
    assert!(side(Split::Train).is_disjoint(&side(Split::Dev)));
}

#[test]
fn the_artifact_is_the_one_the_provenance_names() {
    let told = published();
    assert_eq!(told["artifact"]["blake3"], blake3::hash(AEI_BYTES).to_hex().as_str());
    for (name, hash) in told["data_blake3"].as_object().unwrap() {
        let content = std::fs::read(root().join("eval/data/domain").join(name)).unwrap();
        assert_eq!(hash, blake3::hash(&content).to_hex().as_str(), "{name} changed after training");
    }
    assert!(AEI_BYTES.len() < 10_000_000);
}

#[test]
fn the_same_text_gives_the_same_bits() {
    let again = Classifier::parse(AEI_BYTES).unwrap();
    for e in examples().iter().step_by(97) {
        assert_eq!(Classifier::shipped().posterior(&e.text).0, again.posterior(&e.text).0);
    }
}

#[test]
fn any_text_gives_a_distribution() {
    let shipped = Classifier::shipped();
    let mut texts: Vec<String> = [
        "",
        " ",
        "\0",
        "?",
        "\u{feff}",
        "a",
        "🙂🙂🙂",
        "水の沸点は何度ですか",
        "ما هي عاصمة فرنسا؟",
        "Что такое интеграл?",
        "e\u{301}\u{301}\u{301}",
        "'''''",
        "<<<>>>",
        "\n\n\n\n",
        "\u{202e}abc",
        "a'b'c'",
        "____",
    ]
    .map(String::from)
    .into();
    texts.push("water ".repeat(2_000_000));
    texts.push("x".repeat(10_000_000));
    texts.push("é".repeat(5_000_000));
    texts.push("\u{1}\u{2}\u{3}".repeat(100_000));
    let mut rng = fastrand::Rng::with_seed(11);
    texts.extend((0..300).map(|_| {
        let bytes: Vec<u8> = (0..rng.usize(0..3_000)).map(|_| rng.u8(..)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }));
    for text in &texts {
        let p = shipped.posterior(text);
        let total: f32 = p.0.iter().sum();
        let shown: String = text.chars().take(20).collect();
        assert!((total - 1.0).abs() < 1e-3 && p.0.iter().all(|v| (0.0..=1.0).contains(v)), "{shown:?}: {total}");
    }
    for void in ["", " ", "\0", "?"] {
        let (top, p) = shipped.posterior(void).top();
        assert!(top == Domain::NONE, "{void:?}: {top} {p}");
    }
}

#[test]
fn an_artifact_of_another_taxonomy_is_refused() {
    let other = std::fs::read(root().join("eval/artifacts/mmlu-pro.bin")).unwrap();
    let told = Classifier::parse(&other).err().unwrap().to_string();
    assert!(told.contains("`mmlu-pro`, not by `aei`"), "{told}");
    assert!(matches!(Classifier::load(Path::new("/no/such/artifact")), Err(ArtifactError::Read { .. })));
}

#[test]
fn a_vector_that_cannot_be_used_leaves_the_fast_answer() {
    let shipped = Classifier::shipped();
    assert!(shipped.ask_below().is_some_and(|m| (0.0..=1.0).contains(&m)));
    for text in ["What is a tort?", "", "bake bread"] {
        let (fast, margin) = shipped.fast(text);
        assert_eq!(fast.0, shipped.posterior(text).0);
        assert!((0.0..=1.0).contains(&margin));
        for bad in [vec![], vec![0.0; 3], vec![f32::NAN; super::topics::VECTOR]] {
            assert_eq!(shipped.posterior_with(text, &bad).top(), shipped.posterior(text).top(), "{text:?}");
        }
    }
    assert_eq!(shipped.fast("").1, 1.0, "nothing to ask about");
}

#[test]
fn abstention_moves_at_least_half_to_none() {
    let flat = super::Posterior([1.0 / super::domain::DOMAINS as f32; super::domain::DOMAINS]);
    let after = super::abstain(flat, 0.3);
    assert_eq!(after.top().0, Domain::NONE);
    assert!(after.of(Domain::NONE) >= 0.5);
    assert!((after.0.iter().sum::<f32>() - 1.0).abs() < 1e-5);
}
