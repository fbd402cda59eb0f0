//! Signals for tests: hand-made and random ones.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use super::types::{Candidate, Capabilities, Chance, Pin, Place, Signals, State};
use crate::api::query::Needs;
use crate::classify::domain::{DOMAINS, Posterior};
use crate::energy::{Basis, Joules};

/// Can do everything.
pub const ALL: Capabilities = Capabilities { context: 8192, ..Capabilities::ANY };

/// A ready candidate.
pub fn candidate(backend: &str, p: f64, joules: Option<f64>) -> Candidate {
    Candidate {
        backend: Arc::from(backend),
        place: if backend.starts_with("cloud/") { Place::Cloud } else { Place::Local },
        state: State::Ready,
        caps: ALL,
        learned: None,
        chance: Chance { mean: p, low: (p - 0.1).max(0.0), high: (p + 0.1).min(1.0), n: 100, source: "table" },
        joules: joules.map_or(Joules::UNKNOWN, |j| Joules::range(0.5 * j, j, 2.0 * j, Basis::Modelled)),
        usd: None,
        seconds: None,
        output_tokens: 200.0,
        grid_g_per_kwh: None,
        gco2e: None,
    }
}

/// A plain query over these candidates.
pub fn signals(candidates: Vec<Candidate>) -> Signals {
    Signals {
        posterior: Posterior::none(),
        input_tokens: 10,
        max_output: None,
        needs: Needs::default(),
        beyond_embedded: None,
        pin: Pin::None,
        private: false,
        last: None,
        candidates,
        draw: 0,
    }
}

fn caps() -> impl Strategy<Value = Capabilities> {
    (any::<[bool; 7]>(), select(vec![64u32, 2048, 8192, 128_000])).prop_map(|(b, context)| Capabilities {
        context,
        tools: b[0],
        images: b[1],
        audio: b[2],
        json: b[3],
        many: b[4],
        logprobs: b[5],
        any_field: b[6],
    })
}

fn some_candidate() -> impl Strategy<Value = Candidate> {
    let state = select(vec![
        State::Ready,
        State::Ready,
        State::Ready,
        State::Loading,
        State::Unhealthy,
        State::Full,
        State::NotConfigured(Arc::from("KEY is not set")),
        State::Unable(Arc::from("`tools` is not supported")),
    ]);
    let figures = (0.0..1.0f64, proptest::option::of(0.0..1e4f64), proptest::option::of(0.0..1.0f64));
    (select(vec!["local", "cloud"]), 0..4u8, state, caps(), figures, proptest::option::of(0.0..60.0f64), any::<bool>())
        .prop_map(|(place, n, state, caps, (p, joules, usd), seconds, able)| {
            let mut c = candidate(&format!("{place}/b{n}"), p, joules);
            (c.state, c.usd, c.seconds) = (state, usd, seconds);
            c.caps = if able { ALL } else { caps };
            c
        })
}

prop_compose! {
    /// Any signals: 0 to 6 backends in any state, any needs, pins, privacy and seeds.
    pub fn any_signals()(
        mass in proptest::collection::vec(0.0..1.0f32, DOMAINS),
        input_tokens in select(vec![0u32, 1, 10, 3000, 200_000, u32::MAX]),
        max_output in proptest::option::of(select(vec![1u32, 100, 100_000, u32::MAX])),
        needs in any::<[bool; 6]>(),
        plain in any::<bool>(),
        beyond in proptest::option::weighted(0.2, Just("tools".to_owned())),
        pin in proptest::option::weighted(0.2, select(vec!["local/b0", "cloud/b1", "b2", "nobody"])),
        private in any::<bool>(),
        last in proptest::option::weighted(0.2, select(vec!["local/b0", "cloud/b1", "cloud/b2"])),
        candidates in proptest::collection::vec(some_candidate(), 0..6),
        draw in any::<u64>(),
    ) -> Signals {
        let mut posterior = [0.0; DOMAINS];
        let sum: f32 = mass.iter().sum::<f32>().max(f32::MIN_POSITIVE);
        posterior.iter_mut().zip(&mass).for_each(|(p, m)| *p = m / sum);
        let [tools, images, audio, json, many, logprobs] = needs.map(|n| n && !plain);
        Signals {
            posterior: Posterior(posterior),
            input_tokens,
            max_output,
            needs: Needs { tools, images, audio, json, many, logprobs },
            beyond_embedded: beyond,
            pin: pin.map_or(Pin::None, |p| Pin::Backend(Arc::from(p))),
            private,
            last: last.map(Arc::from),
            candidates,
            draw,
        }
    }
}
