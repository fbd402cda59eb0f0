//! Accounts of the queries that a gateway runs: who is told what, and when it is too late to wait for the others. Pure: time and
//! the meters' lines come in.
//!
//! Invariants: whoever asked is told once, also when the accounts are dropped; a second of a rail is charged once. A query waits
//! for those that run beside it, at most [`PATIENCE_S`]; then the time up to its end is shared for good, by the tokens that those
//! who still run have written so far, or alike where nobody knows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Instant;
use crate::energy::attribution::{Share, Span};
use crate::energy::books::{Books, Settled, Terms};
use crate::energy::idle;
use crate::energy::meters::Rail;
use crate::energy::series::Series;
use crate::energy::{Basis, Joules};

/// How long an ended query waits for those that ran beside it, in seconds.
pub const PATIENCE_S: f64 = 2.0;
/// Queries remembered; further ones are not metered.
const MOST_HELD: usize = 4096;
/// The machine is at rest when no query ran for this long; its idle watts are those of this stretch.
const REST_S: f64 = 8.0;
/// The first time a shorter stretch will do, if the watts stand still in it: so that a query that comes soon has a net figure.
const FIRST_REST_S: f64 = 2.0;
/// Watts stand still when the highest eighth of a stretch is at most this share of the middle above the lowest.
const STILL: f64 = 0.1;

/// What a query took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Low is without the idle machine, null until its watts were measured; mid is with it, high with it and the meter's
    /// uncertainty.
    pub joules: Joules,
    /// Before its first token, of `mid`.
    pub prefill: f64,
    /// After it.
    pub decode: f64,
}

/// Who is told: a measurement, or that there is none.
pub type Told = Box<dyn FnOnce(Option<Measured>) + Send>;

/// How far a query is, written where its answer passes and read at a cut. Zero is not known.
#[derive(Debug, Default)]
pub struct Progress {
    input: AtomicU64,
    output: AtomicU64,
    /// Microseconds on the meters' axis.
    first_us: AtomicU64,
}

impl Progress {
    /// It reads a prompt of so many tokens and streams what it writes.
    pub fn reads(&self, tokens: u32) {
        self.input.store(u64::from(tokens), Ordering::Relaxed);
    }

    /// It wrote so many tokens more.
    pub fn writes(&self, tokens: u64, at_s: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds since the start, saturating"
        )]
        let at_us = ((at_s * 1e6) as u64).max(1);
        let _ = self.first_us.compare_exchange(0, at_us, Ordering::Relaxed, Ordering::Relaxed);
        self.output.fetch_add(tokens, Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "tokens and microseconds are below 2^53")]
    fn span(&self, start_s: f64, now_s: f64) -> Span {
        let [input, output, first_us] = [&self.input, &self.output, &self.first_us].map(|x| x.load(Ordering::Relaxed));
        let first_s = (first_us > 0).then_some(first_us as f64 * 1e-6);
        Span { start_s, first_s, end_s: now_s, input_tokens: input as f64, output_tokens: output as f64 }
    }
}

/// The accounts.
pub struct Accounts {
    rails: Vec<Rail>,
    /// Between two samples, in seconds.
    every_s: f64,
    books: Books,
    held: Vec<Held>,
    /// Watts at rest of each rail, once they were measured.
    idle_w: Vec<Option<f64>>,
    /// The last instant at which a query ran or the idle watts were taken.
    busy_s: f64,
}

struct Held {
    id: u64,
    start_s: f64,
    /// None while it runs.
    end_s: Option<f64>,
    progress: Arc<Progress>,
    told: Option<Told>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            told(None);
        }
    }
}

/// Told outside of the lock.
pub type Done = (Told, Option<Measured>);

impl Accounts {
    /// Accounts over these rails, sampled every `every_s` seconds, from an instant on.
    pub fn new(rails: Vec<Rail>, every_s: f64, from_s: f64) -> Self {
        let terms = rails.iter().map(|rail| Terms { idle_w: None, renewed_s: rail.renewed_s.max(every_s) }).collect();
        let idle_w = vec![None; rails.len()];
        Self { books: Books::new(terms, from_s), rails, every_s, held: Vec::new(), idle_w, busy_s: from_s }
    }

