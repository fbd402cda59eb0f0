//! What the meters said so far: each rail's energy as a line over time, and what was noticed about time and about the meters. Pure.
//!
//! Invariants: joules only rise; power is integrated by the trapezoid between two readings that both succeeded; a stretch in which
//! a rail could not be read, or in which nobody came to read, is a gap and is said to be one. A rail that goes silent is said once.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::energy::cost::Cost;
use crate::energy::meters::{Rail, Reading, total_of};
use crate::energy::series::Series;

/// Points kept per rail: two hours at the default period.
const MOST_POINTS: usize = 144_000;
/// Events remembered; the oldest go first.
const MOST_EVENTS: usize = 1_000;
/// Readings kept for whoever records them; the oldest go first.
const MOST_KEPT: usize = 10_000;
/// An interval this many periods long (and at least [`GAP_S`]) is a gap.
const GAP_PERIODS: f64 = 5.0;
const GAP_S: f64 = 0.5;
/// The wall clock is said to have stepped if it moved this much differently from the monotonic one, in seconds.
const STEP_S: f64 = 1.0;
/// A rail is said to be lost after so many seconds of silence: a single torn reading is none.
const LOST_S: f64 = 3.0;

/// Something that was noticed about time or about a meter.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// Nothing was read between two instants: the machine slept or was overloaded. Counters bridge it, power does not.
    Gap {
        /// Seconds on the sampler's axis.
        from_s: f64,
        /// Seconds on the sampler's axis.
        to_s: f64,
    },
    /// The wall clock was set, or the machine was suspended. Attribution is on the monotonic axis and is not moved by it.
    ClockStep {
        /// Seconds on the sampler's axis.
        at_s: f64,
        /// Seconds by which the wall clock moved more than the monotonic one.
        by_s: f64,
    },
    /// A rail that could be read cannot any more: joules that it is part of are unknown.
    Lost {
        /// Its name.
        rail: String,
        /// Seconds on the sampler's axis since when.
        since_s: f64,
        /// What its meter knows of that.
        why: Option<String>,
        /// Whether it is part of the machine's total.
        total: bool,
    },
    /// It can be read again.
    Back {
        /// Its name.
        rail: String,
        /// Seconds on the sampler's axis.
        at_s: f64,
    },
}

/// One reading of all rails, as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds on the sampler's axis.
    pub at_s: f64,
    /// The wall clock then, in seconds since 1970.
    pub wall_s: f64,
    /// What each rail said, in their order.
    pub readings: Vec<Reading>,
}

/// What was seen so far.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Rails, as the meters listed them.
    pub rails: Vec<Rail>,
    /// Energy of each.
    pub series: Vec<Series>,
    /// Rails that could not be read the last time.
    pub missing: Vec<bool>,
    /// The newest gaps, steps and losses, oldest first.
    pub events: VecDeque<Event>,
    /// How many were noticed in all.
    pub noticed: u64,
    /// What sampling cost.
    pub cost: Cost,
    last_w: Vec<Option<f64>>,
    last_counter: Vec<Option<f64>>,
    /// When a rail was read last.
    read_s: Vec<Option<f64>>,
    lost: Vec<bool>,
    last_at_s: Option<f64>,
    last_wall_s: Option<f64>,
    period_s: f64,
    kept: Option<VecDeque<Sample>>,
}

impl Trace {
    /// An empty trace of these rails, sampled every `period_s` seconds.
    pub fn new(rails: Vec<Rail>, period_s: f64) -> Self {
        let n = rails.len();
        Self {
            series: vec![Series::new(MOST_POINTS); n],
            missing: vec![true; n],
            events: VecDeque::new(),
            noticed: 0,
            cost: Cost::default(),
            last_w: vec![None; n],
            last_counter: vec![None; n],
            read_s: vec![None; n],
            lost: vec![false; n],
            last_at_s: None,
            last_wall_s: None,
            period_s,
            kept: None,
            rails,
        }
    }

