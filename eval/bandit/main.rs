//! Whether a policy that learns from scores is worth it: `policies/bandit.toml` against `policies/balanced.toml` on a stream
//! of recorded questions whose outcomes are known for both backends.
//!
//! `bandit-worth [--data DIR] [--out FILE] [--bandit "KEY = VALUE"]`. Half of the questions (by a hash of their text) make the coverage tables, the
//! other half is asked in a random order; the chosen backend's outcome is the score, for a share of the answers. What the
//! tables say of the local model is varied: its own, its mean everywhere, or another model's.

#![allow(clippy::print_stdout, reason = "a measuring program prints its results")]
#![allow(clippy::indexing_slicing, reason = "fixed places of lists of two")]
#![allow(clippy::cast_precision_loss, reason = "counts of questions")]

#[path = "../predict/data.rs"]
#[allow(dead_code, reason = "shared with another program, which uses the rest")]
mod data;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use data::{Pair, Table};
use serde_json::{Value, json};
use wattroute::api::query::Needs;
use wattroute::classify::Classifier;
use wattroute::classify::domain::{DOMAINS, Posterior};
use wattroute::energy::{Basis, Joules};
use wattroute::policy::types::{Candidate, Capabilities, Chance, Pin, Place, Signals, State};
use wattroute::policy::{self, Policy};
use wattroute::predict::arm::{Arm, features};
use wattroute::replay::case::hash;

/// J of an answer, local and cloud: only their order matters to these policies' choices.
const JOULES: [f64; 2] = [60.0, 600.0];
/// Judgements that a domain's coverage is drawn towards the mean by.
const SHRINK: f64 = 8.0;
/// Orders of the stream.
const ORDERS: u64 = 5;
/// Shares of answers that are scored.
const SCORED: [f64; 3] = [1.0, 0.1, 0.02];
const LARGE: &str = "Meta-Llama-3.1-70B-Instruct";
const SMALL: &str = "Meta-Llama-3.1-8B-Instruct";
const CLOUD: &str = "gemini-1.5-pro-002";

/// What is believed of the local model.
#[derive(Clone, Copy)]
enum Belief {
    /// Its own coverage by domain.
    Own,
    /// Its mean in every domain.
    Mean,
    /// Another model's coverage by domain.
    Other(&'static str),
}

/// A question with both outcomes.
struct Asked {
    posterior: Posterior,
    /// Local, cloud.
    right: [f64; 2],
    /// What is believed of both.
    chance: [f64; 2],
}

/// What came of a stream, or of its second half.
#[derive(Clone, Copy, Default)]
struct Sums {
    n: f64,
    right: f64,
    local: f64,
    drawn: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).map(PathBuf::from);
    let folder = value("--data").unwrap_or_else(|| PathBuf::from("eval/data/routing"));
    let table = Table::read(&folder, "mmlu_pro")?.ok_or("there is no mmlu_pro.jsonl.gz in the folder")?;
    let classifier = Classifier::shipped();
    let posteriors: Vec<Posterior> = table.rows.iter().map(|row| classifier.posterior(&row.text)).collect();
    let still = policy::load("balanced", None).map_err(|e| e.to_string())?;
    let (text, file) = policy::text("bandit", None).map_err(|e| e.to_string())?;
    let text = args
        .iter()
        .position(|a| a == "--bandit")
        .and_then(|i| args.get(i + 1))
        .map_or(text.clone(), |keys| text.replace("[bandit]", &format!("[bandit]\n{keys}")));
    let learning = policy::parse(&text, &file).map_err(|e| e.to_string())?;
    let mut results = Vec::new();
    for (local, belief, told) in [
        (LARGE, Belief::Own, "its own table"),
        (LARGE, Belief::Mean, "its mean everywhere"),
        (LARGE, Belief::Other(SMALL), "the table of the smaller model"),
        (SMALL, Belief::Own, "its own table"),
        (SMALL, Belief::Other(LARGE), "the table of the larger model"),
    ] {
        let stream = stream(&table, &posteriors, local, belief)?;
        for (policy, scored) in [(&*still, 0.0)].into_iter().chain(SCORED.map(|s| (&learning, s))) {
            let orders: Vec<[Sums; 2]> = (0..ORDERS).map(|seed| run(policy, &stream, scored, seed)).collect();
            results.push(report(local, told, &policy.name, scored, &orders));
        }
    }
    if let Some(path) = value("--out") {
        std::fs::write(path, serde_json::to_string_pretty(&results)? + "\n")?;
    }
    Ok(())
}

/// The questions to ask, with what is believed of them from the other half.
fn stream(table: &Table, posteriors: &[Posterior], local: &str, belief: Belief) -> Result<Vec<Asked>, Box<dyn Error>> {
    let outcomes = |model: &str| -> Result<Vec<Option<f64>>, Box<dyn Error>> {
        let pair = Pair { table: String::new(), weak: model.to_owned(), strong: CLOUD.to_owned() };
        table.pair(&pair).ok_or("the table lacks a model")?;
        let place = table.models.iter().position(|m| m == model).ok_or("the table lacks a model")?;
        Ok(table.rows.iter().map(|row| row.ok.get(place).copied().flatten()).collect())
    };
    let for_table: Vec<bool> = table.rows.iter().map(|row| hash(&row.text) & 1 == 0).collect();
    let fit = |model: &str| outcomes(model).map(|right| coverage(posteriors, &right, &for_table));
    let believed = match belief {
        Belief::Own => fit(local)?,
        Belief::Mean => {
            let own = fit(local)?;
            let (sum, n) = own.iter().fold((0.0, 0.0), |(s, n), c| (s + c, n + 1.0));
            vec![sum / n; DOMAINS]
        }
        Belief::Other(model) => fit(model)?,
    };
    let cloud = fit(CLOUD)?;
    let chance = |p: &Posterior, coverage: &[f64]| {
        p.0.iter().zip(coverage).map(|(p, c)| f64::from(*p) * c).sum::<f64>().clamp(0.0, 1.0)
    };
    let (a, b) = (outcomes(local)?, outcomes(CLOUD)?);
    let all = posteriors.iter().zip(a.iter().zip(&b)).zip(&for_table).filter(|(_, for_table)| !**for_table);
    Ok(all
        .filter_map(|((posterior, (a, b)), _)| {
            let chance = [chance(posterior, &believed), chance(posterior, &cloud)];
            Some(Asked { posterior: *posterior, right: [(*a)?, (*b)?], chance })
        })
        .collect())
}

