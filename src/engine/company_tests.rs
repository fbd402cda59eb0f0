//! The promise of the engine's thread: bit for bit the same answer in any company, on generated schedules.

use candle_core::quantized::GgmlDType;
use proptest::prelude::*;

use crate::engine::tests::{Ask, CONTEXT, Reader, bench};
use crate::engine::tiny::Tiny;

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
        let mut alone = super::tests::bench(tiny, 1);
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
