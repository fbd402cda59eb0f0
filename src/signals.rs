//! Query and machine to what a policy may look at: classify, predict, and the state of every backend.

use crate::api::query::Query;
use crate::domains::Sorted;
use crate::policy::types::{Pin, Signals, State as Ready};
use crate::predict::Sight;
use crate::predict::success::Read;
use crate::state::State;

/// Everything the policy may look at for one query of a tenant's, and how it was classified. Waits for the sentence encoder
/// at most, within its budget, and only where the configuration has one.
pub async fn of(state: &State, (query, tenant): (&Query, &str), pin: &Pin, private: bool) -> (Signals, Sorted) {
    let classify = *pin == Pin::None || state.config.policy.classify_pinned;
    let sorted = if classify { state.domains.sort(&query.text, tenant).await } else { Sorted::nothing() };
    (seen(state, &sorted, query, pin, private), sorted)
}

fn seen(state: &State, sorted: &Sorted, query: &Query, pin: &Pin, private: bool) -> Signals {
    let posterior = sorted.posterior;
    let (input, max_output) = (query.input_tokens, query.sampling.max_tokens);
    let read = state.backends.iter().any(|b| b.outlook.success.is_some()).then(|| Read::of(&query.text));
    let sight = Sight { posterior: &posterior, read: read.as_ref() };
    let candidates = state
        .backends
        .iter()
        .map(|backend| {
            let ready = match backend.refuses(query) {
                Some(refusal) => Ready::Unable(refusal.message.into()),
                None => backend.state(),
            };
            backend.outlook.foreseen(&sight, input, max_output, ready)
        })
        .collect();
    Signals {
        posterior,
        input_tokens: input,
        max_output,
        needs: query.needs,
        beyond_embedded: query.beyond_embedded.first().cloned(),
        pin: pin.clone(),
        private,
        last: None,
        candidates,
        draw: fastrand::u64(..),
    }
}
