//! P(correct | backend, query), learned from outcomes. Default build, our own small solvers, the same result for a seed.
//!
//! Parts, per target: a sparse line over the classifier's hashed words ([`sparse`]); the same for *ease*, the share of all
//! models that got a row right, which is less noisy than one model's outcome; shrunk means of domain and subject ([`cells`]);
//! the shape of the prompt ([`dense`]). A dense logistic head ([`head`]) joins and calibrates them. It is fitted on parts that
//! did not see the row: inner folds, split by stem so that near-duplicates stay together.
//!
//! For a pair of backends *gain*, strong minus weak, is a target of its own: it orders queries better than the difference of
//! two fits. Pure; nothing here is on the request path.

pub mod cells;
pub mod dense;
pub mod descent;
pub mod head;
pub mod model;
pub mod sparse;

use rayon::prelude::*;

pub use self::cells::Place;
pub use self::model::{Model, Row, Seen};

/// One query and what came of it on both sides of a pair.
#[derive(Clone, Debug, Default)]
pub struct Example {
    /// The prompt as it would be sent, options included.
    pub text: String,
    /// Labelled domain, or a posterior; a subject if one is known.
    pub place: Place,
    /// Quality of the weak side from 0 to 1; none where it did not answer.
    pub weak: Option<f64>,
    /// The same of the strong side.
    pub strong: Option<f64>,
    /// Mean quality over all models that answered this query, if there are more of them.
    pub ease: Option<f64>,
}

impl Example {
    fn ease(&self) -> Option<f64> {
        let own = self.weak.zip(self.strong).map(|(w, s)| f64::midpoint(w, s));
        self.ease.or(own).or(self.weak).or(self.strong)
    }
}

/// Both sides of a pair.
#[derive(Clone, Debug)]
pub struct Fitted {
    model: Model,
}

impl Fitted {
    /// Fits a pair of backends on outcomes.
    pub fn fit(rows: &[Example], seed: u64) -> Self {
        let seen: Vec<Seen> = rows.par_iter().map(|r| Seen::of(&r.text)).collect();
        let all: Vec<Row> = rows.iter().zip(&seen).map(|(r, s)| row(r, s)).collect();
        Self { model: Model::fit(&all.iter().collect::<Vec<_>>(), seed) }
    }

    /// P(correct) of the weak and the strong side.
    pub fn p(&self, text: &str, place: &Place) -> [f32; 2] {
        joined(&self.model.chances(&Seen::of(text), place))
    }
}

/// Out-of-fold P(correct) of the weak and the strong side, row by row: nothing of a row, and of no row with the same stem, was
/// used to predict it. The difference of the two orders rows by expected gain.
pub fn cross_fit(rows: &[Example], folds: u32, seed: u64) -> Vec<[f32; 2]> {
    let seen: Vec<Seen> = rows.par_iter().map(|r| Seen::of(&r.text)).collect();
    let all: Vec<Row> = rows.iter().zip(&seen).map(|(r, s)| row(r, s)).collect();
    let folds = folds.max(2);
    let parts: Vec<u32> = all.iter().map(|r| r.seen.fold(folds, seed)).collect();
    let fitted: Vec<Vec<(usize, [f32; 2])>> = (0..folds)
        .into_par_iter()
        .map(|fold| {
            let others: Vec<&Row> = all.iter().zip(&parts).filter(|(_, p)| **p != fold).map(|(r, _)| r).collect();
            let own = all.iter().zip(&parts).enumerate().filter(|(_, (_, p))| **p == fold);
            let model = Model::fit(&others, seed);
            own.map(|(i, (r, _))| (i, joined(&model.chances(r.seen, r.place)))).collect()
        })
        .collect();
    let mut out = vec![[0.0; 2]; rows.len()];
    for (i, p) in fitted.into_iter().flatten() {
        if let Some(to) = out.get_mut(i) {
            *to = p;
        }
    }
    out
}

fn row<'a>(example: &'a Example, seen: &'a Seen) -> Row<'a> {
    Row { seen, place: &example.place, targets: targets(example.weak, example.strong), ease: example.ease() }
}

