//! Tests of the engine's thread on generated models: its turns are taken one by one, so that what happens when is known.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use candle_core::quantized::GgmlDType;
use tokio::sync::mpsc;

use crate::api::query::Sampling;
use crate::clock;
use crate::engine::generate::Worker;
use crate::engine::model::Model;
use crate::engine::plan::{ALIGN, Pace};
use crate::engine::prefixes::Prefixes;
use crate::engine::queue::Queue;
use crate::engine::sequence::Ticket;
use crate::engine::tiny::Tiny;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::types::{Done, EngineError, Event};
use crate::engine::vocabulary;

const BOMB: u64 = 0xB0_0B00;
const MINE: u64 = 0x3113E;
pub const CONTEXT: u32 = 256;

/// A bug in the engine, for every step with a stream of this owner.
pub fn trip(ticket: &Ticket) {
    assert!(ticket.owner != Some(BOMB), "a bug");
}

/// The same between steps.
pub fn trip_between(ticket: &Ticket) {
    assert!(ticket.owner != Some(MINE), "a bug");
}

pub fn tiny() -> Tiny {
    Tiny { context: CONTEXT, ..Tiny::new("llama", GgmlDType::Q4_1) }
}

pub struct Bench {
    pub worker: Worker,
    pub _folder: tempfile::TempDir,
}

pub fn bench(tiny: Tiny, streams: usize) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    tiny.write(&path).unwrap();
    Bench { worker: worker(&path, streams), _folder: folder }
}

fn worker(path: &Path, streams: usize) -> Worker {
    let model = Model::load(path, CONTEXT, 1).unwrap();
    let vocabulary = vocabulary::read(model.metadata()).unwrap();
    let tokenizer = Arc::new(Tokenizer::new(&vocabulary).unwrap());
    Worker {
        ends: Vec::new(),
        openings: vec![(40..40 + 2 * ALIGN as u32).collect()],
        queue: Arc::new(Queue::new(64, streams)),
        pace: Pace::new(Duration::from_millis(100)),
        kv_bound: streams * model.cache_bytes(CONTEXT as usize),
        report: Arc::default(),
        running: Vec::new(),
        prefixes: Prefixes::default(),
        reused: 0,
        tokenizer,
        model,
    }
}

/// What a stream said: bytes and bits of the log-probability of each token.
pub type Said = Vec<(Vec<u8>, u32)>;

pub struct Reader {
    pub events: mpsc::Receiver<Result<Event, EngineError>>,
    pub said: Said,
    pub end: Option<Result<Done, EngineError>>,
}

impl Reader {
    pub fn read(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            assert!(self.end.is_none(), "an event after the last");
            match event {
                Ok(Event::Token(token)) => self.said.push((token.bytes, token.logprob.unwrap().to_bits())),
                Ok(Event::Done(done)) => self.end = Some(Ok(done)),
                Err(error) => self.end = Some(Err(error)),
            }
        }
    }

    pub fn done(&self) -> &Done {
        self.end.as_ref().unwrap().as_ref().unwrap()
    }
}

#[derive(Clone, Debug)]
pub struct Ask {
    pub prompt: Vec<u32>,
    pub limit: usize,
    pub owner: Option<u64>,
    pub temperature: f32,
    pub seed: u64,
}

pub fn ask(prompt: impl IntoIterator<Item = u32>, limit: usize) -> Ask {
    Ask { prompt: prompt.into_iter().collect(), limit, owner: None, temperature: 0.0, seed: 1 }
}

impl Bench {
    pub fn submit(&self, ask: &Ask) -> Reader {
        let (events, receiver) = mpsc::channel(ask.limit + 2);
        let sampling =
            Sampling { temperature: ask.temperature, seed: Some(ask.seed), logprobs: Some(0), ..Sampling::default() };
        let ticket = Ticket {
            prompt: ask.prompt.clone(),
            sampling,
            limit: ask.limit,
            events,
            submitted: clock::now(),
            owner: ask.owner,
        };
        self.worker.queue.push(ticket).unwrap();
        Reader { events: receiver, said: Vec::new(), end: None }
    }

    pub fn idle(&self) -> bool {
        self.worker.running.is_empty() && self.worker.queue.waiting() == 0
    }

    /// Turns until nothing is left to do; the number of turns.
    pub fn finish(&mut self) -> usize {
        let mut turns = 0;
        while !self.idle() {
            self.worker.turn();
            turns += 1;
            assert!(turns < 5000, "the engine does not come to an end");
        }
        turns
    }

    pub fn run(&mut self, ask: &Ask) -> Reader {
        let mut reader = self.submit(ask);
        self.finish();
        reader.read();
        reader
    }

    pub fn check_memory(&self) {
        let report = *self.worker.report.lock().unwrap();
        let running: usize = self.worker.running.iter().map(|sequence| sequence.cache.bytes()).sum();
        assert!(running <= report.promised, "{running} bytes taken, {} set aside", report.promised);
        assert!(report.promised + report.kept <= self.worker.kv_bound, "{report:?} in {}", self.worker.kv_bound);
    }
}

#[test]
fn streams_share_every_step() {
    let mut bench = bench(tiny(), 4);
    let mut readers: Vec<Reader> = (0..4).map(|i| bench.submit(&ask(60 + i..80 + i, 30))).collect();
    let turns = bench.finish();
    // Prompts take some turns each at first; answers run together.
    assert!((30..50).contains(&turns), "{turns} turns for four answers of 30 tokens");
    readers.iter_mut().for_each(Reader::read);
    assert!(readers.iter().all(|reader| reader.said.len() == 30 && reader.done().output_tokens == 30));
}

