//! The second pass over a log: a reader thread, parsing and simulation on all cores,
//! and between them everything that needs the log's order. Memory is a few rounds of batches, whatever the log's size.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use rayon::prelude::*;

use super::case::{Case, hash};
use super::form::Form;
use super::learned::{Names, Parsed, parse, rounds};
use super::outcome::{BadLine, Log};
use super::partial::Partial;
use super::queue::Device;
use super::round::Round;
use super::run::{Request, Watch};
use super::simulate::Setup;
use super::source::{Chunk, Lines};

/// Batches of a round, for each core.
const ROUND: usize = 3;
/// Keys remembered to find duplicates; beyond, a second occurrence far from the first is not seen, and that is said.
pub const REMEMBERED: usize = 4_000_000;
/// Bad lines shown.
const SHOWN: usize = 10;
/// The second pass.
pub struct Reader<'a> {
    /// What is asked for.
    pub request: &'a Request,
    /// How a line becomes a query.
    pub form: Arc<Form>,
    /// Domains of the log.
    pub names: Names,
    pub(super) keys: HashSet<u64>,
    /// More keys than are remembered came by.
    pub forgot: bool,
    /// What was read.
    pub log: Log,
    pub(super) first_arrival: Option<f64>,
    pub(super) last_arrival: f64,
    /// Every query has a time of arrival.
    pub timed: bool,
    pub(super) random: fastrand::Rng,
}

impl<'a> Reader<'a> {
    /// Ready to read.
    pub fn new(request: &'a Request, form: Arc<Form>, names: Names) -> Self {
        Self {
            request,
            names,
            keys: HashSet::new(),
            forgot: false,
            log: Log { file: request.file.display().to_string(), format: form.name().to_owned(), ..Log::default() },
            form,
            first_arrival: None,
            last_arrival: 0.0,
            timed: true,
            random: fastrand::Rng::with_seed(request.seed),
        }
    }

    /// Everything through the policies; the sums, the local device under each route, and whether the log's end was reached.
    ///
    /// # Errors
    /// File and line.
    pub fn replay(&mut self, setup: &Setup, watch: &Watch) -> Result<(Partial, Vec<Device>, bool), String> {
        let mut lines = Lines::open(&self.request.file)?;
        watch.size.store(lines.size, Ordering::Relaxed);
        let progress = lines.progress();
        let mut sums = self.begin(setup, &mut lines)?;
        watch.before.store(self.log.lines, Ordering::Relaxed);
        let left = self.request.limit.unwrap_or(u64::MAX).saturating_sub(sums.taken);
        let round = ROUND * rayon::current_num_threads();
        let mut complete = true;
        let quit = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            let (send, receive) = sync_channel::<Result<Vec<Chunk>, String>>(2);
            let quit = &quit;
            scope.spawn(move || {
                let mut left = left;
                while !quit.load(Ordering::Relaxed) {
                    let next = rounds(&mut lines, round, &mut left);
                    let last = !matches!(&next, Ok(chunks) if !chunks.is_empty());
                    if send.send(next).is_err() || last {
                        break;
                    }
                }
            });
            let mut waiting = Round::default();
            for chunks in receive {
                let chunks = chunks.inspect_err(|_| quit.store(true, Ordering::Relaxed))?;
                if watch.stop.load(Ordering::Relaxed) {
                    quit.store(true, Ordering::Relaxed);
                    complete = false;
                    break;
                }
                // One round is put into the log's order while the one before it is simulated.
                let (admitted, ()) = rayon::join(|| self.admitted(&chunks), || sums.settle(setup, &waiting));
                waiting = admitted.inspect_err(|_| quit.store(true, Ordering::Relaxed))?;
                if self.keeps(&sums, waiting.lines) {
                    sums.settle(setup, &std::mem::take(&mut waiting));
                    self.keep(&mut sums).inspect_err(|_| quit.store(true, Ordering::Relaxed))?;
                }
                watch.lines.store(self.log.lines, Ordering::Relaxed);
                watch.bytes.store(progress.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            sums.settle(setup, &waiting);
            if complete { Ok(()) } else { self.keep(&mut sums) }
        });
        result?;
        self.log.seconds = sums.seconds();
        Ok((sums.partial, sums.devices, complete))
    }

    /// Parsed and in the log's order.
    fn admitted(&mut self, chunks: &[Chunk]) -> Result<Round, String> {
        let form = Arc::clone(&self.form);
        let parsed: Vec<Parsed> = chunks.par_iter().map(|chunk| parse(&form, chunk)).collect();
        let mut batches = Vec::with_capacity(parsed.len());
        for rows in parsed {
            self.log.passed_over += rows.passed;
            let mut batch = Vec::with_capacity(rows.rows.len());
            for row in rows.rows {
                self.log.lines += 1;
                match row.and_then(|read| self.admit(read.case)) {
                    Ok(case) => batch.push(case),
                    Err(bad) => self.bad(bad)?,
                }
            }
            batches.push(batch);
        }
        Ok(Round { batches, lines: chunks.iter().map(|c| c.len() as u64).sum(), timed: self.timed })
    }

    /// What needs the log's order: keys seen before, the clock, the index of the domain.
    pub fn admit(&mut self, mut case: Case) -> Result<Case, BadLine> {
        if self.keys.len() < REMEMBERED {
            if !self.keys.insert(hash(&case.id)) {
                self.log.duplicates += 1;
                return Err(BadLine { line: case.line, why: format!("its id `{}` was seen before", case.id) });
            }
        } else {
            self.forgot = true;
        }
        case.domain_index = self.names.index(&case.domain);
        case.arrival_s = match (case.arrival_s, self.request.rate) {
            (_, Some(rate)) => {
                self.last_arrival += -(1.0 - self.random.f64()).ln() / rate;
                Some(self.last_arrival)
            }
            (Some(at), None) => {
                let since = at - *self.first_arrival.get_or_insert(at);
                if since < self.last_arrival {
                    self.log.clock_backwards += 1;
                    if self.request.strict {
                        let why = format!("it arrived {:.3} s before an earlier line", self.last_arrival - since);
                        return Err(BadLine { line: case.line, why });
                    }
                }
                self.last_arrival = self.last_arrival.max(since);
                Some(self.last_arrival)
            }
            (None, None) => {
                self.timed = false;
                None
            }
        };
        Ok(case)
    }

    pub fn bad(&mut self, bad: BadLine) -> Result<(), String> {
        if self.request.strict {
            return Err(format!("{}:{}: {}", self.request.file.display(), bad.line, bad.why));
        }
        self.log.bad += 1;
        if self.log.first_bad.len() < SHOWN {
            self.log.first_bad.push(bad);
        }
        Ok(())
    }
}
