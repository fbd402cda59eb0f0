//! Tests of the engine's thread on generated models: its turns are taken one by one, so that what happens when is known.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use candle_core::quantized::GgmlDType;
use proptest::prelude::*;
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
const CONTEXT: u32 = 256;

/// A bug in the engine, for every step with a stream of this owner.
pub fn trip(ticket: &Ticket) {
    assert!(ticket.owner != Some(BOMB), "a bug");
}

/// The same between steps.
pub fn trip_between(ticket: &Ticket) {
    assert!(ticket.owner != Some(MINE), "a bug");
}

fn tiny() -> Tiny {
    Tiny { context: CONTEXT, ..Tiny::new("llama", GgmlDType::Q4_1) }
}

struct Bench {
    worker: Worker,
    _folder: tempfile::TempDir,
}

fn bench(tiny: Tiny, streams: usize) -> Bench {
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
type Said = Vec<(Vec<u8>, u32)>;

struct Reader {
    events: mpsc::Receiver<Result<Event, EngineError>>,
    said: Said,
    end: Option<Result<Done, EngineError>>,
}

impl Reader {
    fn read(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            assert!(self.end.is_none(), "an event after the last");
            match event {
                Ok(Event::Token(token)) => self.said.push((token.bytes, token.logprob.unwrap().to_bits())),
                Ok(Event::Done(done)) => self.end = Some(Ok(done)),
                Err(error) => self.end = Some(Err(error)),
            }
        }
    }

    fn done(&self) -> &Done {
        self.end.as_ref().unwrap().as_ref().unwrap()
    }
}

#[derive(Clone, Debug)]
struct Ask {
    prompt: Vec<u32>,
    limit: usize,
    owner: Option<u64>,
    temperature: f32,
    seed: u64,
}

fn ask(prompt: impl IntoIterator<Item = u32>, limit: usize) -> Ask {
    Ask { prompt: prompt.into_iter().collect(), limit, owner: None, temperature: 0.0, seed: 1 }
}

