//! What a backend's own traffic says against its table: joules, first token, speed and length, as factors. Pure.
//!
//! Each factor is a ratio of sums in which old answers fade: it starts at 1 (the table), moves towards what is seen, and stays
//! within [`BOUND`] of the table whatever is seen. Joules are learned only from meters that count or integrate power.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::classify::domain::{DOMAINS, Domain};
use crate::energy::Basis;
use crate::tables::Table;

/// A factor stays between one over this and this: beyond it the table is of another machine, and should be measured anew.
pub const BOUND: f64 = 3.0;
/// After so many answers an old one counts half.
pub const HALF_LIFE: f64 = 100.0;
/// Figures outside of this are no seconds, joules or tokens of an answer.
const SENSIBLE: std::ops::Range<f64> = 1e-9..1e12;
/// One answer counts as at most this many times what the table expects: a client that asks for a novel is one client.
const MOST: f64 = 9.0;

/// Observed over expected, fading.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Track {
    /// Observed, as a faded mean of shares of what was expected.
    seen: f64,
    /// Expected, likewise.
    expected: f64,
    /// Answers it is made of.
    pub n: u64,
}

impl Default for Track {
    fn default() -> Self {
        Self { seen: 1.0, expected: 1.0, n: 0 }
    }
}

impl Track {
    /// Takes one answer. Figures that are no positive numbers are left out.
    pub fn take(&mut self, seen: f64, expected: f64) {
        if !SENSIBLE.contains(&seen) || !SENSIBLE.contains(&expected) {
            return;
        }
        // Long answers weigh as much as they cost, relative to what is usual: the first one says what usual is.
        if self.n == 0 {
            (self.seen, self.expected) = (expected, expected);
        }
        let fresh = 1.0 - 0.5_f64.powf(1.0 / HALF_LIFE);
        let weight = expected.min(MOST * self.expected);
        self.seen += fresh * (weight * (seen / expected).min(MOST) - self.seen);
        self.expected += fresh * (weight - self.expected);
        self.n += 1;
    }

    /// Observed over expected, within the bound.
    pub fn factor(&self) -> f64 {
        let raw = self.seen / self.expected;
        if raw.is_finite() { raw.clamp(1.0 / BOUND, BOUND) } else { 1.0 }
    }

    fn sound(&self) -> bool {
        self.seen.is_finite() && self.expected.is_finite() && self.seen >= 0.0 && self.expected > 0.0
    }
}

/// One answer of one backend, and what its table expected of it. Unknown is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    /// Domain of the query.
    pub domain: Option<Domain>,
    /// Generated tokens: seen, expected in this domain.
    pub output: Option<(f64, f64)>,
    /// Seconds to the first token: seen, expected.
    pub first_s: Option<(f64, f64)>,
    /// Seconds from there to the last: seen, expected.
    pub rest_s: Option<(f64, f64)>,
}

/// Everything learned of one backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimates {
    /// The table that the factors are of: when it changes, they start anew.
    pub table: String,
    /// Joules.
    pub joules: Track,
    /// Seconds to the first token.
    pub first: Track,
    /// Seconds per generated token.
    pub rest: Track,
    /// Generated tokens, by domain in the taxonomy's order.
    pub output: Vec<Track>,
}

impl Estimates {
    /// Nothing learned yet.
    pub fn of(table: &Table) -> Self {
        Self {
            table: fingerprint(table),
            joules: Track::default(),
            first: Track::default(),
            rest: Track::default(),
            output: vec![Track::default(); DOMAINS],
        }
    }

    /// Whether these are of this table, and whole.
    pub fn fits(&self, table: &Table) -> bool {
        let tracks = [&self.joules, &self.first, &self.rest];
        self.table == fingerprint(table)
            && self.output.len() == DOMAINS
            && tracks.into_iter().chain(&self.output).all(Track::sound)
    }

    /// Takes one answer's times and length.
    pub fn take(&mut self, answer: Answer) {
        let track = answer.domain.and_then(|d| self.output.get_mut(d.index()));
        if let (Some((seen, expected)), Some(track)) = (answer.output, track) {
            track.take(seen, expected);
        }
        if let Some((seen, expected)) = answer.first_s {
            self.first.take(seen, expected);
        }
        if let Some((seen, expected)) = answer.rest_s {
            self.rest.take(seen, expected);
        }
    }

    /// Takes one answer's joules, if a meter counted them or integrated power. False: it did not.
    pub fn take_joules(&mut self, seen: f64, expected: f64, basis: Basis) -> bool {
        let sound = matches!(basis, Basis::Counter | Basis::Power);
        if sound {
            self.joules.take(seen, expected);
        }
        sound
    }
}

