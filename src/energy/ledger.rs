//! What the queries of a gateway cost on this machine: each is a span of time, settled once the meters have passed its end.
//!
//! A span is settled with all that overlap it, so it waits for them, at most [`PATIENCE`]. Invariants: nobody on the request
//! path waits; whoever asked for a settlement is told exactly once, also when the ledger ends; what the meters are too slow
//! for, or did not see, is told as unknown and never as 0. Only rails with a sensor count, except that the estimator stands
//! in for a processor without one beside them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::energy::attribution::{self, Share, Span, Weights};
use crate::energy::meters::{Meter, Rail};
use crate::energy::sampler::Sampler;
use crate::energy::{Basis, Joules, idle};

/// How long an ended query waits for those that ran beside it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a start waits for the meters' first figures.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Spans remembered; further queries are not metered.
const MOST_SPANS: usize = 4096;
/// The machine is at rest when no query ran for this long; its idle watts are those of this stretch.
const REST: Duration = Duration::from_secs(8);

/// A handle; clones share one book. The thread ends with the last of them.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

/// A query that runs. Dropped without [`Running::close`] it still takes its share from the others.
pub struct Running {
    ledger: Ledger,
    id: u64,
}

/// What a query took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Low is without the idle machine, mid with it, high with it and the meter's uncertainty.
    pub joules: Joules,
    /// Before its first token, of `mid`.
    pub prefill: f64,
    /// After it.
    pub decode: f64,
}

/// Who is told: a measurement, or that there is none.
type Told = Box<dyn FnOnce(Option<Measured>) + Send>;

struct Shared {
    sampler: Sampler,
    /// Indices of the rails that make up the total, and what they are.
    rails: Vec<(usize, Rail)>,
    book: Mutex<Book>,
    changed: Condvar,
}

struct Book {
    spans: VecDeque<Held>,
    next: u64,
    /// Watts at rest of each rail; 0 until it was measured.
    idle_w: Vec<f64>,
    /// The last instant at which a query ran or the idle watts were taken, in seconds on the sampler's axis.
    busy_s: f64,
}

struct Held {
    id: u64,
    /// Its end is infinite while it runs.
    span: Span,
    told: Option<Told>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            told(None);
        }
    }
}

impl Ledger {
    /// Starts reading `meters` every `every`. None where no rail of the machine's total has a sensor.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(meters: Vec<Box<dyn Meter>>, every: Duration) -> std::io::Result<Option<Self>> {
        let rails: Vec<Rail> = meters.iter().flat_map(|meter| meter.rails().to_vec()).collect();
        let total = crate::energy::meters::total_of(&rails);
        let rails: Vec<(usize, Rail)> = total.into_iter().filter_map(|i| Some((i, rails.get(i)?.clone()))).collect();
        if rails.iter().all(|(_, rail)| rail.basis > Basis::Power) {
            return Ok(None);
        }
        let idle_w = vec![0.0; rails.len()];
        let book = Book { spans: VecDeque::new(), next: 0, idle_w, busy_s: 0.0 };
        let sampler = Sampler::start(meters, every)?;
        // The first query lies inside the trace too.
        sampler.wait_past(0.0, FIRST_LOOK);
        let shared = Arc::new(Shared { sampler, rails, book: Mutex::new(book), changed: Condvar::new() });
        let theirs = Arc::downgrade(&shared);
        std::thread::Builder::new().name("energy ledger".to_owned()).spawn(move || serve(&theirs))?;
        Ok(Some(Self { shared }))
    }

    /// A query begins to run. None when too many do.
    pub fn open(&self) -> Option<Running> {
        let now_s = self.shared.sampler.now_s();
        let mut book = self.shared.book();
        if book.spans.len() >= MOST_SPANS {
            return None;
        }
        let id = book.next;
        book.next += 1;
        let span = Span { start_s: now_s, first_s: None, end_s: f64::INFINITY, input_tokens: 0.0, output_tokens: 0.0 };
        book.spans.push_back(Held { id, span, told: None });
        Some(Running { ledger: self.clone(), id })
    }

    /// Waits until everybody was told, at most a little over [`PATIENCE`]. Blocks.
    pub fn settle(&self) {
        let until = clock::now() + PATIENCE * 2;
        while self.shared.book().spans.iter().any(|held| held.told.is_some()) && clock::now() < until {
            std::thread::sleep(self.shared.sampler.every() / 2);
        }
    }

    /// Names of the rails that are read, with the basis of their sum.
    pub fn rails(&self) -> (Vec<&str>, Basis) {
        (self.shared.rails.iter().map(|(_, rail)| rail.name.as_str()).collect(), self.shared.basis())
    }
}

