//! What the queries of a gateway cost on this machine: each is a span of time, settled once the meters have passed its end.
//!
//! Invariants: nobody on the request path waits; whoever asked for a settlement is told exactly once, also when the ledger ends;
//! what the meters are too slow for, or did not see, is told as unknown and never as 0. Only rails with a sensor count, except
//! that the estimator stands in for a processor without one beside them. Who is charged what is [`accounts`]' part.

mod accounts;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::energy::Basis;
use crate::energy::attribution::Span;
use crate::energy::meters::{Meter, Rail};
use crate::energy::sampler::Sampler;
use crate::energy::series::Series;
use accounts::{Accounts, Done, PATIENCE_S, Progress};

pub use accounts::Measured;

/// How long a start waits for the meters' first figures.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Without work it looks up this often: whether the machine is at rest, and whether anybody is left.
const LOOK_UP: Duration = Duration::from_millis(500);

/// A handle; clones share one book. The thread ends with the last of them.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

/// A query that runs. Dropped without [`Running::close`] it still takes its share from the others.
pub struct Running {
    ledger: Ledger,
    id: u64,
    progress: Arc<Progress>,
}

/// Where a query's answer says how far it is. Cheap; nobody waits.
#[derive(Clone)]
pub struct Pace {
    origin: Instant,
    progress: Arc<Progress>,
}

struct Shared {
    sampler: Sampler,
    /// Indices of the rails that make up the total.
    rails: Vec<usize>,
    names: Vec<String>,
    accounts: Mutex<Accounts>,
    changed: Condvar,
}

impl Ledger {
    /// Starts reading `meters` every `every`. None where no rail of the machine's total has a sensor.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(meters: Vec<Box<dyn Meter>>, every: Duration) -> std::io::Result<Option<Self>> {
        let all: Vec<Rail> = meters.iter().flat_map(|meter| meter.rails().to_vec()).collect();
        let total = crate::energy::meters::total_of(&all);
        let (rails, known): (Vec<usize>, Vec<Rail>) =
            total.into_iter().filter_map(|i| Some((i, all.get(i)?.clone()))).unzip();
        if known.iter().all(|rail| rail.basis > Basis::Power) {
            return Ok(None);
        }
        let names = known.iter().map(|rail| rail.name.clone()).collect();
        let sampler = Sampler::start(meters, every)?;
        // The first query lies inside the trace too.
        sampler.wait_past(0.0, FIRST_LOOK);
        let accounts = Mutex::new(Accounts::new(known, sampler.every().as_secs_f64(), sampler.now_s()));
        let shared = Arc::new(Shared { sampler, rails, names, accounts, changed: Condvar::new() });
        let theirs = Arc::downgrade(&shared);
        std::thread::Builder::new().name("energy ledger".to_owned()).spawn(move || serve(&theirs))?;
        Ok(Some(Self { shared }))
    }

    /// A query begins to run. None when too many do.
    pub fn open(&self) -> Option<Running> {
        let now_s = self.shared.sampler.now_s();
        let (id, progress) = self.shared.accounts().open(now_s)?;
        Some(Running { ledger: self.clone(), id, progress })
    }

    /// Waits until everybody was told, at most a little over twice the patience. Blocks.
    pub fn settle(&self) {
        let until = clock::now() + Duration::from_secs_f64(2.0 * PATIENCE_S) + LOOK_UP;
        while self.shared.accounts().is_waited_for() && clock::now() < until {
            std::thread::sleep(self.shared.sampler.every() / 2);
        }
    }

    /// Names of the rails that are read, with the basis of their sum.
    pub fn rails(&self) -> (Vec<&str>, Basis) {
        (self.shared.names.iter().map(String::as_str).collect(), self.shared.accounts().basis())
    }
}

impl Running {
    /// A prompt of so many tokens is read now, and what is written will be told.
    pub fn reads(&self, input_tokens: u32) {
        self.progress.reads(input_tokens);
    }

    /// Where its answer says how far it is.
    pub fn pace(&self) -> Pace {
        Pace { origin: self.ledger.shared.sampler.origin(), progress: self.progress.clone() }
    }

    /// The query has ended. `told` is called on the ledger's thread.
    pub fn close(
        self,
        first: Option<Instant>,
        tokens: [Option<u32>; 2],
        told: impl FnOnce(Option<Measured>) + Send + 'static,
    ) {
        let shared = &self.ledger.shared;
        let now_s = shared.sampler.now_s();
        let first_s = first.map(|at| shared.sampler.at_s(at));
        let [input_tokens, output_tokens] = tokens.map(|n| n.map_or(0.0, f64::from));
        let span = Span { start_s: 0.0, first_s, end_s: now_s, input_tokens, output_tokens };
        shared.accounts().close(self.id, Some(span), now_s, Some(Box::new(told)));
        // Dropping the guard wakes the thread.
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let shared = &self.ledger.shared;
        shared.accounts().close(self.id, None, shared.sampler.now_s(), None);
        shared.changed.notify_one();
    }
}

impl Pace {
    /// So many tokens more were written.
    pub fn wrote(&self, tokens: usize) {
        if tokens > 0 {
            self.progress.writes(tokens as u64, accounts::since(self.origin, clock::now()));
        }
    }
}

