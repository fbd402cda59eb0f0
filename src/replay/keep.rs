//! What a reader knows between two rounds: begun anew or taken from a checkpoint, and put into one.

use super::checkpoint::State;
use super::learned::{LINES, Names};
use super::partial::Partial;
use super::queue::Device;
use super::reader::Reader;
use super::simulate::{REFERENCES, Setup};
use super::source::Lines;
use crate::clock::{self, Instant};

/// What came of the rounds so far.
pub struct Sums {
    /// Counts and sums.
    pub partial: Partial,
    /// The local device under each route; empty without arrival times.
    pub devices: Vec<Device>,
    /// Seats of a device.
    pub(super) seats: usize,
    /// Lines taken from the log.
    pub taken: u64,
    /// Of those, in the last checkpoint.
    kept: u64,
    began: Instant,
    /// Seconds of the runs before this one.
    before_s: f64,
}

impl Sums {
    /// Seconds so far, runs before this one included.
    pub fn seconds(&self) -> f64 {
        self.before_s + self.began.elapsed().as_secs_f64()
    }
}

impl Reader<'_> {
    /// Nothing yet, or what a checkpoint holds, with the lines before it taken from the log.
    pub(super) fn begin(&mut self, setup: &Setup, lines: &mut Lines) -> Result<Sums, String> {
        let partial = Partial::new(REFERENCES + setup.policies.len(), setup.diff.is_some());
        let seats = self.request.seats;
        let mut sums =
            Sums { partial, devices: Vec::new(), seats, taken: 0, kept: 0, began: clock::now(), before_s: 0.0 };
        let loaded = self.request.checkpoint.as_ref().map(|c| c.load(self.request)).transpose()?;
        let Some(state) = loaded.flatten() else { return Ok(sums) };
        while sums.taken < state.taken {
            let left = usize::try_from(state.taken - sums.taken).unwrap_or(LINES);
            let Some(chunk) = lines.chunk(LINES.min(left))? else {
                return Err(format!("{}: is shorter than its checkpoint", self.request.file.display()));
            };
            sums.taken += chunk.len() as u64;
        }
        self.names = Names::default();
        for name in &state.names {
            self.names.index(name);
        }
        self.keys = state.keys.into_iter().collect();
        (self.forgot, self.timed, self.log) = (state.forgot, state.timed, state.log);
        (self.first_arrival, self.last_arrival) = (state.first_arrival, state.last_arrival);
        self.random = fastrand::Rng::with_seed(state.random);
        (sums.partial, sums.devices) = (state.partial, state.devices);
        (sums.kept, sums.before_s) = (sums.taken, self.log.seconds);
        Ok(sums)
    }

    /// Whether it is time for a checkpoint, so many lines being read beyond the sums.
    pub(super) fn keeps(&self, sums: &Sums, beyond: u64) -> bool {
        self.request.checkpoint.as_ref().is_some_and(|c| sums.taken + beyond - sums.kept >= c.every)
    }

    /// Writes a checkpoint, if one is asked for. Everything that was read is to be in the sums.
    pub(super) fn keep(&mut self, sums: &mut Sums) -> Result<(), String> {
        let Some(checkpoint) = &self.request.checkpoint else { return Ok(()) };
        sums.kept = sums.taken;
        self.log.seconds = sums.seconds();
        let state = State {
            taken: sums.taken,
            names: self.names.all.clone(),
            keys: self.keys.iter().copied().collect(),
            forgot: self.forgot,
            log: self.log.clone(),
            first_arrival: self.first_arrival,
            last_arrival: self.last_arrival,
            timed: self.timed,
            random: self.random.get_seed(),
            partial: std::mem::take(&mut sums.partial),
            devices: std::mem::take(&mut sums.devices),
        };
        let saved = checkpoint.save(self.request, &state);
        (sums.partial, sums.devices) = (state.partial, state.devices);
        saved
    }
}
