//! A round of batches in the log's order, and what comes of it: the step of the second pass that needs nothing but the queries.

use rayon::prelude::*;

use super::case::Case;
use super::keep::Sums;
use super::partial::Partial;
use super::simulate::{Setup, simulate};
use super::turn::{Turn, idle, turns, walk};

/// Queries whose place in the log is known.
#[derive(Default)]
pub struct Round {
    /// In the log's order.
    pub batches: Vec<Vec<Case>>,
    /// Lines that they were read from.
    pub lines: u64,
    /// Every query so far has a time of arrival.
    pub timed: bool,
}

impl Sums {
    /// Decides a round, adds it up, and sends it through every route's device.
    pub(super) fn settle(&mut self, setup: &Setup, round: &Round) {
        let (parts, turns): (Vec<Partial>, Vec<Vec<Turn>>) = round
            .batches
            .par_iter()
            .map(|batch| {
                let (part, kept) = simulate(setup, batch);
                (part, turns(setup, batch, &kept))
            })
            .unzip();
        parts.iter().for_each(|part| self.partial.merge(part));
        self.taken += round.lines;
        if round.batches.is_empty() {
            return;
        }
        if !round.timed {
            self.devices.clear();
            return;
        }
        if self.devices.is_empty() {
            self.devices = idle(setup, self.seats);
        }
        walk(&mut self.devices, &turns);
    }
}
