//! Who used the joules: energy between samples shared among the queries that ran, to the last joule. Pure.
//!
//! Energy is a line between two samples, cut at every start, first token and end. Within a piece the queries that run share
//! it by tokens x phase: a query's weight is the tokens of its phase over the phase's length, times what such a token
//! costs. *Gross* shares everything; *net* leaves the idle machine's watts out. What is spent while nobody runs is
//! unattributed. Invariant (conservation): gross shares + unattributed = the rail's delta over the window.

use crate::energy::series::Series;

/// What one token costs relative to another phase's; only the ratio matters. Reading a prompt is one matrix product for
/// many tokens, writing reads all weights for each, so without a measurement a prompt token counts a tenth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// Of a prompt token.
    pub input: f64,
    /// Of a generated token.
    pub output: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { input: 0.1, output: 1.0 }
    }
}

/// One query on the sampler's axis, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// When it began to run.
    pub start_s: f64,
    /// When its first token came; none if it never did or is not known.
    pub first_s: Option<f64>,
    /// When it ended.
    pub end_s: f64,
    /// Prompt tokens; 0 if not known.
    pub input_tokens: f64,
    /// Generated tokens; 0 if not known.
    pub output_tokens: f64,
}

/// What one query is charged, in joules.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// Its part of everything that was spent while it ran.
    pub gross: f64,
    /// The same without the idle machine.
    pub net: f64,
    /// Gross joules before its first token; all of them if the first token is not known.
    pub prefill: f64,
    /// Gross joules after it.
    pub decode: f64,
    /// The meter is too slow for a query as short as this: pool it with others or repeat it.
    pub coarse: bool,
    /// Part of the query lies where the meter saw nothing: the figures are a lower bound.
    pub partial: bool,
}

/// A window shared out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// One share per span, in their order.
    pub shares: Vec<Share>,
    /// Joules spent while no query ran.
    pub unattributed: f64,
    /// Joules of the rail over the window.
    pub delta: f64,
}

/// What a rail is known by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rail<'a> {
    /// Its energy.
    pub series: &'a Series,
    /// Watts of the idle machine on it; 0 leaves net equal to gross.
    pub idle_w: f64,
    /// How often a figure of it is new, in seconds: the slower of hardware and sampler.
    pub renewed_s: f64,
}

/// A query shorter than this many renewals is coarse: at two, either edge may be off by a quarter of its energy.
const RENEWALS: f64 = 4.0;

/// Shares what the rail spent in the window among the spans. Parts of the window that were not observed count nothing.
pub fn attribute(rail: Rail, spans: &[Span], window: (f64, f64), weights: Weights) -> Account {
    let mut account = attribute_part(rail, spans, window, weights);
    account.shares.iter_mut().for_each(|share| share.net = share.net.max(0.0));
    account
}

/// The same for one of several windows side by side, whose shares are then added up: `net` may be below 0 in a part. A counter
/// that is renewed more slowly than it is read stands still in one piece and makes up for it in the next, so that only the sum
/// over a whole query may be cut off at 0; cutting off each piece would leave part of the idle machine in the net figure.
pub fn attribute_part(rail: Rail, spans: &[Span], window: (f64, f64), weights: Weights) -> Account {
    let mut account = Account { shares: vec![Share::default(); spans.len()], ..Account::default() };
    let observed = rail.series.span().unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
    let (from_s, to_s) = (window.0.max(observed.0), window.1.min(observed.1));
    for (span, share) in spans.iter().zip(&mut account.shares) {
        share.coarse = span.is_coarse(rail.renewed_s);
        share.partial = span.start_s < from_s || span.end_s > to_s;
    }
    if to_s <= from_s || from_s.is_nan() || to_s.is_nan() {
        return account;
    }
    let cuts = cuts(rail.series, spans, from_s, to_s);
    for pair in cuts.windows(2) {
        let &[a, b] = pair else { continue };
        let observed = rail.series.between(a, b);
        let spent = observed.unwrap_or(0.0);
        account.delta += spent;
        let middle = a + (b - a) / 2.0;
        let running: Vec<(usize, Part)> =
            spans.iter().enumerate().filter_map(|(i, s)| Some((i, s.part(middle, weights)?))).collect();
        if running.is_empty() {
            account.unattributed += spent;
            continue;
        }
        let active = if observed.is_some() { spent - rail.idle_w * (b - a) } else { 0.0 };
        // Tokens are known for all of them, or all count alike.
        let known = running.iter().all(|(_, part)| part.weight > 0.0);
        let total: f64 = running.iter().map(|(_, part)| if known { part.weight } else { 1.0 }).sum();
        for (index, part) in running {
            let fraction = if known { part.weight } else { 1.0 } / total;
            if let Some(share) = account.shares.get_mut(index) {
                share.partial |= observed.is_none();
                share.gross += spent * fraction;
                share.net += active * fraction;
                *(if part.prefill { &mut share.prefill } else { &mut share.decode }) += spent * fraction;
            }
        }
    }
    account
}

