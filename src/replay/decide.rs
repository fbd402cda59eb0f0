//! One logged query through every policy: the signals that the live line would have made of it, and the policies' choices.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::case::{Case, hash, mixed};
use super::cost::Tariff;
use super::predictions::Expected;
use super::simulate::Setup;
use super::way::Kept;
use crate::api::query::Needs;
use crate::classify::domain::{DOMAINS, Domain, Posterior};
use crate::policy::types::{Candidate, Capabilities, Decision, Pin, Place, Signals, State};
use crate::verify::{Evidence, Expected as Foreseen};

/// Decisions kept for queries that look the same to a policy, in each of so many parts.
const KEPT: usize = 1 << 14;
const PARTS: usize = 16;

/// Decisions by what a policy can tell two queries apart by. It saves time and changes nothing: `decide` is pure.
#[derive(Default)]
pub struct Known {
    parts: [Mutex<HashMap<Look, Kept>>; PARTS],
}

impl Known {
    fn part(&self, look: &Look) -> Option<&Mutex<HashMap<Look, Kept>>> {
        self.parts.get((look.0 ^ look.1 ^ look.2 as usize) % PARTS)
    }

    fn get(&self, look: &Look) -> Option<Kept> {
        self.part(look)?.lock().unwrap_or_else(PoisonError::into_inner).get(look).copied()
    }

    fn put(&self, look: Look, kept: Kept) {
        let Some(part) = self.part(&look) else { return };
        let mut map = part.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= KEPT {
            map.clear();
        }
        map.insert(look, kept);
    }
}

/// What makes two queries look the same to a policy: their predictions, which follow from domain and fold, and their length.
type Look = (usize, usize, u32);

/// Decides, or takes the decision on a query that looks the same.
pub fn decide(setup: &Setup, case: &Case, expected: &Expected) -> Kept {
    let input = case.input_tokens.min(f64::from(u32::MAX)) as u32;
    let look = (case.domain_index, case.fold(), input);
    let draws = setup.policies.iter().any(|p| p.explore.draws());
    let checked = case.evidence.is_some() && setup.policies.iter().any(|p| p.verify.is_some());
    let again = setup.predictions.by_domain_alone() && !draws && !checked;
    if let Some(kept) = again.then(|| setup.known.get(&look)).flatten() {
        return kept;
    }
    let signals = signals(setup, case, expected, input);
    let mut kept = Kept::default();
    for (i, policy) in setup.policies.iter().enumerate() {
        let decision = policy.decide(&signals);
        let local = decision.chosen == Some(0);
        kept.local |= u64::from(local) << i;
        kept.escalated |= u64::from(local && distrusts(&decision, &signals, case.evidence)) << i;
    }
    if again {
        setup.known.put(look, kept);
    }
    kept
}

/// Whether the check of a decision, if it has one, would not trust an answer that shows this.
pub fn distrusts(decision: &Decision, signals: &Signals, shown: Option<Evidence>) -> bool {
    let Some((cascade, shown)) = decision.cascade.as_ref().zip(shown) else { return false };
    let prompt = f64::from(signals.input_tokens);
    let expected = Foreseen { prior: cascade.prior, tokens: cascade.expected_tokens, prompt };
    cascade.verify.model.p(&Evidence { expected, ..shown }) < cascade.verify.escalate_below
}

/// What the live line would have handed to the policies.
pub fn signals(setup: &Setup, case: &Case, expected: &Expected, input: u32) -> Signals {
    let mut mass = [0.0; DOMAINS];
    let domain = setup.taxonomy.get(case.domain_index).copied().unwrap_or(Domain::NONE);
    if let Some(cell) = mass.get_mut(domain.index()) {
        *cell = 1.0;
    }
    let candidate = |backend: &Arc<str>, place, chance, tokens: f64, tariff: &Tariff| {
        let read = f64::from(input);
        let cost = tariff.cost(read, Some(tokens), None, None);
        // Without a price of its own, the policy's electricity is what counts, as on the live line.
        let usd = cost.usd.filter(|_| tariff.price.is_some());
        let joules = tariff.joules(read, tokens);
        Candidate {
            backend: Arc::clone(backend),
            place,
            state: State::Ready,
            caps: Capabilities::ANY,
            learned: None,
            chance,
            joules,
            usd,
            seconds: cost.seconds,
            output_tokens: tokens,
            grid_g_per_kwh: tariff.grid.as_ref().map(|g| g.mid),
            gco2e: tariff.grid.as_ref().and_then(|g| g.grams(joules)),
        }
    };
    Signals {
        posterior: Posterior(mass),
        input_tokens: input,
        max_output: None,
        needs: Needs::default(),
        beyond_embedded: None,
        pin: Pin::None,
        private: false,
        candidates: vec![
            candidate(&setup.weak, Place::Local, expected.weak, expected.weak_tokens, &setup.local),
            candidate(&setup.strong, Place::Cloud, expected.strong, expected.strong_tokens, &setup.cloud),
        ],
        last: None,
        draw: mixed(setup.seed ^ hash(&case.id)),
    }
}
