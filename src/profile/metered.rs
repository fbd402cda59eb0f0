//! The meters of a run: one sampler over the rails that concern the backend, the settled machine, its idle watts, the books.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::record;
use super::record::window::Window;
use crate::clock;
use crate::energy::Basis;
use crate::energy::books::{Books, Settled, Terms};
use crate::energy::idle::{self, Idle};
use crate::energy::meters::{Part, Places, Rail, discover, discover_own, heat};
use crate::energy::sampler::Sampler;
use crate::energy::trace::Event;

/// How often the machine is looked at while it settles.
const LOOK: Duration = Duration::from_millis(250);
/// The machine is at rest if over so many seconds, or so many renewals of its slowest meter,
const STEADY_S: f64 = 2.0;
const STEADY_RENEWALS: f64 = 8.0;
/// its watts moved by less than this share of them
const STEADY_SHARE: f64 = 0.1;
/// or by less than this.
const STEADY_W: f64 = 0.5;
/// How long a sample is waited for before the meters are taken to have stopped.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whose joules are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The model runs in this process.
    Process,
    /// It runs elsewhere on this machine.
    Machine,
}

/// Meters that are being read.
pub struct Metered {
    sampler: Sampler,
    rails: Vec<Rail>,
    total: Vec<usize>,
    idle: Vec<Option<Idle>>,
    scope: Scope,
    hwmon: PathBuf,
}

/// How a window began.
#[derive(Clone, Debug)]
pub struct Began {
    /// Seconds on the sampler's axis.
    at_s: f64,
    celsius: BTreeMap<String, f64>,
}

/// How the machine came to rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rest {
    /// Seconds waited.
    pub seconds: f64,
    /// Whether its watts stood still at the end.
    pub steady: bool,
}