/// Share of right answers by domain, drawn towards the mean.
fn coverage(posteriors: &[Posterior], right: &[Option<f64>], for_table: &[bool]) -> Vec<f64> {
    let known = || {
        let rows = posteriors.iter().zip(right).zip(for_table).filter(|(_, used)| **used);
        rows.filter_map(|((p, right), _)| Some((p, (*right)?)))
    };
    let (sum, n) = known().fold((0.0, 0.0), |(s, n), (_, right)| (s + right, n + 1.0));
    let mean = sum / n;
    (0..DOMAINS)
        .map(|d| {
            let weighed = known().map(|(p, right)| (f64::from(p.0[d]), right));
            let (hits, weight) = weighed.fold((0.0, 0.0), |(s, n), (w, right)| (s + w * right, n + w));
            (hits + SHRINK * mean) / (weight + SHRINK)
        })
        .collect()
}

/// Asks all questions in an order; sums of the second half of the stream, and of all of it.
fn run(policy: &Policy, stream: &[Asked], scored: f64, seed: u64) -> [Sums; 2] {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut order: Vec<&Asked> = stream.iter().collect();
    random.shuffle(&mut order);
    let mut arms = [Arm::default(), Arm::default()];
    let mut sums = [Sums::default(); 2];
    for (index, asked) in order.iter().enumerate() {
        let x = asked.chance.map(|chance| features(&asked.posterior, chance));
        let mut candidates = [candidate(0, asked.chance[0]), candidate(1, asked.chance[1])];
        if policy.bandit.is_some() {
            for ((candidate, arm), x) in candidates.iter_mut().zip(&arms).zip(&x) {
                candidate.learned = Some(arm.learned(x));
            }
        }
        let decision = policy.decide(&signals(&asked.posterior, candidates.to_vec(), random.u64(..)));
        let chosen = decision.chosen.unwrap_or(1);
        let drawn = decision.ranked.first() != Some(&chosen);
        let first = usize::from(2 * index < order.len());
        for sums in &mut sums[first..] {
            sums.n += 1.0;
            sums.right += asked.right[chosen];
            sums.local += if chosen == 0 { 1.0 } else { 0.0 };
            sums.drawn += if drawn { 1.0 } else { 0.0 };
        }
        if random.f64() < scored {
            arms[chosen].take(&x[chosen], asked.right[chosen] - asked.chance[chosen], 1.0);
        }
    }
    sums
}

fn candidate(place: usize, chance: f64) -> Candidate {
    let joules = JOULES[place];
    Candidate {
        backend: Arc::from(["local/model", "cloud/model"][place]),
        place: [Place::Local, Place::Cloud][place],
        state: State::Ready,
        caps: Capabilities::ANY,
        learned: None,
        chance: Chance { mean: chance, low: chance, high: chance, n: 1000, source: "table" },
        joules: Joules::range(joules, joules, joules, Basis::Modelled),
        usd: None,
        seconds: None,
        output_tokens: 200.0,
        grid_g_per_kwh: None,
        gco2e: None,
    }
}

fn signals(posterior: &Posterior, candidates: Vec<Candidate>, draw: u64) -> Signals {
    Signals {
        posterior: *posterior,
        input_tokens: 200,
        max_output: None,
        needs: Needs::default(),
        beyond_embedded: None,
        pin: Pin::None,
        private: false,
        last: None,
        candidates,
        draw,
    }
}

/// A line for people and the figures: means over the orders with their least and greatest.
fn report(local: &str, told: &str, policy: &str, scored: f64, orders: &[[Sums; 2]]) -> Value {
    let spread = |of: &dyn Fn(&[Sums; 2]) -> f64| {
        let all: Vec<f64> = orders.iter().map(of).collect();
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        let most = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        [all.iter().sum::<f64>() / all.len() as f64, least, most].map(|x| (x * 1e4).round() / 1e4)
    };
    let late = |of: fn(&Sums) -> f64| spread(&|both| of(&both[0]) / both[0].n);
    let all = |of: fn(&Sums) -> f64| spread(&|both| of(&both[1]) / both[1].n);
    let joules = |local: f64| local * JOULES[0] + (1.0 - local) * JOULES[1];
    let (right, at_home, drawn) = (late(|s| s.right), late(|s| s.local), all(|s| s.drawn));
    println!(
        "{local}, believed: {told}; {policy}, scored {scored}: right {right:?}, local {at_home:?}, {:.0} J, drawn {drawn:?}",
        joules(at_home[0])
    );
    json!({
        "local": local, "cloud": CLOUD, "believed": told, "policy": policy, "scored": scored, "orders": orders.len(),
        "questions": orders[0][1].n, "second_half": { "right": right, "local": at_home, "joules": joules(at_home[0]) },
        "all": { "right": all(|s| s.right), "local": all(|s| s.local), "drawn": drawn },
    })
}