/// Where a span is at an instant.
struct Part {
    prefill: bool,
    weight: f64,
}

impl Span {
    /// Whether it is too short for a rail whose figure is new every so many seconds.
    pub fn is_coarse(&self, renewed_s: f64) -> bool {
        self.end_s - self.start_s < RENEWALS * renewed_s
    }

    fn part(&self, at_s: f64, weights: Weights) -> Option<Part> {
        if !(self.start_s <= at_s && at_s < self.end_s) {
            return None;
        }
        let first_s = self.first_s.unwrap_or(self.end_s).clamp(self.start_s, self.end_s);
        let prefill = at_s < first_s;
        let (cost, seconds) = if self.first_s.is_none() {
            // One phase for both, because nobody knows where one ended: what it wrote counts all the same.
            (self.input_tokens * weights.input + self.output_tokens * weights.output, self.end_s - self.start_s)
        } else if prefill {
            (self.input_tokens * weights.input, first_s - self.start_s)
        } else {
            (self.output_tokens * weights.output, self.end_s - first_s)
        };
        let weight = cost / seconds;
        Some(Part { prefill, weight: if weight.is_finite() { weight } else { 0.0 } })
    }
}

/// Every instant at which something changes, in order and once: samples, starts, first tokens, ends, the window's edges.
fn cuts(series: &Series, spans: &[Span], from_s: f64, to_s: f64) -> Vec<f64> {
    let events = spans.iter().flat_map(|s| [Some(s.start_s), s.first_s, Some(s.end_s)]).flatten();
    let mut cuts: Vec<f64> = events.filter(|at| *at > from_s && *at < to_s).collect();
    cuts.extend(series.instants(from_s, to_s));
    cuts.extend([from_s, to_s]);
    cuts.sort_unstable_by(f64::total_cmp);
    cuts.dedup();
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::series::Point;
    use proptest::prelude::*;

    fn series(points: impl IntoIterator<Item = (f64, f64)>) -> Series {
        let mut series = Series::new(100_000);
        for (at_s, joules) in points {
            assert!(series.push(Point { at_s, joules }));
        }
        series
    }

    fn span(start_s: f64, first_s: f64, end_s: f64, input_tokens: f64, output_tokens: f64) -> Span {
        Span { start_s, first_s: Some(first_s), end_s, input_tokens, output_tokens }
    }

    fn rail(series: &Series, idle_w: f64) -> Rail<'_> {
        Rail { series, idle_w, renewed_s: 0.05 }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * (1.0 + b.abs())
    }

    #[test]
    fn one_query_gets_what_was_spent_while_it_ran_split_at_its_first_token() {
        // 100 W busy between 1 s and 3 s, 20 W idle else.
        let line = series([(0.0, 0.0), (1.0, 20.0), (3.0, 220.0), (4.0, 240.0)]);
        let account = attribute(rail(&line, 20.0), &[span(1.0, 1.5, 3.0, 10.0, 10.0)], (0.0, 4.0), Weights::default());
        let share = account.shares[0];
        assert!(close(share.gross, 200.0) && close(share.net, 160.0), "{share:?}");
        assert!(close(share.prefill, 50.0) && close(share.decode, 150.0));
        assert!(close(account.unattributed, 40.0) && close(account.delta, 240.0));
        assert!(!share.coarse && !share.partial);
    }

    #[test]
    fn queries_at_once_share_by_tokens_and_phase() {
        let line = series([(0.0, 0.0), (10.0, 1000.0)]);
        // Both write all the time; the second writes three times as fast.
        let writing = [span(0.0, 0.0, 10.0, 0.0, 100.0), span(0.0, 0.0, 10.0, 0.0, 300.0)];
        let account = attribute(rail(&line, 0.0), &writing, (0.0, 10.0), Weights::default());
        assert!(close(account.shares[0].gross, 250.0) && close(account.shares[1].gross, 750.0));
        // One reads 100 tokens at a tenth each while the other writes 10: they cost the same.
        let mixed = [span(0.0, 10.0, 10.0, 100.0, 0.0), span(0.0, 0.0, 10.0, 0.0, 10.0)];
        let account = attribute(rail(&line, 0.0), &mixed, (0.0, 10.0), Weights::default());
        assert!(close(account.shares[0].prefill, 500.0) && close(account.shares[1].decode, 500.0));
        // Unknown tokens: alike.
        let unknown = [span(0.0, 0.0, 10.0, 0.0, 0.0), span(0.0, 0.0, 10.0, 0.0, 300.0)];
        let account = attribute(rail(&line, 0.0), &unknown, (0.0, 10.0), Weights::default());
        assert!(close(account.shares[0].gross, 500.0));
    }

    #[test]
    fn what_the_meter_did_not_see_or_cannot_resolve_is_flagged_and_never_zero_silently() {
        let line = series((0..100).map(|i| (f64::from(i) * 0.05, f64::from(i))));
        let short = span(1.0, 1.01, 1.02, 5.0, 5.0);
        let early = span(-1.0, 0.0, 1.0, 5.0, 5.0);
        let account = attribute(rail(&line, 0.0), &[short, early], (-2.0, 4.0), Weights::default());
        assert!(account.shares[0].coarse && account.shares[0].gross > 0.0);
        assert!(account.shares[1].partial && !account.shares[1].coarse);
        let unseen = attribute(rail(&Series::new(9), 0.0), &[short], (0.0, 4.0), Weights::default());
        assert!(unseen.shares[0].partial && unseen.delta == 0.0);
        let mut torn = series([(0.0, 0.0), (1.0, 10.0)]);
        assert!(torn.resume(2.0) && torn.grow(3.0, 10.0));
        let across = attribute(rail(&torn, 0.0), &[span(0.5, 0.5, 2.5, 5.0, 5.0)], (0.0, 3.0), Weights::default());
        assert!(across.shares[0].partial && close(across.shares[0].gross, 10.0) && close(across.delta, 20.0));
    }

    #[test]
    fn a_query_of_45_seconds_is_charged_for_all_of_them() {
        let line = series((0..=1200).map(|i| (f64::from(i) * 0.05, f64::from(i) * 5.0)));
        let account = attribute(rail(&line, 0.0), &[span(5.0, 6.0, 50.0, 9.0, 9.0)], (0.0, 60.0), Weights::default());
        assert!(close(account.shares[0].gross, 4500.0));
    }

    fn schedule() -> impl Strategy<Value = (Vec<(f64, f64)>, Vec<Span>)> {
        let steps = prop::collection::vec((0.001_f64..0.3, 0.0_f64..50.0), 2..120);
        let spans =
            prop::collection::vec((-2.0_f64..12.0, 0.0_f64..6.0, 0.0_f64..1.0, 0.0_f64..900.0, 0.0_f64..900.0), 0..9);
        (steps, spans).prop_map(|(steps, spans)| {
            let mut at = (0.0, 0.0);
            let line = steps
                .into_iter()
                .map(|(dt, dj)| {
                    at = (at.0 + dt, at.1 + dj);
                    at
                })
                .collect();
            let spans = spans.into_iter().map(|(start, len, first, input, output)| Span {
                start_s: start,
                first_s: (first < 0.9).then_some(start + len * first),
                end_s: start + len,
                input_tokens: input.floor(),
                output_tokens: output.floor(),
            });
            (line, spans.collect())
        })
    }

    proptest! {
        #[test]
        fn every_joule_is_somebodys_or_nobodys((points, spans) in schedule(), idle_w in 0.0_f64..200.0, from in -1.0_f64..5.0, len in 0.0_f64..20.0) {
            let line = series(points);
            let account = attribute(rail(&line, idle_w), &spans, (from, from + len), Weights::default());
            let gross: f64 = account.shares.iter().map(|s| s.gross).sum();
            prop_assert!((gross + account.unattributed - account.delta).abs() <= 1e-9 * (1.0 + account.delta));
            for share in &account.shares {
                prop_assert!(share.net <= share.gross + 1e-9 && share.net >= 0.0 && share.gross.is_finite());
                prop_assert!((share.prefill + share.decode - share.gross).abs() <= 1e-9 * (1.0 + share.gross));
            }
            // The delta is the counter's own.
            let (first, last) = line.span().unwrap();
            let own = line.between(from.max(first), (from + len).min(last)).unwrap_or(0.0);
            prop_assert!((account.delta - own).abs() < 1e-6);
        }

        #[test]
        fn windows_side_by_side_add_up((points, spans) in schedule(), cut in 0.1_f64..8.0) {
            let line = series(points);
            let whole = attribute_part(rail(&line, 7.0), &spans, (0.0, 20.0), Weights::default());
            let left = attribute_part(rail(&line, 7.0), &spans, (0.0, cut), Weights::default());
            let right = attribute_part(rail(&line, 7.0), &spans, (cut, 20.0), Weights::default());
            prop_assert!((whole.delta - left.delta - right.delta).abs() < 1e-6);
            for ((w, l), r) in whole.shares.iter().zip(&left.shares).zip(&right.shares) {
                prop_assert!((w.gross - l.gross - r.gross).abs() < 1e-6 && (w.net - l.net - r.net).abs() < 1e-6);
            }
        }
    }
}
