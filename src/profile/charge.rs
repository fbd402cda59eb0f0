//! Settled shares to the joules of a record; queries too short for the meter are pooled with their neighbours. Pure.
//!
//! Invariant: per rail, what is charged to records + what is withheld = what was settled. A figure that the meter cannot
//! give is null and its joules are withheld; none is ever 0.

use std::collections::BTreeMap;

use super::metered::Metered;
use super::record::{Joules, Note, Record};
use crate::energy::Basis;
use crate::energy::attribution::Share;
use crate::energy::books::Settled;

/// A pool is as long as this many renewals of the slowest rail before its sum is taken: as `attribution` demands of one query.
const RENEWALS: f64 = 4.0;

/// What is known of the meters.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    /// Names of the rails, in the order of shares.
    pub names: Vec<String>,
    /// Indices of those that make up the total.
    pub total: Vec<usize>,
    /// Whether a rail's idle watts are known.
    pub idle_known: Vec<bool>,
    /// Weakest basis of the total.
    pub basis: Option<Basis>,
    /// Widest uncertainty of the total.
    pub uncertainty: Option<f64>,
    /// Slowest rail of the total, in seconds.
    pub renewed_s: f64,
}

impl Meters {
    /// Of a machine that is metered.
    pub fn of(metered: &Metered) -> Self {
        Self {
            names: metered.rails().iter().map(|r| r.name.clone()).collect(),
            total: metered.total().to_vec(),
            idle_known: metered.about().iter().map(|r| r.idle_w.is_some()).collect(),
            basis: metered.basis(),
            uncertainty: metered.uncertainty(),
            renewed_s: metered.renewed_s(),
        }
    }
}

/// Short queries that wait for neighbours.
#[derive(Debug, Default)]
pub struct Pool {
    held: Vec<(Record, Settled)>,
    /// Joules that are on no record, per rail.
    withheld: BTreeMap<String, f64>,
}

impl Pool {
    /// Takes a record with its shares; gives back those whose joules are now as good as they get.
    pub fn take(&mut self, record: Record, settled: Settled, meters: &Meters) -> Vec<Record> {
        let of_total = |test: fn(&Share) -> bool| meters.total.iter().filter_map(|i| settled.shares.get(*i)).any(test);
        if meters.total.is_empty() || of_total(|s| s.partial) {
            let note = (!meters.total.is_empty()).then_some(Note::Gap);
            return vec![self.without(record, &settled, meters, note)];
        }
        if !of_total(|s| s.coarse) {
            return vec![charged(record, &settled.shares, meters, None)];
        }
        self.held.push((record, settled));
        let start_s = self.held.iter().map(|(_, s)| s.span.start_s).fold(f64::INFINITY, f64::min);
        let end_s = self.held.iter().map(|(_, s)| s.span.end_s).fold(f64::NEG_INFINITY, f64::max);
        if end_s - start_s < RENEWALS * meters.renewed_s { Vec::new() } else { self.share_out(meters) }
    }

    /// The end of a window: what is still held stays too short.
    pub fn close(&mut self, meters: &Meters) -> Vec<Record> {
        let held = std::mem::take(&mut self.held);
        held.into_iter().map(|(record, settled)| self.without(record, &settled, meters, Some(Note::Short))).collect()
    }

    /// Joules per rail that are on no record.
    pub fn withheld(&self) -> &BTreeMap<String, f64> {
        &self.withheld
    }

    /// The sum is right and its parts are noise, so everybody gets the mean watts of the pool for his time.
    fn share_out(&mut self, meters: &Meters) -> Vec<Record> {
        let held = std::mem::take(&mut self.held);
        let length = |s: &Settled| (s.span.end_s - s.span.start_s).max(1e-6);
        let seconds: f64 = held.iter().map(|(_, s)| length(s)).sum();
        let mut sums = vec![Share::default(); meters.names.len()];
        for (_, settled) in &held {
            for (sum, share) in sums.iter_mut().zip(&settled.shares) {
                sum.gross += share.gross;
                sum.net += share.net;
            }
        }
        let mut out = Vec::with_capacity(held.len());
        for (record, settled) in held {
            let part = length(&settled) / seconds;
            let before = settled.span.first_s.map_or(1.0, |first| (first - settled.span.start_s) / length(&settled));
            let shares: Vec<Share> = sums
                .iter()
                .map(|sum| Share {
                    gross: sum.gross * part,
                    net: sum.net * part,
                    prefill: sum.gross * part * before,
                    decode: sum.gross * part * (1.0 - before),
                    ..Share::default()
                })
                .collect();
            out.push(charged(record, &shares, meters, Some(Note::Pooled)));
        }
        out
    }

