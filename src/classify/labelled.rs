//! The labelled sets under `eval/data/domain/`, mapped to the 22 domains and `None`, with their splits.
//!
//! Read by training and by the tests that recompute the published figures; the serving path never calls it. The reasons for
//! the mapping stand beside each line; where an occupation decides, it is the one of the Standard Occupational Classification
//! that names the subject, because the 22 domains are its 22 major groups.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;
use serde::Deserialize;

use super::domain::Domain;

/// Which side of the line an example stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Weights are fitted on it.
    Train,
    /// Temperature, threshold and settings are chosen on it.
    Dev,
    /// Only ever measured.
    Test,
}

/// Where an example comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    /// Exam questions with ten options.
    MmluPro,
    /// Task statements of occupations; whole occupations are held out.
    Onet,
    /// Word problems.
    Gsm8k,
    /// Python functions to trace.
    CruxEval,
    /// First turns of the MT-Bench questions: never trained on.
    MtBench,
    /// Prompts in the style of a chat, written for this project.
    Chat,
    /// Greetings, small talk, requests about the conversation itself and noise, written for this project.
    Nothing,
    /// Requests from a public collection of prompts, by other authors: never trained on.
    Acts,
    /// Words and short phrases of each domain, written for this project; only trained on.
    Lexicon,
}

/// One labelled text.
#[derive(Clone, Debug)]
pub struct Example {
    /// Unique over all sets.
    pub id: String,
    /// Its set.
    pub set: Set,
    /// Its side.
    pub split: Split,
    /// Its label.
    pub domain: Domain,
    /// The question or statement.
    pub text: String,
    /// Answer options in order, where there are any.
    pub options: Vec<String>,
    /// Occupation, where there is one.
    pub occupation: Option<String>,
}

impl Example {
    /// The text with its options as lettered lines, as exam questions are asked.
    pub fn with_options(&self) -> String {
        let mut all = self.text.clone();
        for (letter, option) in ('A'..='Z').zip(&self.options) {
            all.push_str(&format!("\n{letter}. {option}"));
        }
        all
    }
}

#[derive(Deserialize)]
struct Row {
    id: String,
    prompt: String,
    #[serde(default)]
    category: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    split: String,
    #[serde(default)]
    turn: String,
    #[serde(default)]
    soc: String,
    #[serde(default)]
    occupation: Option<String>,
    #[serde(default)]
    options: Vec<String>,
    domain: Option<Domain>,
}

/// File, its set, and the split that all its rows have, if they share one.
pub const FILES: [(&str, Set, Option<Split>); 10] = [
    ("mmlu_pro.jsonl.gz", Set::MmluPro, None),
    ("onet_tasks.jsonl.gz", Set::Onet, None),
    ("gsm8k.jsonl.gz", Set::Gsm8k, None),
    ("cruxeval.jsonl.gz", Set::CruxEval, None),
    ("mt_bench.jsonl.gz", Set::MtBench, Some(Split::Test)),
    ("chat_train.jsonl", Set::Chat, None),
    ("none_train.jsonl", Set::Nothing, None),
    ("lexicon.jsonl", Set::Lexicon, Some(Split::Train)),
    ("acts_test.jsonl", Set::Acts, Some(Split::Test)),
    ("chat_test.jsonl", Set::Chat, Some(Split::Test)),
];