/// What makes a table another one: anything in it, because every figure of it may be what a factor is of.
fn fingerprint(table: &Table) -> String {
    let content = serde_json::to_vec(table).unwrap_or_default();
    format!("{} | {} | {} | {}", table.model, table.device, table.attention, blake3::hash(&content).to_hex())
}

/// Factors in force: written beside the request path, read in it. One load each, no lock.
#[derive(Debug)]
pub struct Factors {
    joules: AtomicU64,
    first: AtomicU64,
    rest: AtomicU64,
    output: [AtomicU64; DOMAINS],
}

impl Default for Factors {
    fn default() -> Self {
        let one = || AtomicU64::new(1.0_f64.to_bits());
        Self { joules: one(), first: one(), rest: one(), output: std::array::from_fn(|_| one()) }
    }
}

impl Factors {
    /// Puts learned factors in force.
    pub fn set(&self, estimates: &Estimates) {
        let put = |cell: &AtomicU64, track: &Track| cell.store(track.factor().to_bits(), Ordering::Relaxed);
        put(&self.joules, &estimates.joules);
        put(&self.first, &estimates.first);
        put(&self.rest, &estimates.rest);
        self.output.iter().zip(&estimates.output).for_each(|(cell, track)| put(cell, track));
    }

    /// On joules.
    pub fn joules(&self) -> f64 {
        read(&self.joules)
    }

    /// On seconds to the first token.
    pub fn first(&self) -> f64 {
        read(&self.first)
    }

    /// On seconds per generated token.
    pub fn rest(&self) -> f64 {
        read(&self.rest)
    }

    /// On generated tokens, by domain.
    pub fn outputs(&self) -> impl Iterator<Item = f64> + '_ {
        self.output.iter().map(read)
    }
}

fn read(cell: &AtomicU64) -> f64 {
    f64::from_bits(cell.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tables::shipped;

    proptest! {
        #[test]
        fn factors_stay_within_their_bound_whatever_comes(
            each in prop::collection::vec((prop::num::f64::ANY, prop::num::f64::ANY), 0..400),
        ) {
            let mut track = Track::default();
            for (seen, expected) in each {
                track.take(seen, expected);
                prop_assert!((1.0 / BOUND..=BOUND).contains(&track.factor()), "{track:?}");
                prop_assert!(track.sound());
            }
        }

        #[test]
        fn steady_traffic_is_learned_and_a_change_forgotten(truth in 0.4_f64..2.8, scale in 0.1_f64..1e4, seed in 0_u64..1000) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut track = Track::default();
            let mut feed = |track: &mut Track, truth: f64, n: u32| {
                for _ in 0..n {
                    let expected = scale * (0.2 + random.f64());
                    track.take(expected * truth * (0.5 + random.f64()), expected);
                }
            };
            feed(&mut track, truth, 1200);
            prop_assert!((track.factor() / truth - 1.0).abs() < 0.15, "{truth} {track:?}");
            feed(&mut track, 1.0, 1200);
            prop_assert!((track.factor() - 1.0).abs() < 0.15, "{track:?}");
        }
    }

    #[test]
    fn half_of_the_way_is_gone_after_the_half_life() {
        let mut track = Track::default();
        (0..100).for_each(|_| track.take(2.0, 1.0));
        assert!((track.factor() - 1.5).abs() < 1e-9, "{track:?}");
        assert_eq!(track.n, 100);
    }

    #[test]
    fn joules_are_learned_from_sound_meters_only() {
        let table = shipped("smollm2-135m").unwrap();
        let mut estimates = Estimates::of(&table);
        for basis in [Basis::Utilisation, Basis::Published, Basis::Modelled, Basis::Unknown] {
            assert!(!estimates.take_joules(2.0, 1.0, basis));
        }
        assert_eq!(estimates.joules, Track::default());
        assert!(estimates.take_joules(2.0, 1.0, Basis::Counter) && estimates.take_joules(2.0, 1.0, Basis::Power));
        assert_eq!(estimates.joules.n, 2);
    }

    #[test]
    fn another_table_or_a_damaged_file_starts_anew() {
        let (a, b) = (shipped("smollm2-135m").unwrap(), shipped("qwen3-8b").unwrap());
        let mut estimates = Estimates::of(&a);
        assert!(estimates.fits(&a) && !estimates.fits(&b));
        // Measured anew on the same day: the same names, another figure.
        let mut anew = (*a).clone();
        anew.overall.output_tokens = anew.overall.output_tokens.map(|n| n * 10.0);
        assert!(!estimates.fits(&anew));
        estimates.output.pop();
        assert!(!estimates.fits(&a));
        let text = serde_json::to_string(&Estimates::of(&a)).unwrap().replace("1.0", "null");
        assert!(serde_json::from_str::<Estimates>(&text).is_err());
    }
}
