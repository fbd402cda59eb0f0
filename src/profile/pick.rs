//! Which questions are asked: suites by file or shipped name, domains, and a stratified seeded choice of some.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use super::record::Source;
use super::suite::{self, Question};
use crate::classify::domain::Domain;

/// Suites inside this program; their licences are in `eval/suites/README.md`.
pub const SHIPPED: [(&str, &str); 6] = [
    ("mmlu-pro", include_str!("../../eval/suites/mmlu-pro.jsonl")),
    ("gsm8k", include_str!("../../eval/suites/gsm8k.jsonl")),
    ("cruxeval", include_str!("../../eval/suites/cruxeval.jsonl")),
    ("short", include_str!("../../eval/suites/short.jsonl")),
    ("instructions", include_str!("../../eval/suites/instructions.jsonl")),
    ("mt-bench", include_str!("../../eval/suites/mt-bench.jsonl")),
];

/// A suite that was read.
#[derive(Clone, Debug)]
pub struct Suite {
    /// As it was named.
    pub name: String,
    /// First 16 hex digits of the BLAKE3 of its text.
    pub hash: Arc<str>,
    /// Its questions.
    pub questions: Vec<Question>,
}

/// A question to ask.
#[derive(Clone, Debug)]
pub struct Item {
    /// Hash of its suite.
    pub suite: Arc<str>,
    /// The question.
    pub question: Question,
}

/// Opens a shipped suite by name, else a file.
///
/// # Errors
/// Neither is there, or rows are malformed: file, line and field of each.
pub fn open(name: &str) -> Result<Suite, String> {
    if let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
        return suite_of(name, text);
    }
    let names: Vec<&str> = SHIPPED.iter().map(|(shipped, _)| *shipped).collect();
    let text = std::fs::read_to_string(Path::new(name))
        .map_err(|e| format!("{name}: {e}; a JSONL file, or one of the shipped suites: {}", names.join(", ")))?;
    suite_of(name, &text)
}

/// Opens several; one that is there twice, under whatever name, counts once.
///
/// # Errors
/// As [`open`].
pub fn open_all(names: &[String]) -> Result<Vec<Suite>, String> {
    let mut suites: Vec<Suite> = Vec::new();
    for name in names {
        let suite = open(name)?;
        if !suites.iter().any(|other| other.hash == suite.hash) {
            suites.push(suite);
        }
    }
    Ok(suites)
}

fn suite_of(name: &str, text: &str) -> Result<Suite, String> {
    let questions = suite::parse(text, name)?;
    let hash = blake3::hash(text.as_bytes()).to_hex();
    Ok(Suite { name: name.to_owned(), hash: hash.chars().take(16).collect::<String>().into(), questions })
}

/// Domains by name or by any part of one that only one has: `legal`, `computer`.
///
/// # Errors
/// No domain has it, or several do.
pub fn domains(words: &[String]) -> Result<Vec<Domain>, String> {
    words.iter().map(|w| w.trim()).filter(|w| !w.is_empty()).map(domain).collect()
}

fn domain(word: &str) -> Result<Domain, String> {
    let lower = word.to_lowercase();
    let all: Vec<(Domain, String)> = Domain::all().map(|d| (d, d.to_string().to_lowercase())).collect();
    if let Some((exact, _)) = all.iter().find(|(_, name)| *name == lower) {
        return Ok(*exact);
    }
    match all.iter().filter(|(_, name)| name.contains(&lower)).collect::<Vec<_>>().as_slice() {
        [(one, _)] => Ok(*one),
        [] => Err(format!("no domain has `{word}` in its name")),
        many => {
            let names: Vec<&str> = many.iter().map(|(_, name)| name.as_str()).collect();
            Err(format!("`{word}` is in {} domains: {}", many.len(), names.join("; ")))
        }
    }
}

