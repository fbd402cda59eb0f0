//! What a classifier is worth on texts of sources that it was not trained on.
//!
//! Every label's sources are dealt to parts, large ones first; a part's texts are sorted by a classifier that was trained
//! without them. Texts are left out whose label loses more than half of its examples with the part: what is asked is whether
//! other wording is understood, not whether a label can do without examples.

use std::collections::{BTreeMap, HashMap};

use super::topics::{self, Aids, Options, Sample};
use crate::classify::taxonomy::Taxonomy;
use crate::classify::topics::Topics;

/// Parts; each costs a training.
pub const PARTS: usize = 4;

/// A classifier and what it may be measured on, by the numbers of the given samples.
pub struct Part {
    /// Trained without the part.
    pub topics: Topics,
    /// Places of its texts among the samples that were to be measured.
    pub places: Vec<usize>,
}

/// Trains [`PARTS`] times; the places of `measured` are dealt out.
pub fn fit(
    taxonomy: &Taxonomy,
    [train, dev, measured]: [&[Sample]; 3],
    options: &Options,
    aids: &Aids,
) -> Result<Vec<Part>, String> {
    let dealt = deal(train);
    if dealt.values().all(|part| *part == 0) {
        return Err("the rows are all of one source".into());
    }
    let part_of = |s: &Sample| dealt.get(&(s.label, s.source)).copied();
    let mut all = Vec::new();
    for part in 0..PARTS {
        let without =
            |from: &[Sample]| -> Vec<Sample> { from.iter().filter(|s| part_of(s) != Some(part)).cloned().collect() };
        let kept = without(train);
        let count = |from: &[Sample], label: usize| from.iter().filter(|s| s.label == label).count();
        let fair: Vec<bool> = (0..taxonomy.labels.len()).map(|l| 2 * count(&kept, l) >= count(train, l)).collect();
        let fits = |s: &Sample| part_of(s) == Some(part) && fair.get(s.label) == Some(&true);
        let places: Vec<usize> = measured.iter().enumerate().filter(|(_, s)| fits(s)).map(|(at, _)| at).collect();
        let (topics, _) = topics::fit(taxonomy, &kept, &without(dev), options, aids)?;
        all.push(Part { topics, places });
    }
    Ok(all)
}

/// Part of every source of every label.
fn deal(train: &[Sample]) -> HashMap<(usize, u64), usize> {
    let mut sizes: BTreeMap<usize, BTreeMap<u64, usize>> = BTreeMap::new();
    for s in train {
        *sizes.entry(s.label).or_default().entry(s.source).or_default() += 1;
    }
    let mut dealt = HashMap::new();
    for (label, sources) in sizes {
        let mut sources: Vec<(u64, usize)> = sources.into_iter().collect();
        sources.sort_by_key(|(source, n)| (std::cmp::Reverse(*n), *source));
        let mut loads = [0usize; PARTS];
        for (source, n) in sources {
            let least = (0..PARTS).min_by_key(|part| loads.get(*part).copied()).unwrap_or(0);
            if let Some(load) = loads.get_mut(least) {
                *load += n;
            }
            dealt.insert((label, source), least);
        }
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_dealt_evenly_and_stay_whole() {
        let sample = |label, source| Sample { text: String::new(), label, weight: 1.0, fold: 0, source };
        let sizes = [(1u64, 9usize), (2, 5), (3, 4), (4, 3), (5, 2), (6, 2)];
        let train: Vec<Sample> =
            sizes.iter().flat_map(|(source, n)| (0..*n).map(|_| sample(0, *source))).chain([sample(1, 1)]).collect();
        let dealt = deal(&train);
        let load = |part: usize| -> usize { sizes.iter().filter(|(s, _)| dealt[&(0, *s)] == part).map(|s| s.1).sum() };
        assert_eq!((0..PARTS).map(load).collect::<Vec<_>>(), [9, 5, 6, 5]);
        assert_eq!(dealt[&(1, 1)], 0);
    }
}
