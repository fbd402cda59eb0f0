//! The local device as an event simulation: so many seats, first come first served, queries at their logged times.
//!
//! It walks the log in order, once per route; its state is the times at which the seats fall free, so a log of any length fits.

use serde::{Deserialize, Serialize};

use super::sketch::{Sketch, Spread};

/// Most slots of a load curve; beyond, slots are joined in pairs.
const SLOTS: usize = 1024;
/// Length of a slot at the start, seconds.
const SLOT_S: f64 = 60.0;
/// Use of the seats above which waiting grows without end.
const FULL: f64 = 1.0;

/// One route's local device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    free: Vec<f64>,
    waits: Sketch,
    totals: Sketch,
    busy_s: f64,
    queries: u64,
    first: Option<f64>,
    last: f64,
    slot_s: f64,
    slots: Vec<Slot>,
}

/// What happened in one stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Its start, seconds since the log's first query.
    pub start_s: f64,
    /// Queries that arrived.
    pub queries: u64,
    /// Of those, sent to the local device.
    pub local: u64,
    /// Service that they ask of it, seconds.
    pub work_s: f64,
    /// Work over what the seats can do in that time: above 1 the queue grows.
    pub load: f64,
    /// Longest wait of a query that arrived then, seconds.
    pub worst_wait_s: f64,
}

/// What a device tells at the end.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Seats.
    pub seats: usize,
    /// Service asked of the device over what its seats can do between first and last arrival.
    pub utilisation: f64,
    /// More is asked than the device can do: waits grow as long as the log does.
    pub overloaded: bool,
    /// Seconds of waiting of local queries; none without any.
    pub wait: Option<Spread>,
    /// Seconds from arrival to the last token, all queries, local and cloud.
    pub total: Option<Spread>,
    /// Seconds that the device still works after the last arrival.
    pub backlog_s: f64,
    /// Length of a slot.
    pub slot_s: f64,
    /// The load over time.
    pub slots: Vec<Slot>,
}

impl Device {
    /// An idle one.
    pub fn new(seats: usize) -> Self {
        Self {
            free: vec![0.0; seats.max(1)],
            waits: Sketch::default(),
            totals: Sketch::default(),
            busy_s: 0.0,
            queries: 0,
            first: None,
            last: 0.0,
            slot_s: SLOT_S,
            slots: Vec::new(),
        }
    }

    /// A query that arrives now and is answered elsewhere in so many seconds.
    pub fn away(&mut self, at: f64, seconds: Option<f64>) {
        self.arrived(at);
        if let Some(s) = seconds {
            self.totals.add(s);
        }
    }

    /// A query for this device, and where its answer is thrown away the seconds elsewhere after it: the seconds that it waits. Arrivals
    /// must not go back in time.
    pub fn home(&mut self, at: f64, service: f64, then: Option<f64>) -> f64 {
        self.arrived(at);
        let Some(seat) = self.free.iter_mut().min_by(|a, b| a.total_cmp(b)) else { return 0.0 };
        let start = seat.max(at);
        *seat = start + service;
        let wait = start - at;
        self.waits.add(wait);
        self.totals.add(wait + service + then.unwrap_or(0.0));
        self.busy_s += service;
        if let Some(slot) = self.slots.get_mut((at / self.slot_s) as usize) {
            slot.local += 1;
            slot.work_s += service;
            slot.worst_wait_s = slot.worst_wait_s.max(wait);
        }
        wait
    }

    fn arrived(&mut self, at: f64) {
        self.first.get_or_insert(at);
        self.last = self.last.max(at);
        self.queries += 1;
        while at / self.slot_s >= SLOTS as f64 {
            self.join();
        }
        let index = (at / self.slot_s) as usize;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, Slot::default());
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.queries += 1;
        }
    }

    fn join(&mut self) {
        self.slot_s *= 2.0;
        let pairs = self.slots.chunks(2).map(|pair| {
            pair.iter().fold(Slot::default(), |mut sum, s| {
                sum.queries += s.queries;
                sum.local += s.local;
                sum.work_s += s.work_s;
                sum.worst_wait_s = sum.worst_wait_s.max(s.worst_wait_s);
                sum
            })
        });
        self.slots = pairs.collect();
    }

    /// What came of it; none where nothing arrived.
    pub fn load(&self) -> Option<Load> {
        let span = (self.last - self.first?).max(1e-9);
        let seats = self.free.len();
        let can = seats as f64;
        let backlog_s = self.free.iter().fold(0.0, |m: f64, f| m.max(f - self.last)).max(0.0);
        let slots = self.slots.iter().enumerate().map(|(i, s)| Slot {
            start_s: i as f64 * self.slot_s,
            load: s.work_s / (self.slot_s * can),
            ..*s
        });
        let utilisation = self.busy_s / (span * can);
        Some(Load {
            seats,
            utilisation,
            overloaded: utilisation >= FULL,
            wait: self.waits.spread(),
            total: self.totals.spread(),
            backlog_s,
            slot_s: self.slot_s,
            slots: slots.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M/M/1 at half load waits as long as it serves; at k = 2 and the same load per seat a third of that (Erlang C).
    #[test]
    fn waits_are_those_of_queueing_theory() {
        for (seats, rate, want) in [(1, 0.5, 1.0), (2, 1.0, 1.0 / 3.0)] {
            let mut random = fastrand::Rng::with_seed(3);
            let mut device = Device::new(seats);
            let mut at = 0.0;
            for _ in 0..400_000 {
                at += -(1.0 - random.f64()).ln() / rate;
                device.home(at, -(1.0 - random.f64()).ln(), None);
            }
            let load = device.load().unwrap();
            let mean = load.wait.unwrap().mean;
            assert!((mean - want).abs() < 0.05 * want, "{seats}: {mean}");
            assert!((load.utilisation - 0.5).abs() < 0.01 && !load.overloaded);
            assert!(load.slots.len() <= SLOTS && load.slots.iter().map(|s| s.queries).sum::<u64>() == 400_000);
        }
    }

    #[test]
    fn an_overloaded_device_shows() {
        let mut device = Device::new(1);
        for i in 0..1000 {
            device.home(f64::from(i), 1.5, None);
        }
        let load = device.load().unwrap();
        assert!(load.overloaded && load.backlog_s > 490.0, "{load:?}");
        assert!(load.wait.unwrap().p95 > 450.0);
    }
}
