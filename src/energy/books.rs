//! Books of a run: queries begin and end while it goes on, and each is charged as soon as what it cost can no longer change.
//!
//! Time before the oldest query that still runs is settled: everybody who ran in it is known with his tokens, so
//! [`attribute_part`] shares it for good. [`Books::cut`] settles more than that: then those who run count with the tokens they
//! have so far. Invariant (conservation): no second of a rail is shared twice, and over everything settled, per rail, the charges
//! of all queries + unattributed = delta. A query that is given up leaves what it used unattributed. Pure.

use std::borrow::Borrow;

use crate::energy::attribution::{self, Share, Span, Weights, attribute_part};
use crate::energy::series::Series;

/// How a rail is charged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Watts at rest; none if not known, and then there is no net figure.
    pub idle_w: Option<f64>,
    /// How often its figure is new, in seconds: the slower of hardware and sampler.
    pub renewed_s: f64,
}

/// Joules of one rail over everything settled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Balance {
    /// What the meter counted.
    pub delta: f64,
    /// Spent while no query ran.
    pub unattributed: f64,
}

/// A query whose charge is final.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// As [`Books::began`] gave it.
    pub id: u64,
    /// When it ran.
    pub span: Span,
    /// One share per rail.
    pub shares: Vec<Share>,
}

/// The books.
#[derive(Clone, Debug)]
pub struct Books {
    terms: Vec<Terms>,
    weights: Weights,
    balance: Vec<Balance>,
    open: Vec<Open>,
    settled_s: f64,
    /// The same of each rail: one that was not read for a while lags, and what it then counts is shared then.
    rails_s: Vec<f64>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Open {
    id: u64,
    span: Span,
    ended: bool,
    shares: Vec<Share>,
}

impl Books {
    /// Opens the books at an instant, one [`Terms`] per rail.
    pub fn new(terms: Vec<Terms>, from_s: f64) -> Self {
        let (balance, rails_s) = (vec![Balance::default(); terms.len()], vec![from_s; terms.len()]);
        Self { terms, weights: Weights::default(), balance, open: Vec::new(), settled_s: from_s, rails_s, next: 0 }
    }

    /// The watts at rest of a rail are known, from what is not settled yet on.
    pub fn rests(&mut self, rail: usize, idle_w: f64) {
        if let Some(terms) = self.terms.get_mut(rail) {
            terms.idle_w = Some(idle_w);
        }
    }

    /// A query begins to run. Instants may not lie before what is settled; one that does begins where that ends.
    pub fn began(&mut self, at_s: f64) -> u64 {
        let id = self.next;
        self.next += 1;
        let start_s = at_s.max(self.settled_s);
        let span = Span { start_s, first_s: None, end_s: f64::INFINITY, input_tokens: 0.0, output_tokens: 0.0 };
        self.open.push(Open { id, span, ended: false, shares: vec![Share::default(); self.terms.len()] });
        id
    }

    /// It ended, and this is what is known of it. Its start stays.
    pub fn ended(&mut self, id: u64, span: Span) {
        if let Some(open) = self.open.iter_mut().find(|o| o.id == id) {
            let start_s = open.span.start_s;
            open.span = Span { start_s, end_s: span.end_s.max(start_s), ..span };
            open.ended = true;
        }
    }

    /// It was given up: nobody is charged, for what a cut gave it neither.
    pub fn forget(&mut self, id: u64) {
        for open in self.open.extract_if(.., |o| o.id == id) {
            open.shares.iter().zip(&mut self.balance).for_each(|(share, balance)| balance.unattributed += share.gross);
        }
    }

    /// It runs, and this is what it has done by the span's end. Its start stays. Without a word of this it counts in a cut like
    /// everybody else.
    pub fn running(&mut self, id: u64, so_far: Span) {
        if let Some(open) = self.open.iter_mut().find(|o| o.id == id && !o.ended) {
            open.span = Span { start_s: open.span.start_s, ..so_far };
        }
    }

    /// Settles what can be: up to `sampled_s`, and up to the start of the oldest query that still runs. Returns the queries
    /// whose charge is now final, in the order they began. `series` are the rails', in the order of the terms.
    pub fn settle<S: Borrow<Series>>(&mut self, series: &[S], sampled_s: f64) -> Vec<Settled> {
        let running = self.open.iter().filter(|o| !o.ended).map(|o| o.span.start_s);
        let to_s = running.fold(sampled_s, f64::min);
        self.cut(series, to_s)
    }

    /// Settles up to `to_s` whoever still runs; it must have been sampled. See [`Books::running`].
    pub fn cut<S: Borrow<Series>>(&mut self, series: &[S], to_s: f64) -> Vec<Settled> {
        if to_s > self.settled_s {
            self.share_out(series, to_s);
            self.settled_s = to_s;
        }
        let (ready, open) =
            std::mem::take(&mut self.open).into_iter().partition(|o: &Open| o.ended && o.span.end_s <= self.settled_s);
        self.open = open;
        ready.into_iter().map(|o| finish(o, series, &self.terms)).collect()
    }

