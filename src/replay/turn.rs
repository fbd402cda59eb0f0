//! A decided query as the local devices see it: which sides each route asks, and how long each works. Pure.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::queue::Device;
use super::simulate::{REFERENCES, Setup};
use super::way::{Kept, Way};

/// A query as the devices see it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Line of the log.
    pub line: u64,
    /// Arrival, seconds since the log's first query; 0 until the log's order is known.
    #[serde(skip)]
    pub at: f64,
    /// Seconds of service of the local side.
    local: Option<f64>,
    /// Seconds of the cloud's.
    cloud: Option<f64>,
    /// Bit i is set where reference i keeps it local.
    references: u64,
    kept: Kept,
}

impl Turn {
    fn of(setup: &Setup, case: &Case, kept: Kept) -> Self {
        let (w, s) = (case.weak, case.strong);
        let references = [false, true, w.ok >= s.ok, setup.predictions.domain_keeps(case)];
        Self {
            line: case.line,
            at: case.arrival_s.unwrap_or_default(),
            local: setup.local.cost(case.input_tokens, w.output_tokens, w.usd, w.seconds).seconds,
            cloud: setup.cloud.cost(case.input_tokens, s.output_tokens, s.usd, s.seconds).seconds,
            references: references.into_iter().rev().fold(0, |bits, home| bits << 1 | u64::from(home)),
            kept,
        }
    }

    fn way(&self, route: usize) -> Way {
        match route.checked_sub(REFERENCES) {
            Some(policy) => self.kept.by(policy),
            None => Way::of(self.references >> route & 1 == 1),
        }
    }
}

/// The turns of a batch, in its order; queries without a decision have none.
pub fn turns(setup: &Setup, batch: &[Case], kept: &[Option<Kept>]) -> Vec<Turn> {
    batch.iter().zip(kept).filter_map(|(case, kept)| Some(Turn::of(setup, case, (*kept)?))).collect()
}

/// The local device of every route of a replay, idle.
pub fn idle(setup: &Setup, seats: usize) -> Vec<Device> {
    (0..REFERENCES + setup.policies.len()).map(|_| Device::new(seats)).collect()
}

/// Sends queries through every route's device, each route on a core of its own. Arrivals must not go back in time.
pub fn walk(devices: &mut [Device], batches: &[Vec<Turn>]) {
    devices.par_iter_mut().enumerate().for_each(|(route, device)| {
        for turn in batches.iter().flatten() {
            let way = turn.way(route);
            match turn.local.filter(|_| way != Way::Away) {
                Some(service) => {
                    device.home(turn.at, service, if way == Way::Both { turn.cloud } else { None });
                }
                None => device.away(turn.at, if way == Way::Home { None } else { turn.cloud }),
            }
        }
    });
}
