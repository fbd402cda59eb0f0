//! Signals to figures: what a backend would make of this query, before anybody asks it.
//!
//! Pure. [`Outlook`] does the slow part once per backend (shrinkage, the cloud's energy model); per query there are only
//! sums over 23 domains. Falls back step by step and says so: the table, the stated energy model, a prior, unknown.

pub mod arm;
mod coverage;
pub mod fit;
pub mod learn;
pub mod quality;
pub mod success;
mod tell;

use std::path::Path;
use std::sync::Arc;

use crate::classify::domain::{DOMAINS, Domain, Posterior};
use crate::config::checked::{Backend, Energy, EnergyModel, Kind, Price};
use crate::config::problem::{Problem, Problems};
use crate::energy::carbon::{self, Grid};
use crate::energy::cloud::Model;
use crate::energy::{Basis, Joules};
use crate::policy::types::{Candidate, Capabilities, Chance, Place, State};
use crate::tables::stats::Shrunk;
use crate::tables::{self, Row, Table};
use learn::Factors;
use success::{Predictor, Read};

use coverage::weighted;
pub use coverage::{chance, prior};
pub use tell::{has_energy, question_sets};

/// Generated tokens where no table says: the mean of the Azure 2023 conversation trace (19,366 requests).
pub const OUTPUT_TOKENS: f64 = 211.0;
/// Prompt tokens of a query of which nothing is known, where one has to be assumed: a page of text.
const INPUT_TOKENS: u32 = 500;
/// Range of a joule figure whose table states none: half to one and a half.
const UNCERTAIN: f64 = 0.5;

/// What is seen of one query.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// Its domains.
    pub posterior: &'a Posterior,
    /// Its words and shape; none where no predictor asks for them, or the text is not at hand.
    pub read: Option<&'a Read>,
}

/// One backend, ready to be asked per query.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// Name from the configuration.
    pub backend: Arc<str>,
    /// Where it runs.
    pub place: Place,
    /// What it can do.
    pub caps: Capabilities,
    /// Its table, if there is one.
    pub table: Option<Arc<Table>>,
    /// The stated cloud model, if there is one.
    pub cloud: Option<Model>,
    /// The grid of its place, if the configuration names one.
    pub grid: Option<Grid>,
    /// What was learned of its model query by query, if the configuration names it.
    pub success: Option<Predictor>,
    /// What its own traffic has taught beyond the table.
    pub factors: Arc<Factors>,
    price: Option<Price>,
    shrunk: Option<Shrunk>,
    outputs: [f64; DOMAINS],
}

impl Outlook {
    /// Prepares a configured backend: finds its table and its energy model.
    ///
    /// # Errors
    /// A table with problems, or a model name without measured points; keys are those of the configuration.
    pub fn of(backend: &Backend, assumed: &Energy) -> Result<Self, Problems> {
        let name = backend.name.split_once('/').map_or(&*backend.name, |(_, n)| n);
        let at = format!("backends.{name}");
        let mut problems = Problems::default();
        let table = tables::find(backend.table.as_deref(), model_of(backend)).unwrap_or_else(|found| {
            problems.0.extend(found.0.into_iter().map(|p| placed(p, &at, backend.table.as_deref())));
            None
        });
        let key = if matches!(backend.energy, EnergyModel::Named(_)) { "model" } else { "points" };
        let cloud = problems.keep(&format!("{at}.energy.{key}"), Model::new(&backend.energy, assumed));
        let here = assumed.region.as_ref().filter(|_| backend.place == Place::Local);
        let (key, place) = match &backend.region {
            Some(own) => (format!("{at}.energy.region"), Some(own)),
            None => ("energy.region".to_owned(), here),
        };
        let grid = place.and_then(|place| problems.keep(&key, carbon::find(place)));
        let mut made = Self::new(Arc::clone(&backend.name), backend.place, backend.caps, table);
        made.cloud = cloud.flatten();
        made.price = backend.price;
        made.grid = grid;
        let learned = backend.success.as_deref().map(|path| Predictor::load(path, model_of(backend)));
        made.success =
            learned.and_then(|found| problems.keep(&format!("{at}.success"), found.map_err(|e| e.to_string())));
        problems.finish(Some(made))
    }