    /// From now on readings are kept until [`Trace::kept`] takes them.
    pub fn keep(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// The readings since the last call, if they are kept.
    pub fn kept(&mut self) -> Vec<Sample> {
        self.kept.as_mut().map(|kept| kept.drain(..).collect()).unwrap_or_default()
    }

    /// Takes one reading of every rail. `wall_s` is the wall clock, used for nothing but noticing its steps.
    pub fn take(&mut self, at_s: f64, wall_s: f64, readings: &[Reading]) {
        let interval_s = self.last_at_s.map(|last| at_s - last);
        let gap = interval_s.is_some_and(|dt| dt > (GAP_PERIODS * self.period_s).max(GAP_S));
        if let Some(last_s) = self.last_at_s.filter(|_| gap) {
            self.notice(Event::Gap { from_s: last_s, to_s: at_s });
        }
        if let (Some(dt), Some(wall)) = (interval_s, self.last_wall_s) {
            let by_s = (wall_s - wall) - dt;
            if by_s.abs() > STEP_S {
                self.notice(Event::ClockStep { at_s, by_s });
            }
        }
        for index in 0..self.rails.len() {
            let reading = readings.get(index).copied().unwrap_or(Reading::Missing);
            self.rail(index, at_s, reading, gap);
            self.watch(index, at_s);
        }
        (self.last_at_s, self.last_wall_s) = (Some(at_s), Some(wall_s));
        if let Some(kept) = &mut self.kept {
            if kept.len() == MOST_KEPT {
                kept.pop_front();
            }
            kept.push_back(Sample { at_s, wall_s, readings: readings.to_vec() });
        }
    }

    fn rail(&mut self, index: usize, at_s: f64, reading: Reading, gap: bool) {
        let (Some(series), Some(missing)) = (self.series.get_mut(index), self.missing.get_mut(index)) else { return };
        let (Some(last_w), Some(last_counter)) = (self.last_w.get_mut(index), self.last_counter.get_mut(index)) else {
            return;
        };
        *missing = reading == Reading::Missing;
        match reading {
            Reading::Missing => *last_w = None,
            Reading::Joules(now) => {
                // A counter bridges whatever was not seen: the joules are right, only their place in between is not.
                let step = last_counter.map_or(0.0, |last| now - last);
                if series.grow(at_s, step.max(0.0)) {
                    *last_counter = Some(now);
                }
            }
            Reading::Watts(now) if !(now.is_finite() && now >= 0.0) => (*missing, *last_w) = (true, None),
            Reading::Watts(now) => {
                let before = last_w.replace(now).filter(|_| !gap);
                let last_s = series.last().map(|p| p.at_s);
                match (before, last_s) {
                    (Some(before), Some(last_s)) => {
                        series.grow(at_s, (before + now) / 2.0 * (at_s - last_s));
                    }
                    // The first reading after nothing: what lies between is unknown.
                    _ => {
                        series.resume(at_s);
                    }
                }
            }
        }
    }

    /// Says once that a rail went silent, and once that it is back.
    fn watch(&mut self, index: usize, at_s: f64) {
        let missing = self.missing.get(index).copied().unwrap_or(true);
        let name = |rails: &[Rail]| rails.get(index).map(|rail| rail.name.clone()).unwrap_or_default();
        let (Some(read_s), Some(lost)) = (self.read_s.get_mut(index), self.lost.get_mut(index)) else { return };
        if !missing {
            *read_s = Some(at_s);
            if std::mem::take(lost) {
                let rail = name(&self.rails);
                self.notice(Event::Back { rail, at_s });
            }
            return;
        }
        // One that was never read has not gone.
        if let (false, Some(since_s)) = (*lost, read_s.filter(|since_s| at_s - since_s >= LOST_S)) {
            *lost = true;
            let (rail, total) = (name(&self.rails), self.total().contains(&index));
            self.notice(Event::Lost { rail, since_s, why: None, total });
        }
    }

    fn notice(&mut self, event: Event) {
        if self.events.len() == MOST_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
        self.noticed += 1;
    }

    /// What was noticed after the first `told` events, as far as it is remembered.
    pub fn news(&self, told: u64) -> impl Iterator<Item = &Event> {
        let new = usize::try_from(self.noticed.saturating_sub(told)).unwrap_or(usize::MAX);
        self.events.iter().skip(self.events.len().saturating_sub(new))
    }

    /// Puts what a meter knows to the newest losses that have no reason yet.
    pub fn explain(&mut self, why_of: impl Fn(&str) -> Option<String>) {
        for event in &mut self.events {
            if let Event::Lost { rail, why, .. } = event
                && why.is_none()
            {
                *why = why_of(rail);
            }
        }
    }

    /// Rails that are lost at the moment: name, since when in seconds on the axis, why if that is known.
    pub fn lost(&self) -> impl Iterator<Item = (&str, f64, Option<&str>)> {
        self.rails.iter().zip(&self.lost).zip(&self.read_s).filter(|((_, lost), _)| **lost).map(
            move |((rail, _), read_s)| {
                let why = self.events.iter().rev().find_map(|event| match event {
                    Event::Lost { rail: name, why, .. } if *name == rail.name => Some(why.as_deref()),
                    _ => None,
                });
                (rail.name.as_str(), read_s.unwrap_or(0.0), why.flatten())
            },
        )
    }

    /// Rails that make up the machine's total; see [`total_of`].
    pub fn total(&self) -> Vec<usize> {
        total_of(&self.rails)
    }

    /// Mean watts of a rail over the last `seconds`; none if it was not seen for so long.
    pub fn watts(&self, rail: usize, seconds: f64) -> Option<f64> {
        if self.missing.get(rail).copied().unwrap_or(true) {
            return None;
        }
        let series = self.series.get(rail)?;
        let (first_s, last_s) = series.span()?;
        let from_s = (last_s - seconds).max(first_s);
        // A hole in the window: what is known of its newest part.
        series.watts(from_s, last_s).or_else(|| series.watts(series.instants(from_s, last_s).last()?, last_s))
    }

    /// When it was sampled last, in seconds on the sampler's axis.
    pub fn last_s(&self) -> Option<f64> {
        self.last_at_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::Basis;
    use crate::energy::meters::Part;

    fn rails(n: usize) -> Vec<Rail> {
        (0..n)
            .map(|i| Rail {
                name: format!("test/{i}"),
                device: String::new(),
                part: Part::Gpu,
                basis: Basis::Power,
                uncertainty: None,
                renewed_s: 0.01,
                cap_w: None,
            })
            .collect()
    }

    fn trace(readings: &[(f64, Reading)]) -> Trace {
        let mut trace = Trace::new(rails(1), 0.1);
        for (at_s, reading) in readings {
            trace.take(*at_s, 1e9 + at_s, &[*reading]);
        }
        trace
    }

    #[test]
    fn power_is_integrated_and_counters_are_taken_as_they_are() {
        use Reading::{Joules, Watts};
        let power = trace(&[(0.0, Watts(10.0)), (0.1, Watts(30.0)), (0.2, Watts(30.0))]);
        assert!((power.series[0].between(0.0, 0.2).unwrap() - 5.0).abs() < 1e-9);
        assert!((power.watts(0, 0.1).unwrap() - 30.0).abs() < 1e-9);
        let counter = trace(&[(0.0, Joules(500.0)), (0.1, Joules(503.0)), (0.2, Joules(503.0)), (0.3, Joules(510.0))]);
        assert!((counter.series[0].between(0.0, 0.3).unwrap() - 10.0).abs() < 1e-9);
        assert!(power.events.is_empty() && counter.events.is_empty());
    }

    #[test]
    fn a_gap_is_bridged_by_a_counter_and_left_open_by_power() {
        use Reading::{Joules, Missing, Watts};
        let counter = trace(&[(0.0, Joules(0.0)), (0.1, Joules(1.0)), (9.0, Joules(90.0))]);
        assert!((counter.series[0].between(0.0, 9.0).unwrap() - 90.0).abs() < 1e-9);
        assert_eq!(counter.events, [Event::Gap { from_s: 0.1, to_s: 9.0 }]);
        let power = trace(&[(0.0, Watts(10.0)), (0.1, Watts(10.0)), (9.0, Watts(10.0)), (9.1, Watts(10.0))]);
        assert_eq!(power.series[0].between(0.0, 9.0), None);
        assert!((power.series[0].between(9.0, 9.1).unwrap() - 1.0).abs() < 1e-9);
        // A meter that disappears is unknown from then on, and counted again when it comes back.
        let gone = trace(&[(0.0, Watts(10.0)), (0.1, Watts(10.0)), (0.2, Missing)]);
        assert_eq!((gone.missing[0], gone.watts(0, 1.0)), (true, None));
        let back = trace(&[(0.0, Watts(10.0)), (0.1, Missing), (0.2, Watts(20.0)), (0.3, Watts(20.0))]);
        assert_eq!(back.series[0].between(0.0, 0.2), None);
        assert!((back.series[0].between(0.2, 0.3).unwrap() - 2.0).abs() < 1e-9);
        assert!(trace(&[(0.0, Watts(f64::NAN))]).missing[0]);
    }

    #[test]
    fn a_wall_clock_that_is_set_is_noticed_and_moves_no_joule() {
        let mut trace = Trace::new(rails(1), 0.1);
        for (at_s, wall_s) in [(0.0, 100.0), (0.1, 100.1), (0.2, 3700.2), (0.3, 3700.3)] {
            trace.take(at_s, wall_s, &[Reading::Watts(10.0)]);
        }
        let [Event::ClockStep { at_s, by_s }] = trace.events.make_contiguous()[..] else {
            panic!("{:?}", trace.events)
        };
        assert!(at_s == 0.2 && (by_s - 3600.0).abs() < 1e-6);
        assert!((trace.series[0].between(0.0, 0.3).unwrap() - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_rail_that_goes_silent_is_said_once_and_so_is_its_return() {
        use Reading::{Missing, Watts};
        let mut trace = Trace::new(rails(2), 1.0);
        for second in 0..20_u32 {
            let at_s = f64::from(second);
            let plug = if (5..12).contains(&second) { Missing } else { Watts(10.0) };
            trace.take(at_s, 1e9 + at_s, &[plug, Missing]);
            let lost: Vec<(&str, f64)> = trace.lost().map(|(rail, since_s, _)| (rail, since_s)).collect();
            let silent = (7..12).contains(&second);
            assert_eq!(lost, if silent { vec![("test/0", 4.0)] } else { vec![] }, "{second}");
        }
        let lost = Event::Lost { rail: "test/0".to_owned(), since_s: 4.0, why: None, total: true };
        let back = Event::Back { rail: "test/0".to_owned(), at_s: 12.0 };
        assert_eq!(trace.events, [lost, back], "a rail that never said anything has not gone");
        trace.explain(|rail| (rail == "test/0").then(|| "pulled".to_owned()));
        assert!(matches!(&trace.events[0], Event::Lost { why: Some(why), .. } if why == "pulled"));
    }

    #[test]
    fn the_newest_events_are_kept_and_told_once() {
        let mut trace = Trace::new(rails(1), 0.1);
        let mut told = 0;
        for i in 0..1_500_u32 {
            let at_s = f64::from(i) * 10.0;
            trace.take(at_s, 1e9 + at_s, &[Reading::Watts(1.0)]);
            assert_eq!(trace.news(told).count(), usize::from(i > 0), "{i}");
            told = trace.noticed;
        }
        assert_eq!((trace.events.len(), trace.noticed), (MOST_EVENTS, 1_499));
        assert_eq!(trace.events.back(), Some(&Event::Gap { from_s: 14_980.0, to_s: 14_990.0 }));
        assert_eq!((trace.news(0).count(), trace.news(1_498).count()), (MOST_EVENTS, 1));
    }
}