    /// A query begins to run. None when too many do.
    pub fn open(&mut self, now_s: f64) -> Option<(u64, Arc<Progress>)> {
        if self.held.len() >= MOST_HELD {
            return None;
        }
        let (id, progress) = (self.books.began(now_s), Arc::new(Progress::default()));
        self.held.push(Held { id, start_s: now_s, end_s: None, progress: progress.clone(), told: None });
        Some((id, progress))
    }

    /// It has ended; the span's start stays as it was. Without `told` it still takes its share from the others.
    pub fn close(&mut self, id: u64, span: Option<Span>, now_s: f64, told: Option<Told>) {
        let Some(held) = self.held.iter_mut().find(|held| held.id == id && held.end_s.is_none()) else { return };
        (held.end_s, held.told) = (Some(now_s), told);
        let span = span.unwrap_or_else(|| held.progress.span(held.start_s, now_s));
        self.books.ended(id, Span { end_s: now_s, ..span });
        self.busy_s = now_s;
    }

    /// Whether somebody waits to be told.
    pub fn is_waited_for(&self) -> bool {
        self.held.iter().any(|held| held.told.is_some())
    }

    /// Whether no query is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The basis of the sum of the rails.
    pub fn basis(&self) -> Basis {
        self.rails.iter().map(|rail| rail.basis).max().unwrap_or(Basis::Unknown)
    }

    /// Settles what can be. `series` are the rails', `sampled_s` is when they were read last.
    pub fn settle(&mut self, series: &[&Series], now_s: f64, sampled_s: f64) -> Vec<Done> {
        let seen_s = seen(series, sampled_s);
        if self.held.is_empty() {
            self.rest(series, seen_s);
        }
        let mut settled = self.books.settle(series, seen_s);
        let late = |held: &&Held| held.told.is_some() && held.end_s.is_some_and(|end_s| now_s > end_s + PATIENCE_S);
        let due_s = self.held.iter().filter(late).filter_map(|held| held.end_s).fold(0.0, f64::max);
        if due_s > self.books.settled_s() {
            for held in self.held.iter().filter(|held| held.end_s.is_none()) {
                self.books.running(held.id, held.progress.span(held.start_s, now_s));
            }
            settled.append(&mut self.books.cut(series, due_s.min(seen_s)));
        }
        let mut done = Vec::new();
        for one in settled {
            let Some(at) = self.held.iter().position(|held| held.id == one.id) else { continue };
            if let Some(told) = self.held.swap_remove(at).told.take() {
                done.push((told, self.measured(&one)));
            }
        }
        // The meters stand still: it is no longer waited for, and keeps its share of what they will bring.
        let given_up = |held: &&mut Held| held.end_s.is_some_and(|end_s| now_s > end_s + 2.0 * PATIENCE_S);
        let told = self.held.iter_mut().filter(given_up).filter_map(|held| held.told.take());
        done.extend(told.map(|told| (told, None)));
        done
    }

    fn measured(&self, settled: &Settled) -> Option<Measured> {
        let (mut sum, mut high) = (Share::default(), 0.0);
        for (share, rail) in settled.shares.iter().zip(&self.rails) {
            if share.coarse || share.partial {
                return None;
            }
            sum.gross += share.gross;
            sum.net += share.net;
            sum.prefill += share.prefill;
            sum.decode += share.decode;
            high += share.gross * (1.0 + rail.uncertainty.unwrap_or(0.0));
        }
        let joules = if self.idle_w.iter().all(Option::is_some) {
            Joules::range(sum.net, sum.gross, high, self.basis())
        } else {
            Joules::without_low(sum.gross, high, self.basis())
        };
        (joules.basis != Basis::Unknown).then_some(Measured { joules, prefill: sum.prefill, decode: sum.decode })
    }