    /// A backend without price and cloud model.
    pub fn new(backend: Arc<str>, place: Place, caps: Capabilities, table: Option<Arc<Table>>) -> Self {
        let shrunk = table.as_deref().map(Table::shrunk);
        let mut outputs = [OUTPUT_TOKENS; DOMAINS];
        if let Some(table) = table.as_deref() {
            for (domain, cell) in Domain::all().zip(outputs.iter_mut()) {
                let own = table.domains.get(&domain).and_then(|r| r.output_tokens);
                *cell = own.or(table.overall.output_tokens).unwrap_or(OUTPUT_TOKENS);
            }
        }
        Self {
            backend,
            place,
            caps,
            table,
            cloud: None,
            grid: None,
            success: None,
            factors: Arc::default(),
            price: None,
            shrunk,
            outputs,
        }
    }

    /// What this backend would make of a query of which nothing is known, as if it could answer now.
    pub fn usual(&self) -> Candidate {
        self.candidate(&Posterior::none(), INPUT_TOKENS, None, State::Ready)
    }

    /// What this backend would make of one query. `max_output` is the client's limit on generated tokens.
    pub fn candidate(&self, posterior: &Posterior, input: u32, max_output: Option<u32>, state: State) -> Candidate {
        self.foreseen(&Sight { posterior, read: None }, input, max_output, state)
    }

    /// The same with what was learned of the query's own words, where it is at hand.
    pub fn foreseen(&self, sight: &Sight, input: u32, max_output: Option<u32>, state: State) -> Candidate {
        let posterior = sight.posterior;
        let output = self.expected_output(sight, input, max_output);
        let read = f64::from(input);
        let joules = self.joules(posterior, read, output);
        Candidate {
            backend: Arc::clone(&self.backend),
            place: self.place,
            state,
            caps: self.caps,
            learned: None,
            chance: self.foreseen_chance(sight),
            joules,
            usd: self.usd(read, output),
            seconds: self.seconds(read, output),
            output_tokens: output,
            grid_g_per_kwh: self.grid.as_ref().map(|g| g.mid),
            gco2e: self.grid.as_ref().and_then(|g| g.grams(joules)),
        }
    }

    /// P(correct) by the predictor, else by the table, else by the prior of its place.
    pub fn foreseen_chance(&self, sight: &Sight) -> Chance {
        let learned = self.success.as_ref().zip(sight.read);
        learned.map_or_else(|| self.chance(sight.posterior), |(p, read)| p.chance(read, sight.posterior))
    }

    /// P(correct) under the posterior.
    pub fn chance(&self, posterior: &Posterior) -> Chance {
        match &self.shrunk {
            Some(shrunk) => weighted(shrunk, posterior),
            None => prior(self.place),
        }
    }

    /// Expected generated tokens, within the client's limit and what the context leaves.
    pub fn output_tokens(&self, posterior: &Posterior, input: u32, max_output: Option<u32>) -> f64 {
        self.expected_output(&Sight { posterior, read: None }, input, max_output)
    }

    fn expected_output(&self, sight: &Sight, input: u32, max_output: Option<u32>) -> f64 {
        let learned = self.success.as_ref().zip(sight.read).and_then(|(p, read)| Some(p.tokens(read)?.mean));
        let each = sight.posterior.0.iter().zip(self.outputs).zip(self.factors.outputs());
        // The factors correct the table, not what was learned of the query itself.
        let expected: f64 = learned.unwrap_or_else(|| each.map(|((p, o), factor)| f64::from(*p) * o * factor).sum());
        let left = self.caps.context.saturating_sub(input);
        expected.min(f64::from(max_output.unwrap_or(u32::MAX))).min(f64::from(left)).max(1.0)
    }

    /// Energy of a query of `input` and `output` tokens, with what was learned of it.
    pub fn joules(&self, posterior: &Posterior, input: f64, output: f64) -> Joules {
        self.tabled_joules(posterior, input, output).times(self.factors.joules())
    }