/// Reads all sets; the error names the file and the line.
pub fn load(folder: &Path) -> Result<Vec<Example>, String> {
    let mut all = Vec::new();
    for (name, set, split) in FILES {
        let path = folder.join(name);
        let file = File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let reader: Box<dyn Read> = if name.ends_with(".gz") { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
        for (number, line) in BufReader::new(reader).lines().enumerate() {
            let at = |e: &dyn std::fmt::Display| format!("{}:{}: {e}", path.display(), number + 1);
            let line = line.map_err(|e| at(&e))?;
            let row: Row = serde_json::from_str(&line).map_err(|e| at(&e))?;
            all.extend(example(row, set, split).map_err(|e| at(&e))?);
        }
    }
    Ok(all)
}

/// None where the row has no honest label.
fn example(row: Row, set: Set, split: Option<Split>) -> Result<Option<Example>, String> {
    let index = match set {
        Set::MmluPro => mmlu_pro(&row.category, &row.subject),
        Set::Onet => Some(major_group(&row.soc).ok_or_else(|| format!("unknown major group `{}`", row.soc))?),
        Set::Gsm8k | Set::CruxEval => Some(0),
        Set::MtBench => (row.turn == "turn1").then(|| mt_bench(&row.id, &row.category)).flatten(),
        Set::Chat | Set::Acts | Set::Nothing | Set::Lexicon => Some(row.domain.ok_or("no `domain`")?.index()),
    };
    let Some(domain) = index.and_then(Domain::at) else { return Ok(None) };
    let split = match (split, row.split.as_str()) {
        (Some(all), _) => all,
        (None, "train") => Split::Train,
        (None, "dev") => Split::Dev,
        (None, "test") => Split::Test,
        (None, "") if set == Set::Onet => by_hash(&row.soc, 10),
        // The test of these two is `chat_test.jsonl`.
        (None, "") if matches!(set, Set::Chat | Set::Nothing) => match by_hash(&row.id, 10) {
            Split::Test => Split::Dev,
            other => other,
        },
        (None, "") => by_hash(&row.id, 10),
        (None, other) => return Err(format!("unknown split `{other}`")),
    };
    let Row { id, prompt: text, options, occupation, .. } = row;
    Ok(Some(Example { id, set, split, domain, text, options, occupation }))
}

/// One part in `parts` is dev, one is test, by a hash of the key.
fn by_hash(key: &str, parts: u8) -> Split {
    match blake3::hash(key.as_bytes()).as_bytes().first().copied().unwrap_or(0) % parts {
        0 => Split::Test,
        1 => Split::Dev,
        _ => Split::Train,
    }
}

/// Exam categories to domains; by subject where a category spans several.
fn mmlu_pro(category: &str, subject: &str) -> Option<usize> {
    let subject = subject.trim_start_matches("ori_mmlu-");
    Some(match (category, subject) {
        // Computing and mathematics are one major group (15); formal logic is mathematics by method.
        ("math" | "computer science", _) | ("philosophy", "formal_logic") => 0,
        // Natural scientists, economists (19-3011), psychologists (19-3031), historians (19-3093).
        ("biology" | "chemistry" | "physics" | "economics" | "psychology" | "history", _) => 2,
        // Clergy and religious workers (21-2011).
        ("philosophy", "world_religions") => 9,
        // No scientist group names philosophy; its teachers (25-1126) do.
        ("philosophy", _) => 3,
        ("engineering", _) => 4,
        // Business majors: running an organisation is management (11), selling is sales (41), the rest 13.
        ("business", "management") => 13,
        ("business", "marketing") => 11,
        ("business", _) | ("other", "professional_accounting") => 5,
        ("health", _) => 6,
        ("law", _) => 8,
        // Public relations specialists (27-3031).
        ("other", "public_relations") => 1,
        // Political scientists (19-3094), sociologists (19-3041), geographers (19-3092).
        (
            "other",
            "global_facts"
            | "high_school_geography"
            | "high_school_government_and_politics"
            | "human_sexuality"
            | "security_studies"
            | "sociology"
            | "us_foreign_policy",
        ) => 2,
        // `miscellaneous` is trivia of every kind: no honest single label.
        _ => return None,
    })
}

/// SOC major groups are the domains under other names.
fn major_group(soc: &str) -> Option<usize> {
    Some(match soc.split('-').next()? {
        "11" => 13,
        "13" => 5,
        "15" => 0,
        "17" => 4,
        "19" => 2,
        "21" => 9,
        "23" => 8,
        "25" => 3,
        "27" => 1,
        "29" => 6,
        "31" => 18,
        "33" => 16,
        "35" => 12,
        "37" => 21,
        "39" => 20,
        "41" => 11,
        "43" => 7,
        "45" => 15,
        "47" => 17,
        "49" => 14,
        "51" => 19,
        "53" => 10,
        _ => return None,
    })
}

/// Categories of one subject only; of `stem` the questions that are not engineering, computing or geography.
fn mt_bench(id: &str, category: &str) -> Option<usize> {
    match category {
        "math" | "coding" => Some(0),
        "writing" | "roleplay" => Some(1),
        "stem" => match id {
            "mt_bench/147/1" | "mt_bench/148/1" => Some(4),
            "mt_bench/149/1" => Some(0),
            _ => Some(2),
        },
        // Reasoning, extraction and humanities mix subjects.
        _ => None,
    }
}