    /// Sums over everything settled, one per rail.
    pub fn balance(&self) -> &[Balance] {
        &self.balance
    }

    /// Up to where everything is settled.
    pub fn settled_s(&self) -> f64 {
        self.settled_s
    }

    /// Whether a query waits to be settled or still runs.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    fn share_out<S: Borrow<Series>>(&mut self, series: &[S], to_s: f64) {
        let mut present: Vec<&mut Open> = self.open.iter_mut().filter(|o| o.span.start_s < to_s).collect();
        let spans: Vec<Span> = present.iter().map(|o| o.until(to_s)).collect();
        let each = series.iter().zip(&self.terms).zip(&mut self.balance).zip(&mut self.rails_s).enumerate();
        for (rail, (((series, terms), balance), settled_s)) in each {
            let series = series.borrow();
            // What was not read yet is not gone: a counter brings it later.
            let to_s = series.last().map_or(to_s, |last| last.at_s.min(to_s));
            let known = attribution::Rail { series, idle_w: terms.idle_w.unwrap_or(0.0), renewed_s: terms.renewed_s };
            let account = attribute_part(known, &spans, (*settled_s, to_s), self.weights);
            *settled_s = settled_s.max(to_s);
            balance.delta += account.delta;
            balance.unattributed += account.unattributed;
            for (open, part) in present.iter_mut().zip(account.shares) {
                let Some(share) = open.shares.get_mut(rail) else { continue };
                share.gross += part.gross;
                share.net += part.net;
                share.prefill += part.prefill;
                share.decode += part.decode;
            }
        }
    }
}

impl Open {
    /// Its span as far as it is known at a cut.
    fn until(&self, cut_s: f64) -> Span {
        match self.ended {
            true => self.span,
            // Its tokens so far took until they were counted, which is after the cut.
            false if self.span.end_s.is_finite() => Span { end_s: self.span.end_s.max(cut_s), ..self.span },
            false => Span { end_s: cut_s, ..self.span },
        }
    }
}

