//! What a token costs, and what a query costs beside others. Pure.

use std::collections::BTreeMap;

use super::fit::{self, Point};
use super::make::{Asked, metered, whole};
use super::sample::{count, mean, mean_interval, quantile};
use super::{Level, TokenCosts};

/// Costs of a token: the line through the queries, or the phases where no line can be drawn.
pub fn tokens(scored: &[&Asked], relative_uncertainty: Option<f64>) -> TokenCosts {
    let ratio = |a: f64, b: f64| Some(a / b).filter(|x| x.is_finite() && *x > 0.0);
    // Sums over the queries that know both figures.
    let per = |f: &dyn Fn(&Asked) -> Option<f64>, g: &dyn Fn(&Asked) -> Option<f64>| {
        let both = scored.iter().filter_map(|a| f(a).zip(g(a)));
        let (x, y) = both.fold((0.0, 0.0), |s, (x, y)| (s.0 + x, s.1 + y));
        ratio(x, y)
    };
    let known = metered(scored).unwrap_or_default();
    let watts: Option<Vec<f64>> = known.iter().map(|a| a.watts()).collect();
    let mut costs = TokenCosts {
        relative_uncertainty,
        ttft_s: per(&|a| a.first_s, &|_| Some(1.0)),
        input_tokens_per_s: per(&|a| a.input, &|a| a.first_s),
        output_tokens_per_s: per(&|a| a.output, &|a| a.rest_s()),
        watts: watts.and_then(|w| mean(&w)).filter(|w| *w > 0.0),
        ..TokenCosts::default()
    };
    if known.is_empty() {
        return costs;
    }
    let point = |a: &&Asked| Some(Point { input: a.input?, output: a.output?, joules: a.gross_j? });
    match fit::tokens(&known.iter().filter_map(point).collect::<Vec<_>>()) {
        Ok(line) => {
            costs.joules_per_input_token = Some(line.input.value);
            costs.joules_per_output_token = Some(line.output.value);
            costs.input_interval = Some([line.input.low, line.input.high]);
            costs.output_interval = Some([line.output.low, line.output.high]);
            costs.method = Some("regression".to_owned());
            costs.r2 = Some(line.r2).filter(|r| *r > 0.0);
        }
        Err(why) => {
            costs.joules_per_input_token = per(&|a| a.prefill_j, &|a| a.input);
            costs.joules_per_output_token = per(&|a| a.decode_j, &|a| a.output);
            costs.method = Some("phases".to_owned());
            costs.refused = Some(why);
        }
    }
    costs
}

/// One level per number of queries at a time, if there is more than one.
pub fn levels(all: &[Asked]) -> BTreeMap<u32, Level> {
    let mut by_streams: BTreeMap<u32, Vec<&Asked>> = BTreeMap::new();
    for asked in all.iter().filter(|a| a.scored()) {
        by_streams.entry(asked.streams).or_default().push(asked);
    }
    if by_streams.len() < 2 {
        return BTreeMap::new();
    }
    by_streams.into_iter().map(|(streams, asked)| (streams, level(streams, &asked))).collect()
}

fn level(streams: u32, asked: &[&Asked]) -> Level {
    let joules = metered(asked).map(|known| known.iter().filter_map(|a| a.gross_j).collect::<Vec<_>>());
    let joules = joules.filter(|j| j.iter().sum::<f64>() > 0.0);
    let mut first: Vec<f64> = asked.iter().filter_map(|a| a.first_s).filter(|s| *s > 0.0).collect();
    first.sort_unstable_by(f64::total_cmp);
    let both = asked.iter().filter_map(|a| a.gross_j.zip(a.output));
    let (spent, written) = both.fold((0.0, 0.0), |s, (j, o)| (s.0 + j, s.1 + o));
    let output: f64 = asked.iter().filter_map(|a| a.output).sum();
    let seconds = asked.iter().map(|a| a.seconds).sum::<f64>();
    let above = |x: f64| Some(x).filter(|x| x.is_finite() && *x > 0.0);
    Level {
        n: whole(asked.len()),
        joules_per_query: joules.as_deref().and_then(mean),
        joules_interval: joules.as_deref().and_then(mean_interval),
        joules_per_output_token: joules.and_then(|_| above(spent / written)),
        seconds_per_query: above(seconds / count(asked.len())),
        // So many at a time are under way for all of these seconds together.
        output_tokens_per_s: above(output / seconds * f64::from(streams)),
        ttft_p50_s: quantile(&first, 0.5),
    }
}
