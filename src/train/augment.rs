//! Task statements and occupations put into the words of a person who asks.
//!
//! Statements of tasks ("Inspect brakes for wear.") never look like a prompt; without this step a question mark alone would
//! say "exam". The form is picked by a hash of the id, so the data does not depend on an order.

use crate::classify::domain::Domain;
use crate::classify::labelled::{Example, Set};

const ASKED: [&str; 16] = [
    "How do I {}?",
    "how to {}",
    "Help me {}.",
    "i need to {}",
    "What is the best way to {}?",
    "Explain how to {}.",
    "Can you help me {}?",
    "Give me a checklist to {}.",
    "I have to {} tomorrow, any tips?",
    "steps to {}",
    "Write instructions on how to {}.",
    "what do i need to know to {}",
    "How can we {} better?",
    "Why is it important to {}?",
    "my boss wants me to {}. where do I start?",
    "Make a plan to {}.",
];

const TITLES: [&str; 6] = [
    "What do {} do?",
    "I want to become one of the {}, what should I learn?",
    "Act as one of the {} and answer my questions.",
    "tips for {}",
    "Write a job description for {}.",
    "How would {} approach this problem?",
];

const ABOUT: [&str; 12] = [
    "{}",
    "what is {}?",
    "How do I {}?",
    "help with {} please",
    "I have a question about {}.",
    "Tell me about {}",
    "best {} for beginners",
    "what should i know about {}",
    "Explain {} in simple terms.",
    "my {} is a problem, any advice?",
    "Write something about {}.",
    "is {} a good idea",
];

const TOGETHER: [&str; 8] = [
    "{1} and {2}",
    "how does {1} affect {2}?",
    "I need {1} with {2}, and also {3}.",
    "What is the difference between {1} and {2}?",
    "{1}, {2}, {3}",
    "can you explain {1} for my {2}",
    "Why does the {1} need {2} after {3}?",
    "Make a list: {1}, {2} and {3}.",
];

/// The texts that a training example contributes.
pub fn texts(example: &Example) -> Vec<String> {
    match example.set {
        Set::MmluPro => vec![example.text.clone(), example.with_options()],
        Set::Onet => {
            let pick = pick(&example.id);
            if pick.is_multiple_of(3) { vec![example.text.clone()] } else { vec![asked(&example.text, pick / 3)] }
        }
        Set::Gsm8k | Set::CruxEval | Set::MtBench | Set::Acts | Set::Chat | Set::Nothing | Set::Lexicon => {
            vec![example.text.clone()]
        }
    }
}

/// One prompt per occupation.
pub fn titles(examples: &[&Example]) -> Vec<(String, Domain)> {
    let mut seen = std::collections::BTreeMap::new();
    for e in examples {
        if let Some(title) = &e.occupation {
            seen.insert(title.clone(), e.domain);
        }
    }
    let ask = |title: &str| choose(&TITLES, pick(title)).replace("{}", &title.to_lowercase());
    seen.into_iter().map(|(title, domain)| (ask(&title), domain)).collect()
}

/// Prompts around the words of the lexicon: each word alone in a form, and beside others of its domain.
pub fn mentions(examples: &[&Example], seed: u64) -> Vec<(String, Domain)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let terms: Vec<&Example> = examples.iter().filter(|e| e.set == Set::Lexicon).copied().collect();
    let mut all = Vec::new();
    for domain in Domain::all() {
        let own: Vec<&str> = terms.iter().filter(|e| e.domain == domain).map(|e| e.text.as_str()).collect();
        for term in &own {
            all.push((choose(&ABOUT, rng.u64(..)).replace("{}", term), domain));
            for _ in 0..2 {
                let mut other = || own.get(rng.usize(..own.len())).copied().unwrap_or(term);
                let (second, third) = (other(), other());
                let form = choose(&TOGETHER, rng.u64(..));
                all.push((form.replace("{1}", term).replace("{2}", second).replace("{3}", third), domain));
            }
        }
    }
    all
}

/// Keyboard noise and bare numbers, for `None`.
pub fn noise(count: u32, seed: u64) -> Vec<String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let keys: Vec<char> = "asdfghjklqwertyuiopzxcvbnm0123456789".chars().collect();
    let word = |rng: &mut fastrand::Rng, span: usize| -> String {
        (0..rng.usize(2..9)).filter_map(|_| keys.get(rng.usize(..span)).copied()).collect()
    };
    (0..count)
        .map(|i| {
            let span = if i % 3 == 0 { 10 } else { keys.len() };
            let words: Vec<String> = (0..rng.usize(1..7)).map(|_| word(&mut rng, span)).collect();
            words.join(" ")
        })
        .collect()
}

/// "Inspect brakes, using gauges." becomes "How do I inspect brakes?": half keep only the first clause, as people do.
fn asked(statement: &str, pick: u64) -> String {
    let body = statement.trim().trim_end_matches('.');
    let mut chars = body.chars();
    let first: String = chars.next().map(|c| c.to_lowercase().collect()).unwrap_or_default();
    let mut lower = first + chars.as_str();
    if pick.is_multiple_of(2) {
        let ends = [", ", "; ", " to ", " using ", " by ", " such as "];
        if let Some(cut) = ends.iter().filter_map(|e| lower.find(e)).filter(|c| *c > 20).min() {
            lower.truncate(cut);
        }
    }
    choose(&ASKED, pick / 2).replace("{}", &lower)
}

fn choose<'a>(forms: &[&'a str], pick: u64) -> &'a str {
    let at = usize::try_from(pick % forms.len().max(1) as u64).unwrap_or(0);
    forms.get(at).copied().unwrap_or("{}")
}

fn pick(key: &str) -> u64 {
    u64::from_le_bytes(blake3::hash(key.as_bytes()).as_bytes().first_chunk().copied().unwrap_or_default())
}