    /// Takes the idle watts where nothing ran for long enough.
    fn rest(&mut self, series: &[&Series], seen_s: f64) {
        let quiet_s = seen_s - self.busy_s;
        let first = self.idle_w.iter().any(Option::is_none) && quiet_s < REST_S;
        let length_s = if first { FIRST_REST_S } else { REST_S };
        if quiet_s < length_s {
            return;
        }
        let look = |(series, rail): (&&Series, &Rail)| {
            idle::measure(series, seen_s - length_s, seen_s, rail.renewed_s.max(self.every_s))
        };
        let looks: Vec<Option<idle::Idle>> = series.iter().zip(&self.rails).map(look).collect();
        if first && !looks.iter().flatten().all(|look| 2.0 * look.spread <= STILL * look.watts) {
            return;
        }
        for (rail, look) in looks.into_iter().enumerate() {
            let (Some(look), Some(idle_w)) = (look, self.idle_w.get_mut(rail)) else { continue };
            *idle_w = Some(look.watts);
            self.books.rests(rail, look.watts);
        }
        if !first {
            self.busy_s = seen_s;
        }
    }
}

/// Up to where every rail was read. One that is silent for longer than anybody waits is not waited for.
fn seen(series: &[&Series], sampled_s: f64) -> f64 {
    let last = series.iter().filter_map(|line| line.last()).map(|point| point.at_s);
    last.filter(|at_s| sampled_s - at_s <= PATIENCE_S).fold(sampled_s, f64::min)
}