impl Bench {
    fn submit(&self, ask: &Ask) -> Reader {
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

    fn idle(&self) -> bool {
        self.worker.running.is_empty() && self.worker.queue.waiting() == 0
    }

    /// Turns until nothing is left to do; the number of turns.
    fn finish(&mut self) -> usize {
        let mut turns = 0;
        while !self.idle() {
            self.worker.turn();
            turns += 1;
            assert!(turns < 5000, "the engine does not come to an end");
        }
        turns
    }

    fn run(&mut self, ask: &Ask) -> Reader {
        let mut reader = self.submit(ask);
        self.finish();
        reader.read();
        reader
    }

    fn check_memory(&self) {
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

#[test]
fn what_is_cached_for_one_owner_is_not_used_for_another() {
    let mut bench = bench(tiny(), 2);
    let opening = 2 * ALIGN as u32;
    let mut reused = |owner| bench.run(&Ask { owner, ..ask(40..80, 2) }).done().reused_tokens;
    assert_eq!(reused(Some(1)), 0);
    assert_eq!(reused(Some(1)), 40 - ALIGN as u32);
    assert_eq!(reused(Some(2)), opening);
    assert_eq!(reused(None), opening);
    assert_eq!(reused(None), opening);
    assert_eq!(reused(Some(2)), 40 - ALIGN as u32);
    // Running streams are no different.
    let mut all = [Some(7), Some(7), Some(8), None].map(|owner| bench.submit(&Ask { owner, ..ask(100..180, 2) }));
    bench.finish();
    all.iter_mut().for_each(Reader::read);
    assert_eq!(all.map(|reader| reader.done().reused_tokens), [0, 80 - ALIGN as u32, 0, 0]);
}

#[test]
fn a_conversation_goes_on_where_it_was() {
    let mut bench = bench(tiny(), 2);
    let first = Ask { owner: Some(1), ..ask(40..80, 33) };
    bench.run(&first);
    let (held, cache) = bench.worker.prefixes.take_newest().unwrap();
    assert_eq!(held.tokens.len(), 40 + 32, "the last token drawn is never run");
    let second = Ask { prompt: held.tokens.iter().copied().chain(200..220).collect(), limit: 1, ..first };
    bench.worker.prefixes.keep(held, cache);
    let warm = bench.run(&second);
    assert_eq!(warm.done().reused_tokens, 72);
    let cold = self::bench(tiny(), 1).run(&second);
    assert_eq!(cold.done().reused_tokens, 0);
    assert!((warm.done().mean_logprob - cold.done().mean_logprob).abs() < 0.01);
}

#[test]
fn a_job_that_does_not_fit_waits_and_nothing_overtakes_it() {
    let mut bench = bench(tiny(), 4);
    let one = bench.worker.model.cache_bytes(100);
    bench.worker.kv_bound = bench.worker.model.cache_bytes(256);
    let mut first = bench.submit(&ask(60..80, 80));
    bench.worker.turn();
    let mut large = bench.submit(&ask(60..80, 200));
    let mut small = bench.submit(&ask(60..80, 2));
    for _ in 0..20 {
        bench.worker.turn();
        assert_eq!((bench.worker.queue.waiting(), bench.worker.running.len()), (2, 1));
        assert_eq!(bench.worker.report.lock().unwrap().promised, one);
        bench.check_memory();
    }
    while bench.worker.running.iter().all(|sequence| sequence.ticket.limit != 200) {
        bench.worker.turn();
    }
    let limits: Vec<usize> = bench.worker.running.iter().map(|sequence| sequence.ticket.limit).collect();
    assert_eq!(limits, [200, 2]);
    bench.finish();
    [&mut first, &mut large, &mut small].into_iter().for_each(Reader::read);
    assert_eq!(large.said[..80], first.said);
    assert_eq!(small.said[..], first.said[..2]);
}

#[test]
fn kept_beginnings_give_way_oldest_first() {
    let mut bench = bench(tiny(), 2);
    let bound = bench.worker.model.cache_bytes(82) * 7 / 2;
    bench.worker.kv_bound = bound;
    let of = |owner: u64| Ask { owner: Some(owner), ..ask(100..180, 2) };
    for owner in 0..3 {
        bench.run(&of(owner));
        bench.check_memory();
    }
    assert_eq!(bench.worker.prefixes.len(), 3);
    // Owner 0 was used again, so owner 1 is the oldest now, and goes for the fourth.
    assert_eq!(bench.run(&of(0)).done().reused_tokens, 72);
    bench.run(&of(3));
    bench.check_memory();
    assert_eq!(bench.worker.prefixes.len(), 3);
    assert_eq!(bench.run(&of(0)).done().reused_tokens, 72);
    assert_eq!(bench.run(&of(1)).done().reused_tokens, 0);
    // A job that needs all the memory still has the use of its own beginning, which moves into it.
    let most = (82..).take_while(|tokens| bench.worker.model.cache_bytes(*tokens) <= bound).last().unwrap();
    let whole = Ask { limit: most - 80, ..of(1) };
    assert_eq!(bench.run(&whole).done().reused_tokens, 72);
    bench.check_memory();
    assert_eq!(bench.worker.prefixes.len(), 1);
}

/// What happens at one moment of a schedule.
#[derive(Clone, Debug)]
struct Arrival {
    ask: Ask,
    /// Turns before it comes.
    after: usize,
    /// Turns after which its reader leaves.
    leaves: Option<usize>,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let ask = (0_u32..3, 1_usize..90, 1_usize..40, prop::option::of(1_u64..3), prop::bool::ANY, 0_u64..4);
    let ask = ask.prop_map(|(kind, length, limit, owner, greedy, seed)| {
        let start = kind * 5;
        let prompt = (0..length as u32).map(|i| 40 + (start + i + i * i / 60 * kind) % 200).collect();
        Ask { prompt, limit, owner, temperature: if greedy { 0.0 } else { 0.9 }, seed }
    });
    (ask, 0_usize..12, prop::option::weighted(0.2, 0_usize..20)).prop_map(|(ask, after, leaves)| Arrival {
        ask,
        after,
        leaves,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The promise of this module: bit for bit the same answer in any company.
    #[test]
    fn an_answer_does_not_depend_on_its_company(
        arrivals in prop::collection::vec(arrival(), 1..10), streams in 1_usize..6, cost_us in 1_u64..20_000,
        contexts in 1_usize..4, dtype in prop::sample::select(vec![GgmlDType::Q4_1, GgmlDType::Q8_0, GgmlDType::F32]),
    ) {
        let tiny = Tiny::new("llama", dtype);
        let mut bench = bench(tiny, streams);
        bench.worker.kv_bound = bench.worker.model.cache_bytes(CONTEXT as usize) * contexts;
        let mut readers: Vec<(Option<Reader>, Option<usize>)> = Vec::new();
        for arrival in &arrivals {
            for _ in 0..arrival.after {
                if bench.idle() {
                    break;
                }
                bench.worker.pace.saw(16, 16e-6 * cost_us as f64);
                bench.worker.turn();
                bench.check_memory();
                for (reader, leaves) in &mut readers {
                    *leaves = leaves.map(|turns| turns.saturating_sub(1));
                    if *leaves == Some(0) {
                        reader.take();
                    }
                }
            }
            readers.push((Some(bench.submit(&arrival.ask)), arrival.leaves.map(|turns| turns + 1)));
        }
        bench.finish();
        let mut alone = self::bench(tiny, 1);
        for ((reader, _), arrival) in readers.into_iter().zip(&arrivals) {
            let Some(mut reader) = reader else { continue };
            reader.read();
            alone.worker.prefixes.clear();
            let want = alone.run(&arrival.ask);
            prop_assert_eq!(&reader.said, &want.said, "{:?}", arrival);
            prop_assert_eq!(reader.done().output_tokens, want.done().output_tokens);
            prop_assert_eq!(reader.done().mean_logprob.to_bits(), want.done().mean_logprob.to_bits());
        }
    }
}