    /// The same by the table per token, else by the stated model, else by the table per query.
    pub fn tabled_joules(&self, posterior: &Posterior, input: f64, output: f64) -> Joules {
        let table = self.table.as_deref().filter(|t| t.basis != Basis::Unknown);
        let spread = table.and_then(|t| t.tokens.relative_uncertainty).unwrap_or(UNCERTAIN).clamp(0.0, 1.0);
        let around = |mid: f64, basis: Basis| Joules::range(mid * (1.0 - spread), mid, mid * (1.0 + spread), basis);
        if let Some((table, per_output)) = table.and_then(|t| Some((t, t.tokens.joules_per_output_token?))) {
            let per_input = table.tokens.joules_per_input_token.unwrap_or(0.0);
            return around(per_output * output + per_input * input, table.basis);
        }
        if let Some(model) = &self.cloud {
            return model.joules(input, output);
        }
        let whole = table.and_then(|t| Some((per_query(t, posterior)?, t.basis)));
        whole.map_or(Joules::UNKNOWN, |(mid, basis)| around(mid, basis))
    }

    /// Price in US dollars; none without a price.
    pub fn usd(&self, input: f64, output: f64) -> Option<f64> {
        self.price.map(|p| (p.input * input + p.output * output) / 1e6)
    }

    /// Seconds to the last token, with what was learned of them.
    pub fn seconds(&self, input: f64, output: f64) -> Option<f64> {
        let first = self.first_s(input).map(|s| s * self.factors.first());
        match self.rest_s(output) {
            Some(rest) => Some(first.unwrap_or(0.0) + rest * self.factors.rest()),
            None => self.table.as_deref().and_then(|t| t.overall.seconds_per_query),
        }
    }

    /// Seconds to the first token by the table.
    pub fn first_s(&self, input: f64) -> Option<f64> {
        let tokens = self.table.as_deref().map(|t| &t.tokens).filter(|t| t.output_tokens_per_s.is_some())?;
        tokens.input_tokens_per_s.map(|rate| input / rate).or(tokens.ttft_s)
    }

    /// Seconds from there to the last token by the table, else by the stated model.
    pub fn rest_s(&self, output: f64) -> Option<f64> {
        let rate = self.table.as_deref().and_then(|t| t.tokens.output_tokens_per_s);
        let modelled = || self.cloud.as_ref().and_then(|m| m.seconds_per_output).map(|s| s * output);
        rate.map(|rate| output / rate).or_else(modelled)
    }

    /// Generated tokens that the table expects in a domain.
    pub fn tabled_output(&self, domain: Domain) -> Option<f64> {
        self.table.as_ref()?;
        self.outputs.get(domain.index()).copied()
    }
}

fn per_query(table: &Table, posterior: &Posterior) -> Option<f64> {
    let of = |row: &Row| row.joules_per_query;
    let (mut sum, mut mass) = (0.0, 0.0);
    for (domain, p) in Domain::all().zip(posterior.0) {
        let joules = table.domains.get(&domain).and_then(of).or_else(|| of(&table.overall))?;
        sum += f64::from(p) * joules;
        mass += f64::from(p);
    }
    (mass > 0.0).then(|| sum / mass)
}

fn model_of(backend: &Backend) -> &str {
    match &backend.kind {
        Kind::OpenAi(endpoint) => &endpoint.model,
        Kind::Embedded(embedded) => &embedded.model,
    }
}

