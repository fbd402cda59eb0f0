use super::*;
use crate::classify::Classifier;
use crate::predict::success::artifact::{self, ArtifactError};
use crate::predict::success::{Predictor, Read};

/// Sums are easy, proofs are hard; answers to proofs are long.
fn outcomes(n: usize) -> Vec<Outcome> {
    let mut rng = fastrand::Rng::with_seed(9);
    let things = ["apples", "rivers", "engines", "tables", "birds", "songs"];
    (0..n)
        .map(|i| {
            let hard = rng.bool();
            let thing = things[rng.usize(..things.len())];
            let text = if hard {
                format!("Prove that no set of {i} {thing} is larger than the set of all its parts, and say why.")
            } else {
                format!("What is {i} {thing} plus two {thing}?")
            };
            let right = |p: f64, rng: &mut fastrand::Rng| Some(f64::from(u8::from(rng.f64() < p)));
            let small = right(if hard { 0.15 } else { 0.9 }, &mut rng);
            let large = right(0.9, &mut rng);
            let posterior = Classifier::shipped().calibrated(&text);
            Outcome { text, posterior, models: vec![(small, Some(if hard { 300.0 } else { 30.0 })), (large, None)] }
        })
        .collect()
}

fn names() -> Vec<String> {
    vec!["org/Small-1B".to_owned(), "large".to_owned()]
}

#[test]
fn a_predictor_tells_what_it_learned_and_survives_the_file() {
    let rows = outcomes(400);
    let made = learn(&names(), &rows, 7, &|| ()).unwrap();
    let again = artifact::parse(&artifact::render(&made)).unwrap();
    assert_eq!(artifact::render(&made), artifact::render(&again));
    let small = again.of_model("small-1b").unwrap();
    let ask = |p: &Predictor, text: &str| p.chance(&Read::of(text), &Classifier::shipped().calibrated(text));
    let hard = "Prove that no set of 77 birds is larger than the set of all its parts, and say why.";
    let (a, b) = (ask(&small, hard), ask(&small, "What is 78 birds plus two birds?"));
    assert!(a.mean < 0.35 && b.mean > 0.7, "{a:?} {b:?}");
    assert!(a.low <= a.mean && a.mean <= a.high && a.source == "predictor" && a.n > 0);
    assert!(ask(&again.of_model("large").unwrap(), hard).mean > 0.7);
    let long = small.tokens(&Read::of(hard)).unwrap();
    assert!((long.quantiles[1] - 300.0).abs() < 90.0, "{long:?}");
    assert_eq!(again.of_model("large").unwrap().tokens(&Read::of(hard)), None);
}

#[test]
fn serving_says_what_the_fit_says() {
    let rows = outcomes(300);
    let made = learn(&names(), &rows, 7, &|| ()).unwrap();
    let seen: Vec<Seen> = rows.iter().map(|o| Seen::of(&o.text)).collect();
    let places: Vec<Place> = rows.iter().map(|o| placed(&o.posterior)).collect();
    let given: Vec<Row> = (0..rows.len())
        .map(|i| Row { seen: &seen[i], place: &places[i], targets: vec![rows[i].models[0].0], ease: ease_of(&rows[i]) })
        .collect();
    let model = Model::fit(&given.iter().collect::<Vec<_>>(), 7);
    let served = made.of_model("Small-1B").unwrap();
    for i in 0..rows.len() {
        let fitted = model.chances(&seen[i], &places[i])[0];
        let asked = served.chance(&Read::of(&rows[i].text), &rows[i].posterior).mean;
        assert!((fitted - asked).abs() < 0.02, "{fitted} {asked}");
    }
}

#[test]
fn any_text_gives_a_probability() {
    let small = learn(&names(), &outcomes(120), 7, &|| ()).unwrap().of_model("large").unwrap();
    let long = "x ".repeat(5_000_000);
    for text in ["", "\u{0}\u{1}", "水の沸点は?", long.as_str()] {
        let chance = small.chance(&Read::of(text), &Posterior([f32::MIN_POSITIVE; DOMAINS]));
        assert!((0.0..=1.0).contains(&chance.mean) && chance.low <= chance.high, "{chance:?}");
    }
}

#[test]
fn bad_files_and_bad_outcomes_are_refused() {
    let mut rows = outcomes(120);
    let good = artifact::render(&learn(&names(), &rows, 7, &|| ()).unwrap());
    let mut other = good.clone();
    other[8] = 99;
    assert!(matches!(artifact::parse(&other), Err(ArtifactError::Version(99))));
    let mut torn = good.clone();
    torn[5000] ^= 1;
    assert!(matches!(artifact::parse(&torn), Err(ArtifactError::Checksum)));
    assert!(matches!(artifact::parse(&good[..good.len() - 1]), Err(ArtifactError::Length { .. })));
    assert!(matches!(artifact::parse(b"WRDOMAIN"), Err(ArtifactError::Magic)));
    let unknown = artifact::parse(&good).unwrap().of_model("nobody").unwrap_err().to_string();
    assert!(unknown.contains("org/Small-1B") && unknown.contains("nobody"), "{unknown}");
    rows[3].models[0].0 = Some(f64::NAN);
    assert!(learn(&names(), &rows, 7, &|| ()).unwrap_err().contains("between 0 and 1"));
    rows.truncate(20);
    rows[3].models[0].0 = Some(1.0);
    assert!(learn(&names(), &rows, 7, &|| ()).unwrap_err().contains("at least 50"));
}