/// A part of a window says nothing of the whole span, so whether all of it was seen, for long enough, is asked here.
fn finish<S: Borrow<Series>>(open: Open, series: &[S], terms: &[Terms]) -> Settled {
    let Open { id, span, mut shares, .. } = open;
    for ((share, series), terms) in shares.iter_mut().zip(series).zip(terms) {
        share.partial = series.borrow().between(span.start_s, span.end_s).is_none();
        share.coarse = span.is_coarse(terms.renewed_s);
        share.net = share.net.max(0.0);
    }
    Settled { id, span, shares }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::series::Point;
    use proptest::prelude::*;

    const TERMS: Terms = Terms { idle_w: Some(10.0), renewed_s: 0.01 };

    fn line(watts: f64, until_s: u32) -> Series {
        let mut series = Series::new(100_000);
        (0..=until_s * 20).for_each(|i| {
            let at_s = f64::from(i) / 20.0;
            assert!(series.push(Point { at_s, joules: watts * at_s }));
        });
        series
    }

    fn span(end_s: f64, tokens: f64) -> Span {
        Span { start_s: 0.0, first_s: None, end_s, input_tokens: tokens, output_tokens: tokens }
    }

    #[test]
    fn a_query_is_charged_once_nobody_runs_who_ran_beside_it() {
        let series = [line(100.0, 10)];
        let mut books = Books::new(vec![TERMS], 0.0);
        let (long, short) = (books.began(1.0), books.began(2.0));
        books.ended(short, span(3.0, 10.0));
        assert!(books.settle(&series, 4.0).is_empty(), "the long one still runs and shares the same second");
        books.ended(long, span(5.0, 10.0));
        assert!(books.settle(&series, 4.5).iter().all(|s| s.id == short), "its end was not sampled yet");
        let settled = books.settle(&series, 6.0);
        assert_eq!(settled.iter().map(|s| s.id).collect::<Vec<_>>(), [long]);
        // 3 s alone and 1 s at a fifth of the weight of the short one (10 tokens in 4 s against 10 in 1 s).
        let share = settled[0].shares[0];
        assert!((share.gross - 320.0).abs() < 1e-6 && !share.partial && !share.coarse, "{share:?}");
        let balance = books.balance()[0];
        assert!((balance.delta - 600.0).abs() < 1e-6 && (balance.unattributed - 200.0).abs() < 1e-6, "{balance:?}");
        assert!(!books.is_open());
    }

    #[test]
    fn what_was_given_up_is_nobodys_and_what_was_not_seen_is_said() {
        let series = [line(100.0, 4)];
        let mut books = Books::new(vec![TERMS], 0.0);
        let (lost, unseen) = (books.began(0.0), books.began(3.0));
        books.forget(lost);
        books.ended(unseen, span(9.0, 1.0));
        let settled = books.settle(&series, 10.0);
        assert!(settled[0].shares[0].partial);
        assert!((books.balance()[0].unattributed - 300.0).abs() < 1e-6);
    }

    #[test]
    fn a_cut_shares_by_what_was_written_so_far_and_no_second_twice() {
        let series = [line(100.0, 12)];
        let mut books = Books::new(vec![TERMS], 0.0);
        let (long, short) = (books.began(0.0), books.began(0.0));
        let first_s = Some(0.0);
        books.ended(short, Span { start_s: 0.0, first_s, end_s: 2.0, input_tokens: 5.0, output_tokens: 10.0 });
        // By 4 s the long one has written 400: twenty times as fast.
        books.running(long, Span { start_s: 0.0, first_s, end_s: 4.0, input_tokens: 5.0, output_tokens: 400.0 });
        let settled = books.cut(&series, 2.0);
        assert_eq!(settled.iter().map(|s| s.id).collect::<Vec<_>>(), [short]);
        assert!((settled[0].shares[0].gross - 200.0 / 21.0).abs() < 1e-6, "{settled:?}");
        books.ended(long, Span { start_s: 0.0, first_s, end_s: 9.5, input_tokens: 5.0, output_tokens: 500.0 });
        let settled = books.settle(&series, 10.0);
        assert!((settled[0].shares[0].gross - (950.0 - 200.0 / 21.0)).abs() < 1e-6, "{settled:?}");
    }

    #[test]
    fn a_counter_that_was_not_read_for_a_while_is_shared_when_it_is_back() {
        let mut late = Series::new(9);
        assert!(late.push(Point { at_s: 0.0, joules: 0.0 }) && late.push(Point { at_s: 2.0, joules: 200.0 }));
        let mut books = Books::new(vec![TERMS], 0.0);
        let id = books.began(1.0);
        assert!(books.cut(&[&late], 5.0).is_empty());
        assert!(late.push(Point { at_s: 8.0, joules: 800.0 }));
        books.ended(id, span(7.0, 5.0));
        let settled = books.settle(&[&late], 8.0);
        assert!((settled[0].shares[0].gross - 600.0).abs() < 1e-9, "{settled:?}");
        assert!((books.balance()[0].delta - 800.0).abs() < 1e-9, "{:?}", books.balance());
    }

    proptest! {
        #[test]
        fn books_balance_however_queries_overlap_and_whenever_they_are_settled(
            mut runs in proptest::collection::vec((0.0_f64..8.0, 0.0_f64..3.0, 0_u8..4), 1..24),
            looks in proptest::collection::vec(0.0_f64..12.0, 0..12),
            cuts in proptest::collection::vec((0.0_f64..12.0, 0.0_f64..3.0, 0_u8..9), 0..12),
        ) {
            let series = [line(50.0, 12), line(7.0, 12)];
            let mut books = Books::new(vec![TERMS; 2], 0.5);
            runs.sort_by(|a, b| a.0.total_cmp(&b.0));
            // One event after another, as they come in a run: begin, end, look.
            let mut events: Vec<(f64, usize, u8)> = Vec::new();
            for (i, (start, length, _)) in runs.iter().enumerate() {
                events.extend([(*start, i, 0), (start + length, i, 1)]);
            }
            events.extend(looks.iter().map(|at| (*at, 0, 2)));
            events.extend(cuts.iter().enumerate().map(|(i, cut)| (cut.0, i, 3)));
            events.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2)));
            let (mut ids, mut gross, mut count) = (vec![0; runs.len()], [0.0; 2], 0);
            let mut take = |settled: Vec<Settled>| {
                for one in settled {
                    count += 1;
                    one.shares.iter().zip(&mut gross).for_each(|(s, sum)| *sum += s.gross);
                }
            };
            for (at_s, i, what) in events {
                match what {
                    0 => ids[i] = books.began(at_s),
                    1 if runs[i].2 == 0 => books.forget(ids[i]),
                    1 => books.ended(ids[i], span(at_s, f64::from(runs[i].2))),
                    2 => take(books.settle(&series, at_s)),
                    _ => {
                        // Some of those who run tell what they have so far; the cut lies a little in the past.
                        let (_, ago_s, tokens) = cuts[i];
                        let running = ids.iter().zip(&runs).filter(|(_, run)| run.0 <= at_s && at_s < run.0 + run.1);
                        for (id, run) in running.filter(|(id, _)| (*id + u64::from(tokens)) % 2 == 0) {
                            let tokens = f64::from(tokens);
                            let first_s = (tokens > 4.0).then_some(run.0 + 0.1);
                            let so_far = Span { first_s, input_tokens: tokens, ..span(at_s, tokens) };
                            books.running(*id, so_far);
                        }
                        take(books.cut(&series, at_s - ago_s));
                    }
                }
            }
            take(books.settle(&series, 12.0));
            prop_assert!(!books.is_open());
            prop_assert_eq!(count, runs.iter().filter(|r| r.2 > 0).count());
            for ((balance, gross), watts) in books.balance().iter().zip(gross).zip([50.0, 7.0]) {
                prop_assert!((balance.delta - watts * 11.5).abs() < 1e-6, "{balance:?}");
                prop_assert!((gross + balance.unattributed - balance.delta).abs() < 1e-6, "{gross} {balance:?}");
            }
        }
    }
}
