//! The order in which a plan's questions are asked, and which of them are left. Pure.

use std::collections::{BTreeSet, VecDeque};

use super::level::Place;
use super::pick::Item;
use super::record::Key;
use super::run::Plan;

/// Questions to ask in all, each as often as it is asked.
pub fn total(plan: &Plan) -> u64 {
    let each = plan.items.len().saturating_mul(plan.streams.len());
    u64::try_from(each).unwrap_or(u64::MAX).saturating_mul(u64::from(plan.repeats))
}

fn places(plan: &Plan) -> impl Iterator<Item = (Place, &Item)> {
    (0..plan.repeats).flat_map(move |repeat| {
        let items = plan.items.iter().enumerate();
        items.map(move |(index, item)| (Place { item: index, repeat, attempts: 0, failed: false }, item))
    })
}

fn key(place: Place, item: &Item, streams: u32) -> Key {
    (item.suite.to_string(), item.question.id.clone(), place.repeat, streams)
}

/// The keys of everything that the plan asks.
pub fn wanted(plan: &Plan) -> BTreeSet<Key> {
    let each = |streams: &u32| places(plan).map(|(place, item)| key(place, item, *streams)).collect::<Vec<_>>();
    plan.streams.iter().flat_map(each).collect()
}

/// What is to be asked at a level. Questions that failed in an earlier run come last: they may fail for ever.
pub fn left(plan: &Plan, streams: u32, settled: &BTreeSet<Key>, failed: &BTreeSet<Key>) -> VecDeque<Place> {
    let keyed = places(plan).map(|(place, item)| (key(place, item, streams), place));
    let (mut first, mut last) = (VecDeque::new(), VecDeque::new());
    for (key, place) in keyed.filter(|(key, _)| !settled.contains(key)) {
        if failed.contains(&key) {
            last.push_back(Place { failed: true, ..place });
        } else {
            first.push_back(place);
        }
    }
    first.extend(last);
    first
}