#[test]
fn a_long_prompt_never_holds_up_a_token() {
    let mut bench = bench(tiny(), 4);
    let mut speakers: Vec<Reader> = (0..3).map(|i| bench.submit(&ask(60 + i..70 + i, 200))).collect();
    while speakers.iter().any(|reader| reader.said.is_empty()) {
        bench.worker.turn();
        speakers.iter_mut().for_each(Reader::read);
    }
    // A slow machine: 10 ms a token make chunks of 8 in the 100 ms that a step may take.
    let slow = |bench: &mut Bench| (0..50).for_each(|_| bench.worker.pace.saw(100, 1.0));
    slow(&mut bench);
    let mut long = bench.submit(&ask((0..200).map(|i| i % 250), 1));
    let mut turns = 0;
    while long.said.is_empty() {
        let before: Vec<usize> = speakers.iter().map(|reader| reader.said.len()).collect();
        bench.worker.turn();
        slow(&mut bench);
        speakers.iter_mut().chain([&mut long]).for_each(Reader::read);
        turns += 1;
        assert!(speakers.iter().zip(before).all(|(reader, before)| reader.said.len() == before + 1), "turn {turns}");
    }
    assert_eq!(turns, 200 / ALIGN);
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one_however_slow_the_machine() {
    let mut bench = bench(tiny(), 2);
    let slow = |bench: &mut Bench| (0..50).for_each(|_| bench.worker.pace.saw(100, 1.0));
    slow(&mut bench);
    let mut long = bench.submit(&ask((0..200).map(|i| i % 250), 1));
    bench.worker.turn();
    let mut short = bench.submit(&ask(60..80, 2));
    let mut turns = 0;
    while short.end.is_none() {
        slow(&mut bench);
        bench.worker.turn();
        short.read();
        turns += 1;
        assert!(turns < 10, "the short question waits");
    }
    long.read();
    assert!(long.said.is_empty());
}

#[test]
fn who_leaves_is_gone_after_one_turn_and_the_others_stay() {
    let mut bench = bench(tiny(), 3);
    let want = self::bench(tiny(), 1).run(&ask(60..90, 40));
    let (mut stays, leaves) = (bench.submit(&ask(60..90, 40)), bench.submit(&ask(50..99, 200)));
    (0..5).for_each(|_| bench.worker.turn());
    assert_eq!(bench.worker.queue.running(), 2);
    drop(leaves);
    bench.worker.turn();
    assert_eq!((bench.worker.queue.running(), bench.worker.running.len()), (1, 1));
    bench.finish();
    stays.read();
    assert_eq!(stays.said, want.said);
}

#[test]
fn a_job_nobody_waits_for_takes_no_step() {
    let mut bench = bench(tiny(), 2);
    drop(bench.submit(&ask(40..60, 4)));
    assert_eq!(bench.finish(), 1);
    assert_eq!(bench.worker.prefixes.len(), 0);
}

#[test]
fn a_panic_or_a_failed_step_ends_its_own_stream_only() {
    let mut bench = bench(tiny(), 8);
    let want = self::bench(tiny(), 1).run(&ask(60..90, 40));
    let mut good: Vec<Reader> = (0..2).map(|_| bench.submit(&ask(60..90, 40))).collect();
    (0..9).for_each(|_| bench.worker.turn());
    let mut bad = [
        bench.submit(&Ask { owner: Some(BOMB), ..ask(60..90, 40) }),
        bench.submit(&ask([40, u32::MAX], 4)),
        bench.submit(&Ask { owner: Some(BOMB), ..ask(60..61, 40) }),
    ];
    good.push(bench.submit(&ask(60..90, 40)));
    bench.finish();
    good.iter_mut().chain(&mut bad).for_each(Reader::read);
    assert!(good.iter().all(|reader| reader.said == want.said && reader.done().output_tokens == 40));
    assert!(bad.iter().all(|reader| matches!(reader.end, Some(Err(EngineError::Step(_)))) && reader.said.is_empty()));
    assert_eq!((bench.worker.queue.running(), bench.worker.running.len()), (0, 0));
}

#[test]
fn a_panic_outside_a_step_ends_all_streams_and_the_engine_goes_on() {
    let bench = bench(tiny(), 2);
    let mut bad = [bench.submit(&ask(60..90, 200)), bench.submit(&Ask { owner: Some(MINE), ..ask(60..90, 4) })];
    let Bench { worker, _folder } = bench;
    let queue = worker.queue.clone();
    let later = Bench { worker: self::worker(&_folder.path().join("tiny.gguf"), 1), _folder };
    let thread = std::thread::spawn(move || worker.run());
    let mut last = |reader: &mut Reader| std::iter::from_fn(|| reader.events.blocking_recv()).last();
    assert!(bad.iter_mut().map(&mut last).all(|end| matches!(end, Some(Err(EngineError::Step(_))))));
    // The same thread answers the next job.
    let later = Bench { worker: Worker { queue: queue.clone(), ..later.worker }, ..later };
    let mut good = later.submit(&ask(60..90, 4));
    assert!(matches!(last(&mut good), Some(Ok(Event::Done(_)))));
    assert_eq!(queue.running(), 0);
    queue.close();
    thread.join().unwrap();
}
