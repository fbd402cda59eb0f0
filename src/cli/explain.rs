//! `wattroute explain`: where a query would go, and why, without asking anybody.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::say;
use crate::api::query::Needs;
use crate::config::problem::Problems;
use crate::config::{self, Config};
use crate::domains::{Domains, Sorted};
use crate::policy::types::{Decision, Pin, Signals, State};
use crate::policy::{self, Policy, explain};
use crate::predict::success::Read;
use crate::predict::{self, Outlook, Sight};

/// Exit code of a bad configuration.
const BAD_CONFIG: u8 = 78;
/// Bytes of English text per token.
const BYTES_PER_TOKEN: usize = 4;

/// Arguments of `wattroute explain`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  wattroute explain \"Prove that the square root of two is irrational\"
  wattroute explain --policy green --json \"Translate this to French\"
  wattroute explain --derive \"Name three colours\"       how each joule figure comes about")]
pub struct Args {
    /// The query
    text: String,
    /// Policy or preset instead of the configured default: green, fast, quality, private, or any policy's name
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Explain it as a private query
    #[arg(long)]
    private: bool,
    /// Limit on generated tokens that the client would send
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u32>,
    /// Seed of the draw, as `/v1/route` tells it, where the policy explores
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    draw: u64,
    /// Print the decision as one JSON document
    #[arg(long)]
    json: bool,
    /// Print how every backend's joules per token come about
    #[arg(long)]
    derive: bool,
}

/// Runs the command: 0 explained, 1 nobody could answer, 78 bad configuration.
pub fn run(config: Option<&Path>, args: &Args) -> ExitCode {
    match prepare(config, args) {
        Ok((domains, outlooks, states, policy)) => {
            let decision = decide(&outlooks, &states, &domains.sort_now(&args.text), &policy, args);
            if let Some(problem) = domains.lacks() {
                eprintln!("{problem}; the fast tier decides");
            }
            print(&decision, &outlooks, args)
        }
        Err(problems) => {
            if args.json {
                say(&format!("{:#}\n", json!({ "problems": problems.0 })));
            } else {
                eprintln!("{problems}");
            }
            ExitCode::from(BAD_CONFIG)
        }
    }
}

/// The decision on one text, with every backend as it would be after start: ready, or off with its reason.
pub fn decide(outlooks: &[Outlook], states: &[State], sorted: &Sorted, policy: &Policy, args: &Args) -> Decision {
    let posterior = sorted.posterior;
    let input = u32::try_from(args.text.len() / BYTES_PER_TOKEN).unwrap_or(u32::MAX).max(1);
    let read = outlooks.iter().any(|o| o.success.is_some()).then(|| Read::of(&args.text));
    let sight = Sight { posterior: &posterior, read: read.as_ref() };
    let candidate = |(o, s): (&Outlook, &State)| o.foreseen(&sight, input, args.max_tokens, s.clone());
    let candidates = outlooks.iter().zip(states).map(candidate).collect();
    let decision = policy.decide(&Signals {
        posterior,
        input_tokens: input,
        max_output: args.max_tokens,
        needs: Needs::default(),
        beyond_embedded: None,
        pin: Pin::None,
        private: args.private,
        last: None,
        candidates,
        draw: args.draw,
    });
    decision.charged(sorted.joules, sorted.tier)
}

type Prepared = (Domains, Vec<Outlook>, Vec<State>, Arc<Policy>);

fn prepare(file: Option<&Path>, args: &Args) -> Result<Prepared, Problems> {
    let config = config::load(file)?;
    let mut problems = Problems::default();
    let mut outlooks = Vec::new();
    for backend in &config.backends {
        match Outlook::of(backend, &config.energy) {
            Ok(outlook) => outlooks.push(outlook),
            Err(found) => problems.0.extend(found.0),
        }
    }
    let policy = match chosen_policy(&config, args) {
        Ok(policy) => Some(policy),
        Err(found) => {
            problems.0.extend(found.0);
            None
        }
    };
    let domains = match Domains::load(&config.classify, config.energy.cpu_tdp_w) {
        Ok(domains) => Some(domains),
        Err(problem) => {
            problems.0.push(problem);
            None
        }
    };
    let state = |off: &Option<Arc<str>>| off.as_ref().map_or(State::Ready, |why| State::NotConfigured(Arc::clone(why)));
    let states = config.backends.iter().map(|b| state(&b.off)).collect();
    problems.finish(domains.zip(policy).map(|(d, p)| (d, outlooks, states, p)))
}

fn chosen_policy(config: &Config, args: &Args) -> Result<Arc<Policy>, Problems> {
    let asked = args.policy.as_deref().unwrap_or(&config.policy.default);
    let asked = asked.strip_prefix("auto:").unwrap_or(asked);
    let name = config.policy.presets.get(asked).map_or(asked, String::as_str);
    policy::load(name, config.policy.folder.as_deref())
}

fn print(decision: &Decision, outlooks: &[Outlook], args: &Args) -> ExitCode {
    let caution = predict::question_sets(outlooks);
    if args.json {
        say(&format!("{:#}\n", explain::to_json(decision, caution.as_deref())));
    } else {
        say(&explain::to_text(decision, caution.as_deref()));
    }
    if args.derive && !args.json {
        for outlook in outlooks {
            say(&format!("\n{}: {}\n", outlook.backend, outlook.derivation()));
        }
    }
    if decision.chosen.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
