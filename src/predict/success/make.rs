//! A fit to what the serving path needs: lines folded and rounded to bytes, cells in the order of the domains.

use std::sync::Arc;

use rayon::prelude::*;

use super::artifact::Success;
use super::lengths::Lengths;
use super::{CELLS, IDF_STEPS, Learned};
use crate::classify::domain::{DOMAINS, NAMES, Posterior};
use crate::classify::features::WORD_BITS;
use crate::predict::fit::dense::DENSE;
use crate::predict::fit::model::{KNOWN, Model, Row, Seen};
use crate::predict::fit::sparse::Line;
use crate::predict::fit::{Place, cells::Cells};

/// One query and what came of it with each model.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The prompt as it was sent.
    pub text: String,
    /// Its domain as the gateway would see it.
    pub posterior: Posterior,
    /// Per model: quality from 0 to 1, and tokens of the answer, where known.
    pub models: Vec<(Option<f64>, Option<f64>)>,
}

/// Fewest outcomes that a model is learned from: below, its table says as much.
pub const FEWEST: usize = 50;

/// Learns a predictor of every model. `tick` is called after each.
///
/// # Errors
/// A quality that is no share, or a model with too few outcomes.
pub fn learn(models: &[String], outcomes: &[Outcome], seed: u64, tick: &(dyn Fn() + Sync)) -> Result<Success, String> {
    let bad = |o: &&Outcome| o.models.iter().any(|(q, _)| q.is_some_and(|q| !(0.0..=1.0).contains(&q)));
    if let Some(odd) = outcomes.iter().find(bad) {
        let start: String = odd.text.chars().take(60).collect();
        return Err(format!("a quality is not between 0 and 1, of the prompt that begins \"{start}\""));
    }
    let seen: Vec<Seen> = outcomes.par_iter().map(|o| Seen::of(&o.text)).collect();
    let places: Vec<Place> = outcomes.iter().map(|o| placed(&o.posterior)).collect();
    let ease: Vec<Option<f64>> = outcomes.iter().map(ease_of).collect();
    let one = |(index, name): (usize, &String)| -> Result<(Vec<f32>, Learned), String> {
        let quality = |o: &Outcome| o.models.get(index).and_then(|m| m.0);
        let rows: Vec<Row> = outcomes
            .iter()
            .zip(seen.iter().zip(&places))
            .zip(&ease)
            .map(|((o, (seen, place)), ease)| Row { seen, place, targets: vec![quality(o)], ease: *ease })
            .collect();
        let known = outcomes.iter().filter(|o| quality(o).is_some()).count();
        if known < FEWEST {
            return Err(format!("{name} has {known} graded outcomes: at least {FEWEST} are needed"));
        }
        let model = Model::fit(&rows.iter().collect::<Vec<_>>(), seed);
        let lengths: Vec<([f32; DENSE], f64)> =
            outcomes.iter().zip(&seen).filter_map(|(o, s)| Some((s.dense, o.models.get(index)?.1?))).collect();
        let mut counts = [0.0; DOMAINS];
        for o in outcomes.iter().filter(|o| quality(o).is_some()) {
            counts.iter_mut().zip(o.posterior.0).for_each(|(n, p)| *n += p);
        }
        tick();
        let head = Learned { counts, lengths: Lengths::fit(&lengths), ..folded(name, known, &model)? };
        Ok((model.parts.idf, head))
    };
    let learned = models.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
    let idf = learned.first().map(|l| l.0.iter().map(|i| rounded(*i)).collect());
    let idf: Vec<u8> = idf.ok_or("there is no model to learn of")?;
    Ok(Success { idf: Arc::new(idf), models: learned.into_iter().map(|l| Arc::new(l.1)).collect() })
}

fn placed(posterior: &Posterior) -> Place {
    let all = NAMES.iter().zip(posterior.0).filter(|(_, p)| *p > 0.0);
    Place { domains: all.map(|(name, p)| (Arc::from(*name), f64::from(p))).collect(), subject: None }
}

fn ease_of(o: &Outcome) -> Option<f64> {
    let known: Vec<f64> = o.models.iter().filter_map(|m| m.0).collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

fn rounded(idf: f32) -> u8 {
    (idf * IDF_STEPS).round().clamp(0.0, 255.0) as u8
}

/// The head's inputs are, in order: two lines, both cells by subject and by domain (the same here), shape, what is known.
fn folded(name: &str, rows: usize, model: &Model) -> Result<Learned, String> {
    let head = model.heads.first().ok_or("the fit has no head")?;
    let ([own, ease], [own_cells, ease_cells]) = (model.parts.lines.as_slice(), model.parts.cells.as_slice()) else {
        return Err("the fit is not of one model".to_owned());
    };
    let [w_own, w_ease, a, b, c, d, rest @ ..] = head.weights.as_slice() else {
        return Err("the head has too few inputs".to_owned());
    };
    let (shape, known) = rest.split_at_checked(DENSE).ok_or("the head has too few inputs")?;
    let weights = together(own, *w_own, ease, *w_ease);
    let (scale, words) = quantised(&weights);
    let mut learned = Learned {
        model: name.to_owned(),
        rows: u32::try_from(rows).unwrap_or(u32::MAX),
        scale,
        words,
        bias: (head.bias + w_own * own.bias + w_ease * ease.bias) as f32,
        own: listed(own_cells),
        ease: listed(ease_cells),
        counts: [0.0; DOMAINS],
        cells: [(a + b) as f32, (c + d) as f32],
        dense: [0.0; DENSE],
        known: [0.0; KNOWN],
        lengths: None,
    };
    learned.dense.iter_mut().zip(shape).for_each(|(to, w)| *to = *w as f32);
    learned.known.iter_mut().zip(known).for_each(|(to, w)| *to = *w as f32);
    Ok(learned)
}

fn together(own: &Line, w_own: f64, ease: &Line, w_ease: f64) -> Vec<f32> {
    let both = own.weights.iter().zip(&ease.weights).take(1 << WORD_BITS);
    both.map(|(a, b)| (w_own * f64::from(*a) + w_ease * f64::from(*b)) as f32).collect()
}

fn quantised(weights: &[f32]) -> (f32, Vec<i8>) {
    let most = weights.iter().fold(0f32, |m, w| m.max(w.abs()));
    let scale = (most / 127.0).max(1e-9);
    (scale, weights.iter().map(|w| (w / scale).round().clamp(-127.0, 127.0) as i8).collect())
}

fn listed(cells: &Cells) -> [f32; CELLS] {
    let mut all = [cells.overall as f32; CELLS];
    for (to, name) in all.iter_mut().zip(NAMES) {
        *to = cells.domains.get(name).copied().unwrap_or(cells.overall) as f32;
    }
    all
}

#[cfg(test)]
mod tests;
