//! Second answers of a local backend, beside the first one: how far they agree with it.
//!
//! Invariants: they are asked where the first answer was, so that a private query stays; together they wait for their
//! policy's time at most, and what is not there then says nothing; what they take is charged to the query as thrown away.

use std::sync::Arc;

use futures_util::future::join_all;

use super::cascade::Stage;
use crate::api::sampled::{comparable, sampled};
use crate::backend::Backend;
use crate::clock;
use crate::entry::Entry;
use crate::policy::samples::Samples;
use crate::verify::{Trace, agree};

/// Mean agreement of the first answer, or its beginning, with its second ones; none where there is nothing to compare.
pub async fn agreement(
    stage: &Stage<'_>,
    (local, first): (&Arc<Backend>, &Trace),
    samples: &Samples,
    entry: &mut Entry,
) -> Option<f64> {
    let said = first.said().filter(|_| comparable(stage.query))?;
    let seed = stage.decision.draw.unwrap_or(0);
    let each: Vec<_> = (1..=u64::from(samples.count))
        .filter_map(|i| sampled(stage.query, samples.tokens, samples.temperature, seed.wrapping_add(i)))
        .map(|query| (query, Trace::default()))
        .collect();
    let asked = clock::now();
    let end = asked + samples.wait;
    let asking = each.iter().map(|(query, trace)| tokio::time::timeout_at(end, local.ask_watched(query, trace)));
    let answers = join_all(asking).await;
    let mut heard = Vec::new();
    let mut tokens = Vec::new();
    for ((_, trace), answer) in each.iter().zip(answers) {
        let good = matches!(&answer, Ok(Ok(answer)) if answer.status.is_success());
        // One that did not come back may have had all of its tokens.
        tokens.push(if good { trace.tokens() } else { samples.tokens });
        heard.extend(trace.said().filter(|_| good));
    }
    entry.sampled(local, &tokens, asked);
    mean(&said, &heard)
}

/// A second answer that settles on a result is compared by that, any other with as much of the first as it has.
fn mean(said: &str, heard: &[String]) -> Option<f64> {
    let one = |other: &String| {
        if let Some(same) = agree::same_result(said, other) {
            return same;
        }
        let as_much = said.get(..said.floor_char_boundary(other.len())).unwrap_or(said);
        agree::agreement(as_much, other)
    };
    let n = u32::try_from(heard.len()).ok().filter(|n| *n > 0)?;
    Some(heard.iter().map(one).sum::<f64>() / f64::from(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_of_the_first_is_compared_as_the_others_say() {
        let heard = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(mean("it is four, because two and two are", &heard(&["it is four", "it is four"])), Some(1.0));
        assert_eq!(mean("four", &heard(&["four", "five"])), Some(0.5));
        assert_eq!(mean("four", &[]), None);
        let worked = "Two and two are four, and one more is five. The answer is 5.";
        assert_eq!(
            mean(worked, &heard(&["Count them. The answer is 5", "Two and two are four. The answer is 4"])),
            Some(0.5)
        );
    }
}