/// An instant as seconds since the meters' origin.
pub fn since(origin: Instant, at: Instant) -> f64 {
    at.saturating_duration_since(origin).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::meters::Part;
    use crate::energy::series::Point;
    use std::sync::mpsc;

    fn rail() -> Rail {
        Rail {
            name: "steady/one".to_owned(),
            device: String::new(),
            part: Part::Package,
            basis: Basis::Counter,
            uncertainty: None,
            renewed_s: 0.001,
            cap_w: None,
        }
    }

    /// A counter of exactly so many watts, read every 50 ms.
    fn line(watts: f64, until_s: f64) -> Series {
        let mut series = Series::new(100_000);
        let mut at_s = 0.0;
        while at_s <= until_s {
            assert!(series.push(Point { at_s, joules: watts * at_s }));
            at_s += 0.05;
        }
        series
    }

    fn span(first_s: f64, output_tokens: f64) -> Option<Span> {
        Some(Span { start_s: 0.0, first_s: Some(first_s), end_s: 0.0, input_tokens: 10.0, output_tokens })
    }

    /// Runs the accounts from one instant to another, as their thread does, and returns what was told.
    fn go(accounts: &mut Accounts, from_s: f64, to_s: f64) -> Vec<Option<Measured>> {
        let mut told = Vec::new();
        let mut now_s = from_s;
        while now_s < to_s {
            let series = line(100.0, now_s);
            for (tell, measured) in accounts.settle(&[&series], now_s, now_s) {
                tell(measured);
                told.push(measured);
            }
            now_s += 0.1;
        }
        told
    }

    fn mid(told: &[Option<Measured>]) -> f64 {
        told.iter().map(|m| m.unwrap().joules.mid.unwrap()).sum()
    }

    #[test]
    fn a_long_answer_beside_a_short_one_is_charged_no_second_twice() {
        let mut accounts = Accounts::new(vec![rail()], 0.05, 0.0);
        let (long, progress) = accounts.open(1.0).unwrap();
        let (short, _) = accounts.open(1.0).unwrap();
        assert!(go(&mut accounts, 1.0, 3.0).is_empty());
        progress.reads(10);
        progress.writes(400, 1.5);
        accounts.close(short, span(1.5, 10.0), 3.0, Some(Box::new(drop)));
        let first = go(&mut accounts, 3.0, 10.5);
        assert_eq!(first.len(), 1, "the short one waits two seconds and no longer");
        accounts.close(long, span(1.5, 1000.0), 10.5, Some(Box::new(drop)));
        let second = go(&mut accounts, 10.5, 11.0);
        assert_eq!(second.len(), 1);
        // 9.5 s in which somebody ran, at 100 W: no more, no less.
        let (short, long) = (mid(&first), mid(&second));
        assert!((short + long - 950.0).abs() < 1e-6, "{short} + {long}");
        // They were alike in what they read; the long one wrote far faster: 400 by 5.1 s against 10 by 3 s.
        assert!(short > 25.0 && short < 60.0, "{short}");
        assert!(accounts.is_empty() && !accounts.is_waited_for());
    }

    #[test]
    fn those_of_whom_nobody_knows_how_far_they_are_count_alike() {
        let mut accounts = Accounts::new(vec![rail()], 0.05, 0.0);
        let (long, _) = accounts.open(0.0).unwrap();
        let (short, _) = accounts.open(0.0).unwrap();
        accounts.close(short, span(0.5, 10.0), 2.0, Some(Box::new(drop)));
        let first = go(&mut accounts, 2.0, 6.0);
        assert!((mid(&first) - 100.0).abs() < 1e-6, "{first:?}");
        accounts.close(long, span(0.5, 1000.0), 6.0, None);
        assert!(go(&mut accounts, 6.0, 6.5).is_empty() && accounts.is_empty());
    }

    #[test]
    fn without_a_rest_the_net_figure_is_unknown_and_two_still_seconds_give_it() {
        let mut accounts = Accounts::new(vec![rail()], 0.05, 0.0);
        let (early, _) = accounts.open(0.5).unwrap();
        accounts.close(early, span(0.6, 10.0), 1.5, Some(Box::new(drop)));
        let told = go(&mut accounts, 1.5, 3.0);
        assert_eq!(told[0].unwrap().joules.low, None, "nobody has seen the machine at rest");
        assert!((mid(&told) - 100.0).abs() < 1e-6);
        assert!(go(&mut accounts, 3.0, 4.5).is_empty());
        let (late, _) = accounts.open(4.5).unwrap();
        accounts.close(late, span(4.6, 10.0), 5.5, Some(Box::new(drop)));
        let joules = go(&mut accounts, 5.5, 6.5)[0].unwrap().joules;
        // The machine at rest takes all of the hundred watts here.
        assert!(joules.low.unwrap() < 1e-6 && (joules.mid.unwrap() - 100.0).abs() < 1e-6, "{joules:?}");
    }

    #[test]
    fn meters_that_stand_still_are_not_waited_for_and_everybody_is_told_once() {
        let mut accounts = Accounts::new(vec![rail()], 0.05, 0.0);
        let (told, heard) = mpsc::channel();
        let tell = |name: &'static str| -> Option<Told> {
            let told = told.clone();
            Some(Box::new(move |m| told.send((name, m)).unwrap()))
        };
        let series = line(100.0, 1.0);
        let (one, _) = accounts.open(0.5).unwrap();
        accounts.close(one, span(0.6, 1.0), 2.0, tell("unseen"));
        assert!(accounts.settle(&[&series], 3.0, 1.0).is_empty(), "a sample may yet come");
        for (tell, measured) in accounts.settle(&[&series], 6.1, 1.0) {
            tell(measured);
        }
        assert_eq!(heard.try_recv().unwrap(), ("unseen", None));
        let (two, _) = accounts.open(6.2).unwrap();
        accounts.close(two, span(6.3, 1.0), 7.0, tell("dropped"));
        drop(accounts);
        assert_eq!(heard.try_recv().unwrap(), ("dropped", None));
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn too_many_at_once_are_not_metered() {
        let mut accounts = Accounts::new(vec![rail()], 0.05, 0.0);
        assert!((0..MOST_HELD).all(|_| accounts.open(0.0).is_some()));
        assert!(accounts.open(0.0).is_none());
    }
}