impl Running {
    /// The query has ended. `told` is called on the ledger's thread.
    pub fn close(
        self,
        first: Option<Instant>,
        tokens: [Option<u32>; 2],
        told: impl FnOnce(Option<Measured>) + Send + 'static,
    ) {
        let shared = &self.ledger.shared;
        let first_s = first.map(|at| shared.sampler.at_s(at));
        let [input, output] = tokens.map(|n| n.map_or(0.0, f64::from));
        let mut book = shared.book();
        if let Some(held) = book.spans.iter_mut().find(|held| held.id == self.id) {
            (held.span.first_s, held.span.input_tokens, held.span.output_tokens) = (first_s, input, output);
            held.told = Some(Box::new(told));
        }
        // Dropping the guard gives the span its end.
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let now_s = self.ledger.shared.sampler.now_s();
        let mut book = self.ledger.shared.book();
        if let Some(held) = book.spans.iter_mut().find(|held| held.id == self.id) {
            held.span.end_s = now_s;
        }
        book.busy_s = now_s;
        drop(book);
        self.ledger.shared.changed.notify_one();
    }
}

/// The thread: settles what can be settled, and looks at the machine at rest.
fn serve(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let every = shared.sampler.every();
        let done = shared.take(&mut shared.book());
        for (mut held, measured) in done {
            if let Some(told) = held.told.take() {
                told(measured);
            }
        }
        let book = shared.book();
        // Without work it looks up now and then: whether the machine is at rest, and whether anybody is left.
        let pause = if book.spans.is_empty() { Duration::from_millis(500).max(every) } else { every };
        let (book, _) = shared.changed.wait_timeout(book, pause).unwrap_or_else(PoisonError::into_inner);
        drop(book);
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn basis(&self) -> Basis {
        self.rails.iter().map(|(_, rail)| rail.basis).max().unwrap_or(Basis::Unknown)
    }

    /// Spans whose time has come, out of the book.
    fn take(&self, book: &mut Book) -> Vec<(Held, Option<Measured>)> {
        let now_s = self.sampler.now_s();
        let seen_s = self.sampler.look(|trace| trace.last_s()).unwrap_or(0.0);
        if book.spans.is_empty() {
            self.rest(book, seen_s);
            return Vec::new();
        }
        let spans: Vec<Span> = book.spans.iter().map(|held| held.span).collect();
        let due = |span: &Span| {
            let alone = spans.iter().all(|o| o.end_s.is_finite() || o.start_s >= span.end_s);
            let patience_over = now_s > span.end_s + PATIENCE.as_secs_f64();
            (span.end_s <= seen_s && alone) || patience_over
        };
        let mut done = Vec::new();
        for held in book.spans.iter_mut().filter(|held| held.told.is_some() && due(&held.span)) {
            let settled = Held { id: held.id, span: held.span, told: held.told.take() };
            done.push((settled, self.measure(&held.span, &spans, &book.idle_w)));
        }
        // A span is kept for as long as one that it overlaps is not settled.
        let open = book.spans.iter().filter(|held| held.told.is_some() || held.span.end_s.is_infinite());
        let oldest_s = open.map(|held| held.span.start_s).fold(f64::INFINITY, f64::min);
        book.spans.retain(|held| held.told.is_some() || held.span.end_s > oldest_s);
        done
    }

    /// One span's share of every rail; none where the meters cannot tell.
    fn measure(&self, span: &Span, spans: &[Span], idle_w: &[f64]) -> Option<Measured> {
        let beside = |other: &&Span| other.start_s < span.end_s && other.end_s > span.start_s;
        let mut group: Vec<Span> = vec![*span];
        // Itself is among the others once.
        let mut skipped = false;
        for other in spans.iter().filter(beside) {
            if !skipped && other == span {
                skipped = true;
                continue;
            }
            group.push(*other);
        }
        let mut sum = Share::default();
        let mut high = 0.0;
        for ((index, rail), idle_w) in self.rails.iter().zip(idle_w) {
            let share = self.sampler.look(|trace| {
                let series = trace.series.get(*index)?;
                let renewed_s = rail.renewed_s.max(self.sampler.every().as_secs_f64());
                let rail = attribution::Rail { series, idle_w: *idle_w, renewed_s };
                let window = (span.start_s, span.end_s);
                attribution::attribute(rail, &group, window, Weights::default()).shares.first().copied()
            })?;
            if share.coarse || share.partial {
                return None;
            }
            sum.gross += share.gross;
            sum.net += share.net;
            sum.prefill += share.prefill;
            sum.decode += share.decode;
            high += share.gross * (1.0 + rail.uncertainty.unwrap_or(0.0));
        }
        let joules = Joules::range(sum.net, sum.gross, high, self.basis());
        (joules.basis != Basis::Unknown).then_some(Measured { joules, prefill: sum.prefill, decode: sum.decode })
    }

    /// Takes the idle watts where nothing ran for long enough.
    fn rest(&self, book: &mut Book, seen_s: f64) {
        let from_s = seen_s - REST.as_secs_f64();
        if from_s < book.busy_s {
            return;
        }
        book.busy_s = seen_s;
        for ((index, rail), idle_w) in self.rails.iter().zip(&mut book.idle_w) {
            let renewed_s = rail.renewed_s.max(self.sampler.every().as_secs_f64());
            let measured =
                self.sampler.look(|trace| idle::measure(trace.series.get(*index)?, from_s, seen_s, renewed_s));
            if let Some(measured) = measured {
                *idle_w = measured.watts;
            }
        }
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