/// Targets of a pair's [`Model`]: weak, strong, gain (moved to 0 to 1).
pub fn targets(weak: Option<f64>, strong: Option<f64>) -> Vec<Option<f64>> {
    let gain = weak.zip(strong).map(|(w, s)| 0.5 + 0.5 * (s - w));
    vec![weak, strong, gain]
}

/// P(correct) of the weak and the strong side from the chances of [`targets`]:
/// the two moved apart or together until their difference is the mean of itself and of the fitted gain.
pub fn joined(chances: &[f64]) -> [f32; 2] {
    let &[weak, strong, gain] = chances else { return [0.5; 2] };
    let middle = f64::midpoint(weak, strong);
    let gap = f64::midpoint(strong - weak, 2.0 * gain - 1.0);
    [(middle - gap / 2.0).clamp(0.0, 1.0) as f32, (middle + gap / 2.0).clamp(0.0, 1.0) as f32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::quality;

    /// Long prompts about `hard` things need the strong side.
    fn made(n: usize) -> Vec<Example> {
        let mut rng = fastrand::Rng::with_seed(3);
        (0..n)
            .map(|i| {
                let hard = rng.bool();
                let words = ["tree", "river", "stone", "cloud", "grass", "bird", "road", "house"];
                let text: Vec<&str> = (0..if hard { 30 } else { 8 }).map(|_| words[rng.usize(..8)]).collect();
                let text = format!("{} number {i}: {}", if hard { "prove" } else { "name" }, text.join(" "));
                let weak = rng.f64() < if hard { 0.2 } else { 0.9 };
                let (weak, strong) = (f64::from(u8::from(weak)), f64::from(u8::from(rng.f64() < 0.9)));
                let place = Place::labelled("d", Some("s"));
                Example { text, place, weak: Some(weak), strong: Some(strong), ease: None }
            })
            .collect()
    }

    #[test]
    fn what_is_hard_is_foreseen_and_chances_are_honest() {
        let rows = made(600);
        let found = cross_fit(&rows, 5, 7);
        let wrong: Vec<bool> = rows.iter().map(|r| r.weak == Some(0.0)).collect();
        let risk: Vec<f64> = found.iter().map(|p| f64::from(p[1] - p[0])).collect();
        assert!(quality::auc(&risk, &wrong).unwrap() > 0.8);
        let chance: Vec<f64> = found.iter().map(|p| f64::from(p[0])).collect();
        let right: Vec<bool> = wrong.iter().map(|w| !w).collect();
        assert!(quality::ece(&chance, &right, 10).unwrap() < 0.08);
    }

    #[test]
    fn a_seed_gives_the_same_bits_and_a_row_never_teaches_itself() {
        let mut rows = made(200);
        let first = cross_fit(&rows, 5, 7);
        assert_eq!(first, cross_fit(&rows, 5, 7));
        // The outcome of a row changes others' predictions, not its own.
        rows[17].weak = rows[17].weak.map(|w| 1.0 - w);
        let second = cross_fit(&rows, 5, 7);
        assert_eq!(first[17], second[17]);
        assert_ne!(first, second);
    }

    #[test]
    fn near_duplicates_share_a_fold() {
        let fold = |t: &str| Seen::of(t).fold(5, 7);
        assert_eq!(fold("How many eggs are left?"), fold("  how many EGGS are left "));
        assert_eq!(fold("Which one?\nA. red\nB. blue"), fold("Which one?\nA. blue\nB. red"));
        let folds: std::collections::BTreeSet<u32> = (0..50).map(|i| fold(&format!("question {i}"))).collect();
        assert_eq!(folds.len(), 5);
    }

    #[test]
    fn no_rows_one_row_and_one_sided_rows_are_defined() {
        assert!(cross_fit(&[], 5, 1).is_empty());
        let mut rows = made(30);
        assert!(cross_fit(&rows[..1], 5, 1).iter().flatten().all(|p| p.is_finite()));
        rows.iter_mut().for_each(|r| (r.weak, r.strong) = (Some(1.0), None));
        rows.push(Example::default());
        let all = cross_fit(&rows, 5, 1);
        assert!(all.iter().flatten().all(|p| (0.0..=1.0).contains(p)), "{all:?}");
        let fitted = Fitted::fit(&rows, 1);
        assert!(fitted.p("anything at all", &Place::default())[0] > 0.6);
    }
}