/// A problem of a table as one of the configuration: the key of the backend, or the table file itself.
fn placed(mut problem: Problem, at: &str, named: Option<&Path>) -> Problem {
    if problem.key == "table" {
        problem.key = format!("{at}.table");
    } else if let Some(path) = named {
        problem.text = format!("{} ({at}.table = {})", problem.text, path.display());
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::ALL;
    use crate::tables::shipped;

    const CAPS: Capabilities = Capabilities { context: 2048, ..ALL };

    fn outlook(table: &str, place: Place) -> Outlook {
        Outlook::new(Arc::from("local/x"), place, CAPS, shipped(table))
    }

    fn all_on(domain: &str) -> Posterior {
        let mut p = [0.0; DOMAINS];
        p[domain.parse::<Domain>().unwrap().index()] = 1.0;
        Posterior(p)
    }

    #[test]
    fn chance_follows_the_domain_and_mixes_by_the_posterior() {
        let x = outlook("llama-3.1-8b-instruct", Place::Local);
        let (law, health) = (all_on("Legal services"), all_on("Healthcare practitioners and technical"));
        let (a, b) = (x.chance(&law), x.chance(&health));
        assert!((a.mean - 0.272).abs() < 0.02 && a.source == "table" && a.n == 1101, "{a:?}");
        assert!((b.mean - 0.504).abs() < 0.02, "{b:?}");
        let mut half = law;
        half.0.iter_mut().zip(health.0).for_each(|(p, q)| *p = f32::midpoint(*p, q));
        let mixed = x.chance(&half);
        assert!((mixed.mean - f64::midpoint(a.mean, b.mean)).abs() < 1e-6);
        assert!(mixed.low < mixed.mean && mixed.mean < mixed.high);
        assert_eq!(mixed, chance(x.table.as_deref(), &half, Place::Local));
    }

    #[test]
    fn without_a_table_there_is_a_wide_prior_and_no_joules() {
        let x = Outlook::new(Arc::from("local/x"), Place::Local, CAPS, None);
        let c = x.candidate(&Posterior::none(), 10, None, State::Ready);
        assert_eq!((c.chance.source, c.chance.n), ("prior", 0));
        assert!(c.chance.high - c.chance.low > 0.5);
        assert_eq!((c.joules, c.usd, c.seconds), (Joules::UNKNOWN, None, None));
    }

    #[test]
    fn different_questions_are_said_and_the_same_are_not() {
        let (a, b) = (outlook("smollm2-135m", Place::Local), outlook("llama-3.1-8b-instruct", Place::Local));
        let told = question_sets([&a, &b]).unwrap();
        for suite in a.table.iter().chain(&b.table).flat_map(|t| &t.provenance.suites) {
            assert!(told.contains(suite.as_str()), "{told}");
        }
        assert_eq!(question_sets([&a, &a.clone()]), None);
        // A prior was measured on nothing.
        assert_eq!(question_sets([&a, &Outlook::new(Arc::from("local/x"), Place::Local, CAPS, None)]), None);
    }

    #[test]
    fn output_is_capped_by_the_client_and_by_the_context() {
        let x = outlook("llama-3.1-8b-instruct", Place::Local);
        let p = all_on("Computer and mathematical");
        assert!((x.output_tokens(&p, 100, None) - 307.4).abs() < 0.1);
        assert!((x.output_tokens(&p, 100, Some(20)) - 20.0).abs() < 1e-9);
        assert!((x.output_tokens(&p, 2000, None) - 48.0).abs() < 1e-9);
        assert!((x.output_tokens(&p, 9000, None) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn joules_come_from_the_table_then_the_model_and_keep_their_range() {
        let published = outlook("qwen3-8b@m4-max", Place::Local);
        let j = published.joules(&Posterior::none(), 10.0, 10.0);
        assert!(j.mid.is_some_and(|m| (m - 15131.6).abs() < 0.1) && j.basis == Basis::Published, "{j:?}");
        assert!(j.low < j.mid && j.mid < j.high);
        let mut cloud = outlook("gpt-4o-mini", Place::Cloud);
        assert_eq!(cloud.joules(&Posterior::none(), 10.0, 10.0), Joules::UNKNOWN);
        let stated = EnergyModel::Parameters { active: (8.0, 28.0), total: (8.0, 28.0) };
        cloud.cloud = Model::new(&stated, &Energy::ASSUMED).unwrap();
        let (short, long) =
            (cloud.joules(&Posterior::none(), 10.0, 10.0), cloud.joules(&Posterior::none(), 10.0, 20.0));
        assert!(short.mid < long.mid && short.basis == Basis::Modelled);
    }
}
