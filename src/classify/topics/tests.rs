//! The shipped classifier of MMLU-Pro against its published figures, and against everything that is no text.

use std::path::Path;

use super::{Head, Topics, VECTOR, file};
use crate::classify::artifact::ArtifactError;
use crate::classify::labelled::{self, Set, Split};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shipped() -> std::sync::Arc<Topics> {
    Topics::shipped("mmlu-pro").unwrap()
}

#[test]
fn held_out_accuracy_is_what_the_provenance_says() {
    let told: serde_json::Value =
        serde_json::from_slice(&std::fs::read(root().join("eval/artifacts/mmlu-pro.json")).unwrap()).unwrap();
    assert_eq!(told["artifact"]["blake3"], blake3::hash(super::MMLU_PRO_BYTES).to_hex().as_str());
    let data = std::fs::read(root().join("eval/data/domain/mmlu_pro.jsonl.gz")).unwrap();
    assert_eq!(told["data_blake3"], blake3::hash(&data).to_hex().as_str(), "the data changed after training");
    // Rows without an honest domain are not in this list, so a selection of the published set is measured again.
    let topics = shipped();
    let of_domain = |name: &str| topics.taxonomy.labels.iter().position(|l| l.name == name).unwrap();
    let all = labelled::load(&root().join("eval/data/domain")).unwrap();
    let law: Vec<_> = all
        .iter()
        .filter(|e| e.set == Set::MmluPro && e.split == Split::Test && e.domain.name() == "Legal services")
        .collect();
    let found = law.iter().filter(|e| topics.sort(&e.text).top == Some(of_domain("law"))).count();
    let published: Vec<u64> = told["figures"]["confusion"][of_domain("law")]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_u64().unwrap())
        .collect();
    assert_eq!(law.len() as u64, published.iter().sum::<u64>());
    assert!((found as i64 - published[of_domain("law")] as i64).abs() <= 2, "{found} of {published:?}");
    let figures = &told["figures"];
    assert!(figures["test"]["accuracy"].as_f64().unwrap() >= 0.79);
    assert!(figures["test, with options"]["accuracy"].as_f64().unwrap() >= 0.84);
}

#[test]
fn any_text_gives_a_distribution_or_nothing() {
    let topics = shipped();
    let mut texts: Vec<String> = [
        "",
        " ",
        "\0",
        "?",
        "🙂🙂🙂",
        "水の沸点は何度ですか",
        "ما هي عاصمة فرنسا؟",
        "Что такое интеграл?",
        "\u{202e}abc",
    ]
    .map(String::from)
    .into();
    texts.push("water ".repeat(2_000_000));
    texts.push("x".repeat(10_000_000));
    texts.push("\u{1}\u{2}\u{3}".repeat(100_000));
    let mut rng = fastrand::Rng::with_seed(11);
    texts.extend((0..200).map(|_| {
        let bytes: Vec<u8> = (0..rng.usize(0..3_000)).map(|_| rng.u8(..)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }));
    for text in &texts {
        let sorted = topics.sort(text);
        let shown: String = text.chars().take(20).collect();
        let total: f32 = sorted.p.iter().sum();
        let want = if sorted.top.is_some() { 1.0 } else { 0.0 };
        assert!((total - want).abs() < 1e-3 && sorted.p.iter().all(|p| (0.0..=1.0).contains(p)), "{shown:?}: {total}");
        let mapped: f32 = topics.taxonomy.onto_domains(&sorted.p).0.iter().sum();
        assert!((mapped - 1.0).abs() < 1e-3, "{shown:?}");
    }
    for void in ["", " ", "\0", "?"] {
        assert_eq!((topics.sort(void).top, topics.sort(void).margin()), (None, 1.0), "{void:?}");
    }
}

#[test]
fn numbers_that_are_not_finite_choose_no_label() {
    let head = Head { weights: vec![1.0; 4], bias: vec![0.0; 2], temperature: 1.0, threshold: 0.5 };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let sorted = head.sorted(head.logits(&[bad, 1.0]));
        assert_eq!((sorted.top, sorted.sure, sorted.p), (None, false, vec![0.0; 2]));
    }
    let topics = shipped();
    let plain = topics.sort("What is a tort?");
    assert_eq!(topics.sort_with("What is a tort?", &[f32::NAN; VECTOR]), plain, "a broken vector counts as none");
    assert_eq!(topics.sort_with("What is a tort?", &[0.0; 3]), plain);
}

#[test]
fn a_changed_cut_or_foreign_artifact_is_refused() {
    let mut bytes = super::MMLU_PRO_BYTES.to_vec();
    assert_eq!(file::render(&file::parse(&bytes).unwrap()), bytes);
    let mut rng = fastrand::Rng::with_seed(5);
    let places = (0..64).chain((0..40).map(|_| rng.usize(64..bytes.len()))).collect::<Vec<_>>();
    for at in places {
        bytes[at] ^= 1 << (at % 8);
        assert!(file::parse(&bytes).is_err(), "byte {at}");
        bytes[at] ^= 1 << (at % 8);
    }
    for cut in [0, 1, 7, 8, 12, 55, 56, 57, 1000, bytes.len() - 1] {
        assert!(file::parse(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    bytes[8] = 9;
    let told = file::parse(&bytes).unwrap_err().to_string();
    assert!(told.contains("version 9") && told.contains("train domain"), "{told}");
    assert!(matches!(file::parse(b"WRDOMAIN"), Err(ArtifactError::Magic)));
    let others = std::sync::Arc::new(crate::classify::gist::Gist::default());
    let told = file::parse_with(super::MMLU_PRO_BYTES, others).unwrap_err().to_string();
    assert!(told.contains("word vectors"), "heads are for one table: {told}");
    assert!(matches!(Topics::load(Path::new("/no/such/artifact")), Err(ArtifactError::Read { .. })));
}