    fn without(&mut self, record: Record, settled: &Settled, meters: &Meters, note: Option<Note>) -> Record {
        for (name, share) in meters.names.iter().zip(&settled.shares) {
            *self.withheld.entry(name.clone()).or_default() += share.gross;
        }
        Record { joules: Joules { basis: Some(Basis::Unknown), note, ..Joules::default() }, ..record }
    }
}

fn charged(record: Record, shares: &[Share], meters: &Meters, note: Option<Note>) -> Record {
    let sum = |of: fn(&Share) -> f64| meters.total.iter().filter_map(|i| shares.get(*i)).map(of).sum::<f64>();
    let known = |joules: f64| (joules > 0.0).then_some(joules);
    let idle = meters.total.iter().all(|i| meters.idle_known.get(*i).copied().unwrap_or(false));
    let first = record.ttft_s.is_some();
    let joules = Joules {
        gross: known(sum(|s| s.gross)),
        net: Some(sum(|s| s.net)).filter(|_| idle),
        prefill: known(sum(|s| s.prefill)).filter(|_| first),
        decode: known(sum(|s| s.decode)).filter(|_| first),
        rails: meters.names.iter().cloned().zip(shares.iter().map(|s| s.gross)).collect(),
        basis: meters.basis,
        uncertainty: meters.uncertainty,
        low: None,
        high: None,
        note,
    };
    Record { joules, ..record }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::attribution::Span;

    fn meters() -> Meters {
        Meters {
            names: vec!["gpu".to_owned(), "inner".to_owned()],
            total: vec![0],
            idle_known: vec![true, false],
            basis: Some(Basis::Counter),
            uncertainty: None,
            renewed_s: 0.1,
        }
    }

    fn settled(start_s: f64, seconds: f64, gross: f64, coarse: bool) -> Settled {
        let share =
            Share { gross, net: gross / 2.0, prefill: gross / 4.0, decode: gross * 0.75, coarse, partial: false };
        let span = Span {
            start_s,
            first_s: Some(start_s + seconds / 2.0),
            end_s: start_s + seconds,
            input_tokens: 1.0,
            output_tokens: 1.0,
        };
        Settled { id: 0, span, shares: vec![share; 2] }
    }

    fn record() -> Record {
        Record { ttft_s: Some(0.1), ..Record::default() }
    }

    #[test]
    fn a_long_query_has_its_own_figure_and_short_ones_the_pools() {
        let (mut pool, meters) = (Pool::default(), meters());
        let own = pool.take(record(), settled(0.0, 1.0, 8.0, false), &meters);
        assert_eq!(own[0].joules.gross, Some(8.0));
        assert_eq!((own[0].joules.net, own[0].joules.prefill, own[0].joules.note), (Some(4.0), Some(2.0), None));
        assert_eq!(own[0].joules.rails["inner"], 8.0);
        // The counter did not move in the first of four, and moved for all of them in the second.
        let mut out = Vec::new();
        for (i, gross) in [0.0, 12.0, 0.0, 0.0].into_iter().enumerate() {
            let at_s = 1.0 + f64::from(u32::try_from(i).unwrap()) * 0.1;
            out.extend(pool.take(record(), settled(at_s, 0.1, gross, true), &meters));
        }
        assert_eq!(out.len(), 4);
        for record in &out {
            let j = &record.joules;
            assert!((j.gross.unwrap() - 3.0).abs() < 1e-9 && j.note == Some(Note::Pooled), "{j:?}");
            assert!((j.prefill.unwrap() - 1.5).abs() < 1e-9);
        }
        assert!(pool.withheld().is_empty());
    }

    #[test]
    fn what_the_meter_cannot_tell_is_null_and_its_joules_are_withheld() {
        let (mut pool, meters) = (Pool::default(), meters());
        assert!(pool.take(record(), settled(0.0, 0.05, 1.0, true), &meters).is_empty());
        let mut seen = settled(1.0, 2.0, 5.0, false);
        seen.shares[0].partial = true;
        let gap = pool.take(record(), seen, &meters).remove(0);
        let short = pool.close(&meters).remove(0);
        for (record, note) in [(gap, Note::Gap), (short, Note::Short)] {
            assert_eq!((record.joules.gross, record.joules.net, record.joules.note), (None, None, Some(note)));
            assert_eq!(record.joules.basis, Some(Basis::Unknown));
        }
        assert_eq!(pool.withheld()["gpu"], 6.0);
        let none = pool.take(record(), settled(0.0, 1.0, 0.0, false), &Meters::default()).remove(0);
        assert_eq!((none.joules.gross, none.joules.note), (None, None), "without a meter nothing is known");
    }
}
