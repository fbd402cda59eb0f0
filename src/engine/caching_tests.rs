//! Tests of the engine's thread: what is kept of keys and values, for whom, and within which bound.

use crate::engine::plan::ALIGN;
use crate::engine::tests::{Ask, Reader, ask, bench, tiny};

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
    let cold = super::tests::bench(tiny(), 1).run(&second);
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