impl Metered {
    /// Starts reading every meter.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(places: &Places, scope: Scope, every: Duration) -> Result<Self, String> {
        let found = if scope == Scope::Process { discover_own(places) } else { discover(places) };
        let rails = found.rails();
        let sampler = Sampler::start(found.meters, every).map_err(|e| format!("the sampler did not start: {e}"))?;
        let total = sampler.look(|trace| trace.total());
        Ok(Self { sampler, idle: vec![None; rails.len()], rails, total, scope, hwmon: places.hwmon.clone() })
    }

    /// Waits until the watts of the idle machine stand still, at most `most`, and takes the last moments as idle watts.
    pub async fn settle(&mut self, most: Duration) -> Rest {
        let from_s = self.sampler.now_s();
        let found = self.rest(most).await;
        let to_s = self.sampler.look(|trace| trace.last_s()).unwrap_or(from_s);
        let steady = found.is_some();
        // Else the quietest stretch there is: all of it, of which the lower median is taken.
        self.idle = found.unwrap_or_else(|| self.measure(from_s, to_s));
        Rest { seconds: to_s - from_s, steady }
    }

    /// Waits until the watts stand still, at most `most`: after work a machine takes a while to come to rest. What they then
    /// are; none if they did not.
    pub async fn rest(&self, most: Duration) -> Option<Vec<Option<Idle>>> {
        let from_s = self.sampler.now_s();
        let end = clock::now() + most;
        // A meter that is renewed once a second shows nothing within two.
        let long_s = STEADY_S.max(STEADY_RENEWALS * self.renewed_s());
        while clock::now() < end {
            tokio::time::sleep(LOOK.min(end - clock::now())).await;
            let now_s = self.sampler.look(|trace| trace.last_s()).unwrap_or(from_s);
            if now_s - from_s > long_s {
                let idle = self.measure(now_s - long_s, now_s);
                if self.total.iter().all(|rail| is_steady(idle.get(*rail).copied().flatten())) {
                    return Some(idle);
                }
            }
        }
        None
    }

    fn measure(&self, from_s: f64, to_s: f64) -> Vec<Option<Idle>> {
        let period_s = self.sampler.every().as_secs_f64();
        self.sampler.look(|trace| {
            let each = trace.rails.iter().zip(&trace.series);
            each.map(|(rail, series)| {
                let first_s = series.span().map_or(from_s, |span| span.0.max(from_s));
                idle::measure(series, first_s, to_s, rail.renewed_s.max(period_s))
            })
            .collect()
        })
    }

    /// How a window begins now.
    pub fn began(&self) -> Began {
        Began { at_s: self.sampler.now_s(), celsius: heat::celsius(&self.hwmon) }
    }

    /// What a window that ends now says of the machine: gaps, steps of the clock, temperatures, the cost of sampling.
    pub fn window(&self, began: &Began) -> Window {
        let ends = heat::celsius(&self.hwmon);
        let names: BTreeSet<&String> = began.celsius.keys().chain(ends.keys()).collect();
        let celsius =
            names.into_iter().map(|name| (name.clone(), [began.celsius.get(name).copied(), ends.get(name).copied()]));
        let mut window = Window { celsius: celsius.collect(), ..Window::default() };
        self.sampler.look(|trace| {
            for event in &trace.events {
                match *event {
                    Event::Gap { from_s, to_s } if to_s > began.at_s => {
                        window.gaps.push([from_s - began.at_s, to_s - began.at_s]);
                    }
                    Event::ClockStep { at_s, by_s } if at_s > began.at_s => {
                        window.clock_steps.push([at_s - began.at_s, by_s]);
                    }
                    _ => {}
                }
            }
            (window.sampler_core, window.sampler_us) = (trace.cost.core_share, Some(trace.cost.mean_us));
        });
        window
    }

    /// Rails of the total that cannot be read now.
    pub fn away(&self) -> Vec<String> {
        let missing = self.sampler.look(|trace| trace.missing.clone());
        let gone = self.total.iter().filter(|i| missing.get(**i).copied().unwrap_or(false));
        gone.filter_map(|i| Some(self.rails.get(*i)?.name.clone())).collect()
    }

    /// Opens books at this moment.
    pub fn open(&self) -> Books {
        let period_s = self.sampler.every().as_secs_f64();
        let terms = self
            .rails
            .iter()
            .zip(&self.idle)
            .map(|(rail, idle)| Terms { idle_w: idle.map(|i| i.watts), renewed_s: rail.renewed_s.max(period_s) });
        Books::new(terms.collect(), self.sampler.now_s())
    }

    /// An instant on the sampler's axis.
    pub fn at_s(&self, instant: clock::Instant) -> f64 {
        self.sampler.at_s(instant)
    }

    /// Settles what can be settled now.
    pub fn settled(&self, books: &mut Books) -> Vec<Settled> {
        self.sampler.look(|trace| books.settle(&trace.series, trace.last_s().unwrap_or(0.0)))
    }

    /// Waits for a sample after this moment and settles everything that has ended.
    pub async fn closed(&self, books: &mut Books) -> Vec<Settled> {
        let now_s = self.sampler.now_s();
        let end = clock::now() + PATIENCE;
        while clock::now() < end && self.sampler.look(|trace| trace.last_s().is_none_or(|last| last < now_s)) {
            tokio::time::sleep(self.sampler.every() / 2).await;
        }
        self.settled(books)
    }

    /// Watts over the last two seconds; none if a rail of the total is not known.
    pub fn watts(&self) -> Option<f64> {
        let sum = self.sampler.look(|trace| self.total.iter().map(|i| trace.watts(*i, 2.0)).sum::<Option<f64>>());
        sum.filter(|_| !self.total.is_empty())
    }

    /// Rails, in the order of shares and balances.
    pub fn rails(&self) -> &[Rail] {
        &self.rails
    }

    /// Indices of the rails that make up the total.
    pub fn total(&self) -> &[usize] {
        &self.total
    }

    /// How often a rail's figure is new, in seconds, sampling included.
    pub fn renewed_s(&self) -> f64 {
        let slowest = self.total.iter().filter_map(|i| self.rails.get(*i)).map(|r| r.renewed_s);
        slowest.fold(self.sampler.every().as_secs_f64(), f64::max)
    }

    /// Basis of the total: that of its weakest rail; none without a rail.
    pub fn basis(&self) -> Option<Basis> {
        self.total.iter().filter_map(|i| self.rails.get(*i)).map(|r| r.basis).max()
    }

    /// Relative uncertainty of the total: the widest that one of its rails states.
    pub fn uncertainty(&self) -> Option<f64> {
        self.total.iter().filter_map(|i| self.rails.get(*i)?.uncertainty).reduce(f64::max)
    }

    /// What the figures cover, for people.
    pub fn scope(&self) -> String {
        let sensed = self.basis().is_some_and(|b| b < Basis::Utilisation);
        match (self.scope, sensed) {
            _ if self.total.is_empty() => "no meter: joules are not known".to_owned(),
            (Scope::Process, false) => {
                "this process's processor time at busy watts, the rest of the machine at rest: an estimate".to_owned()
            }
            (Scope::Machine, false) => {
                "processor time of the whole machine, every other program's included: an estimate".to_owned()
            }
            (_, true) => "the whole machine's meters, every other program's work included".to_owned(),
        }
    }

    /// The rails as a record file tells of them.
    pub fn about(&self) -> Vec<record::RailAbout> {
        let each = self.rails.iter().zip(&self.idle).enumerate();
        each.map(|(index, (rail, idle))| record::RailAbout {
            name: rail.name.clone(),
            device: rail.device.clone(),
            part: part(rail.part).to_owned(),
            basis: Some(rail.basis),
            total: self.total.contains(&index),
            uncertainty: rail.uncertainty,
            renewed_s: rail.renewed_s,
            cap_w: rail.cap_w,
            idle_w: idle.map(|i| i.watts),
            idle_spread_w: idle.map(|i| i.spread),
        })
        .collect()
    }

    /// Between two samples, in seconds.
    pub fn every_s(&self) -> f64 {
        self.sampler.every().as_secs_f64()
    }
}

fn is_steady(idle: Option<Idle>) -> bool {
    idle.is_some_and(|i| i.spread < STEADY_W.max(i.watts * STEADY_SHARE))
}

fn part(part: Part) -> &'static str {
    match part {
        Part::Gpu => "gpu",
        Part::Package => "package",
        Part::Dram => "dram",
        Part::Machine => "machine",
        Part::Wall => "wall",
        Part::Inner => "inner",
    }
}
