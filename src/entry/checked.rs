//! What a cascade writes down: what came of a check, and what was thrown away for it.

use std::sync::Arc;

use super::{Entry, quality_change};
use crate::backend::Backend;
use crate::clock::{self, Instant};
use crate::energy::ledger::Running;
use crate::journal::record::SHADOW;
use crate::policy::types::Decision;
use crate::state::State;

/// A local answer that was put aside while the cloud is asked.
pub struct Aside {
    backend: Option<Arc<Backend>>,
    running: Option<Running>,
}

impl Entry {
    /// An answer was checked: what came of it, P(it is right), and both in words, which join the reason.
    pub fn checked(&mut self, verdict: &'static str, confidence: f64, said: &str) {
        self.record.verdict = Some(verdict);
        self.record.confidence = Some(confidence);
        self.record.reason = format!("{}; {said}", self.record.reason).into();
    }

    /// This is no request of a client's, but the same query asked again of the backend at `index`, for the comparison.
    pub fn shadow(&mut self, decision: &Decision, id: String, (state, index): (&State, usize), tenant: &Arc<str>) {
        self.decided(decision, id, state);
        let r = &mut self.record;
        r.endpoint = SHADOW;
        r.tenant = Arc::clone(tenant);
        r.quality_change = quality_change(decision, index);
        r.verdict = Some(SHADOW);
        r.propensity = 1.0;
        (r.overhead_us, r.router_joules, r.tier) = (0.0, None, None);
        r.reason = "asked again in the shadow of the answer that was given".into();
        self.baseline = None;
    }

    /// How far a shadow's answer agrees with the one that was given; none where that cannot be told.
    pub fn compared(&mut self, agreement: Option<f64>) {
        self.record.confidence = agreement;
    }

    /// What a judge said of a shadow's answer.
    pub fn judged(&mut self, verdict: Option<f64>) {
        self.record.judged = verdict;
    }

    /// A judge has read, and taken so many tokens (in, out): charged beside the answer.
    pub fn judging(&mut self, judge: &Backend, tokens: [u32; 2]) {
        let [input, output] = tokens.map(f64::from);
        self.wasted(judge.outlook.joules(&self.posterior, input, output).mid);
        self.wasted_usd += judge.outlook.usd(input, output).unwrap_or(0.0);
        self.record.wasted_usd = Some(self.wasted_usd);
    }

    /// The answer under way is put aside.
    pub fn set_aside(&mut self) -> Aside {
        Aside { backend: self.answering.take(), running: self.running.take() }
    }

    /// What was put aside is given after all.
    pub fn taken_back(&mut self, aside: Aside) {
        if let Some(backend) = &aside.backend {
            self.answered_by(&backend.config.name, backend.config.place);
        }
        (self.answering, self.running) = (aside.backend, aside.running);
    }

    /// What was put aside is thrown away, with its tokens (in, out): it is charged by the backend's table, because the meters
    /// tell what it took only later. `asked` is when it was asked.
    pub fn thrown_away(&mut self, aside: Aside, (input, output): (Option<u32>, u32), asked: Instant) {
        let Some(backend) = aside.backend else { return };
        let (input, output) = (f64::from(input.unwrap_or(self.estimated_input)), f64::from(output));
        self.wasted(backend.outlook.joules(&self.posterior, input, output).mid);
        self.wasted_usd += backend.outlook.usd(input, output).unwrap_or(0.0);
        self.record.wasted_usd = Some(self.wasted_usd);
        self.record.wasted_seconds = Some(clock::now().duration_since(asked).as_secs_f64());
    }

    /// Second answers of so many tokens each were drawn for a check, from `asked` to now: thrown away, and charged by the
    /// backend's table. A meter that sees them too counts them again: never too little.
    pub fn sampled(&mut self, backend: &Backend, tokens: &[u32], asked: Instant) {
        let input = f64::from(self.estimated_input);
        for output in tokens {
            self.wasted(backend.outlook.joules(&self.posterior, input, f64::from(*output)).mid);
            self.wasted_usd += backend.outlook.usd(input, f64::from(*output)).unwrap_or(0.0);
        }
        self.record.wasted_usd = Some(self.wasted_usd);
        self.record.wasted_seconds = Some(clock::now().duration_since(asked).as_secs_f64());
    }

    /// Another backend than the chosen one answers, by the policy's own wish.
    pub fn instead(&mut self, decision: &Decision, index: usize) {
        self.record.quality_change = quality_change(decision, index);
    }
}