/// The thread: settles what can be settled, and looks at the machine at rest.
fn serve(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        for (told, measured) in shared.settle() {
            told(measured);
        }
        let accounts = shared.accounts();
        let every = shared.sampler.every();
        let pause = if accounts.is_empty() { LOOK_UP.max(every) } else { every };
        let (accounts, _) = shared.changed.wait_timeout(accounts, pause).unwrap_or_else(PoisonError::into_inner);
        drop(accounts);
    }
}

impl Shared {
    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self) -> Vec<Done> {
        let mut accounts = self.accounts();
        self.sampler.look(|trace| {
            let series: Vec<&Series> = self.rails.iter().filter_map(|rail| trace.series.get(*rail)).collect();
            accounts.settle(&series, self.sampler.now_s(), trace.last_s().unwrap_or(0.0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::meters::{Part, Reading};
    use std::sync::mpsc;

    /// A hundred watts by a counter that is always fresh; nothing can be read once `gone`.
    struct Steady {
        rails: [Rail; 1],
        since: Instant,
        gone: Arc<Mutex<bool>>,
    }

    impl Meter for Steady {
        fn rails(&self) -> &[Rail] {
            &self.rails
        }

        fn read(&mut self, out: &mut Vec<Reading>) {
            out.clear();
            let counted = Reading::Joules(100.0 * self.since.elapsed().as_secs_f64());
            out.push(if *self.gone.lock().unwrap() { Reading::Missing } else { counted });
        }
    }

    fn ledger(basis: Basis) -> (Option<Ledger>, Arc<Mutex<bool>>) {
        let rail = Rail {
            name: "steady/one".to_owned(),
            device: String::new(),
            part: Part::Package,
            basis,
            uncertainty: None,
            renewed_s: 0.001,
            cap_w: None,
        };
        let gone = Arc::new(Mutex::new(false));
        let meter = Steady { rails: [rail], since: clock::now(), gone: gone.clone() };
        let ledger = Ledger::start(vec![Box::new(meter)], Duration::from_millis(1)).unwrap();
        if let Some(ledger) = &ledger {
            assert!(ledger.shared.sampler.wait_past(0.0, Duration::from_secs(5)));
        }
        (ledger, gone)
    }

    fn wait(ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    #[test]
    fn queries_beside_each_other_share_what_the_counter_counted() {
        let (ledger, _) = ledger(Basis::Counter);
        let ledger = ledger.unwrap();
        let began = clock::now();
        let (told, heard) = mpsc::channel();
        let running: Vec<Running> = (0..2).map(|_| ledger.open().unwrap()).collect();
        wait(40);
        for (tokens, running) in [10, 30].into_iter().zip(running) {
            let told = told.clone();
            let first = Some(began);
            running.close(first, [Some(5), Some(tokens)], move |m| told.send((tokens, m.unwrap())).unwrap());
        }
        let took_s = began.elapsed().as_secs_f64();
        let mut parts: Vec<(u32, Measured)> = heard.iter().take(2).collect();
        parts.sort_unstable_by_key(|(tokens, _)| *tokens);
        let mid = |i: usize| parts[i].1.joules.mid.unwrap();
        // Together no more than was counted, most of it; apart by the tokens they wrote.
        let sum = mid(0) + mid(1);
        assert!(sum <= 100.0 * took_s && sum >= 100.0 * 0.038, "{sum} of {}", 100.0 * took_s);
        assert!((mid(1) / mid(0) - 3.0).abs() < 0.5, "{parts:?}");
        let one = parts[0].1;
        assert_eq!(one.joules.basis, Basis::Counter);
        assert!((one.prefill + one.decode - one.joules.mid.unwrap()).abs() < 1e-9);
    }

    #[test]
    fn what_the_meter_cannot_tell_is_unknown_and_everybody_is_told_once() {
        let (ledger, gone) = ledger(Basis::Counter);
        let ledger = ledger.unwrap();
        let (told, heard) = mpsc::channel();
        let tell = || {
            let told = told.clone();
            move |m: Option<Measured>| told.send(m).unwrap()
        };
        // Too short.
        ledger.open().unwrap().close(None, [None, None], tell());
        assert_eq!(heard.recv().unwrap(), None);
        // The meter goes away half-way.
        let running = ledger.open().unwrap();
        *gone.lock().unwrap() = true;
        wait(20);
        running.close(None, [None, None], tell());
        assert_eq!(heard.recv().unwrap(), None);
        // The ledger ends while a query waits for another.
        let (beside, running) = (ledger.open().unwrap(), ledger.open().unwrap());
        running.close(None, [None, None], tell());
        drop((beside, ledger));
        assert_eq!(heard.recv().unwrap(), None);
        drop(told);
        assert!(heard.recv().is_err(), "told once each");
    }

    #[test]
    fn an_estimate_alone_starts_no_ledger() {
        assert!(ledger(Basis::Utilisation).0.is_none());
        assert!(Ledger::start(Vec::new(), Duration::from_millis(1)).unwrap().is_none());
    }
}
