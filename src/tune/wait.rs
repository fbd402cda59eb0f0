//! Waiting at the local device under a policy that is tried: what a search does not see, it overloads. Pure.

use super::Goal;
use super::judge::Row;
use crate::replay::queue::Device;

/// Adds to each answer's seconds what its query waited, where all tell when they arrived; rows are in the order of their arrival.
pub fn add(rows: &mut [Row], seats: usize, goal: Goal) {
    if !known(rows) {
        return;
    }
    let mut device = Device::new(seats);
    for row in rows.iter_mut().filter(|r| r.work > 0.0) {
        let wait = device.home(row.arrival_s, row.work, None);
        row.seconds += wait;
        if goal == Goal::Latency {
            row.objective += wait;
        }
    }
}

/// Whether all tell when they arrived.
pub fn known(rows: &[Row]) -> bool {
    rows.iter().all(|r| r.arrival_s.is_finite())
}
