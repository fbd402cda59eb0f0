//! Microseconds of the classifier for a query of 1 KB, a short one and a long one, on one thread.
//!
//! `cargo bench --bench classify`. Different texts in turn, so that neither the branch predictor nor the cache knows them.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use wattroute::classify::Classifier;
use wattroute::classify::labelled;

fn classify(c: &mut Criterion) {
    let classifier = Classifier::shipped();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("eval/data/domain");
    let all = labelled::load(&folder).unwrap_or_default();
    for (name, low, high) in [("60 bytes", 50, 70), ("1 KB", 950, 1100), ("4 KB", 3000, 5000)] {
        let texts: Vec<&str> =
            all.iter().map(|e| e.text.as_str()).filter(|t| (low..=high).contains(&t.len())).take(200).collect();
        if texts.is_empty() {
            continue;
        }
        let mut turn = texts.iter().cycle();
        c.bench_function(&format!("classify/{name}"), |b| {
            b.iter(|| turn.next().map(|text| classifier.posterior(black_box(text))));
        });
    }
}

criterion_group!(benches, classify);
criterion_main!(benches);