/// At most `limit` questions of these domains (all if empty). Each suite's domains take turns, so that all are asked alike
/// and a run that is cut short is balanced too; within one the order is by a hash of seed and id, so that a larger limit
/// asks the same questions and more.
///
/// # Errors
/// Nothing is left to ask.
pub fn pick(suites: &[Suite], domains: &[Domain], limit: Option<usize>, seed: u64) -> Result<Vec<Item>, String> {
    let mut strata: BTreeMap<(usize, Domain), Vec<(blake3::Hash, Item)>> = BTreeMap::new();
    for (place, suite) in suites.iter().enumerate() {
        for question in suite.questions.iter().filter(|q| domains.is_empty() || domains.contains(&q.domain)) {
            let order = blake3::hash(format!("{seed}/{}", question.id).as_bytes());
            let item = Item { suite: Arc::clone(&suite.hash), question: question.clone() };
            strata.entry((place, question.domain)).or_default().push((order, item));
        }
    }
    let mut turns: VecDeque<std::vec::IntoIter<(blake3::Hash, Item)>> = strata
        .into_values()
        .map(|mut stratum| {
            stratum.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
            stratum.into_iter()
        })
        .collect();
    let mut picked = Vec::new();
    while picked.len() < limit.unwrap_or(usize::MAX)
        && let Some(mut stratum) = turns.pop_front()
    {
        if let Some((_, item)) = stratum.next() {
            picked.push(item);
            turns.push_back(stratum);
        }
    }
    if picked.is_empty() { Err("no question of these suites is in these domains".to_owned()) } else { Ok(picked) }
}

/// Which suites the picked questions are of, for the record file.
pub fn sources(suites: &[Suite], picked: &[Item]) -> Vec<Source> {
    let of = |suite: &Suite| picked.iter().filter(|item| item.suite == suite.hash).count();
    let each = suites.iter().map(|suite| Source {
        name: suite.name.clone(),
        hash: suite.hash.to_string(),
        questions: u32::try_from(of(suite)).unwrap_or(u32::MAX),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_suites_open_by_name_and_others_say_what_there_is() {
        for (name, _) in SHIPPED {
            let suite = open(name).unwrap();
            assert!(suite.hash.len() == 16 && suite.questions.len() >= 40, "{name}");
        }
        assert!(open("mmlu").unwrap_err().contains("shipped suites: mmlu-pro, gsm8k"));
    }

    #[test]
    fn every_stratum_is_asked_alike_and_a_larger_limit_asks_the_same_and_more() {
        let suites = [open("mmlu-pro").unwrap(), open("gsm8k").unwrap()];
        let ids = |limit, seed| -> Vec<String> {
            pick(&suites, &[], Some(limit), seed).unwrap().into_iter().map(|i| i.question.id).collect()
        };
        let picked = pick(&suites, &[], Some(60), 1).unwrap();
        let mut each: BTreeMap<(Arc<str>, Domain), usize> = BTreeMap::new();
        picked.iter().for_each(|i| *each.entry((i.suite.clone(), i.question.domain)).or_default() += 1);
        let (least, most) = (each.values().min().unwrap(), each.values().max().unwrap());
        assert!(most - least <= 1, "{each:?}");
        assert_eq!(ids(60, 1)[..30], ids(30, 1)[..]);
        assert_ne!(ids(60, 1), ids(60, 2));
        assert_eq!(sources(&suites, &picked).iter().map(|s| s.questions).sum::<u32>(), 60);
        let law = pick(&suites, &domains(&["legal".to_owned()]).unwrap(), None, 1).unwrap();
        assert_eq!(law.len(), 40);
        assert!(pick(&suites[1..], &domains(&["legal".to_owned()]).unwrap(), None, 1).is_err());
    }

    #[test]
    fn domains_are_found_by_a_part_that_only_one_has() {
        assert_eq!(domain("COMPUTER").unwrap(), "Computer and mathematical".parse().unwrap());
        assert_eq!(domain("none").unwrap(), Domain::NONE);
        assert!(domain("health").unwrap_err().contains("2 domains"));
        assert!(domain("cooking").unwrap_err().contains("no domain"));
    }
}
