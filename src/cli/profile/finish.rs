//! After the last answer: what could not be read, the gain over a baseline, and the table, whole or not at all.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use super::Args;
use crate::profile::pick::Item;
use crate::profile::record::{self, Record, Run};
use crate::profile::{run, table};
use crate::tables::{Table, beside, gain, show};

/// Share of a kind's answers without what the grader looks for, above which the run says so.
const UNREAD_SHARE: f64 = 0.1;

/// Writes the table of these records, and shows it.
///
/// # Errors
/// The records cannot be read, nothing in them was scored, the baseline answered other questions, or the table cannot be
/// written.
pub fn write(args: &Args, out: &Path, records: &Path, items: &[Item], about: &Run) -> Result<ExitCode, String> {
    let file = record::read(records)?;
    unread(&file.answers, items).iter().for_each(|said| eprintln!("{said}"));
    let mut made = table::of_file(&file, args.model_name.as_deref())?;
    if made.overall.n == 0 {
        return Err(nothing(&file.answers, records));
    }
    if let Some(failed) = made.overall.failed.filter(|n| *n > 0) {
        eprintln!(
            "{failed} questions have no answer and are in no figure; the same command asks those that failed again"
        );
    }
    let unmetered = file.answers.iter().filter(|r| run::unmetered(r)).count();
    if unmetered > 0 {
        eprintln!("{unmetered} answers have no joules because a meter was away; the same command asks for them again");
    }
    made.provenance.command = Some(about.command.clone());
    made.runtime.clone_from(&about.runtime);
    if let Some(path) = &args.baseline {
        let own: Vec<_> = file.answers.iter().map(table::asked).collect();
        against(&mut made, &own, path).map_err(|e| format!("--baseline {}: {e}", path.display()))?;
    }
    let text = serde_json::to_string_pretty(&made).map_err(|e| e.to_string())? + "\n";
    let unfinished = beside(out, "part");
    std::fs::write(&unfinished, &text)
        .and_then(|()| std::fs::rename(&unfinished, out))
        .map_err(|e| format!("{}: {e}", out.display()))?;
    crate::cli::say(&if args.json { text } else { format!("{}\n", show::text(&made)) });
    Ok(ExitCode::SUCCESS)
}

/// Why there is no table: a table says nothing about questions that nobody graded.
fn nothing(answers: &[Record], records: &Path) -> String {
    let mut why: BTreeMap<&str, u32> = BTreeMap::new();
    answers.iter().filter_map(|a| a.unscored.as_deref()).for_each(|word| *why.entry(word).or_default() += 1);
    let told: Vec<String> = why.iter().map(|(word, n)| format!("{n} {word}")).collect();
    let judge = if why.contains_key("no judge") { "; --judge NAME scores what no grader can" } else { "" };
    let told = if told.is_empty() { "no answers".to_owned() } else { told.join(", ") };
    format!("nothing was scored ({told}), so there is no table{judge}; the answers are in {}", records.display())
}

/// Writes the gain of the baseline in a file: paired where it holds answers, else from its table.
fn against(own: &mut Table, answers: &[crate::tables::make::Asked], path: &Path) -> Result<(), String> {
    if path.extension().is_some_and(|e| e == "jsonl") {
        let file = record::read(path)?;
        let name = file.runs.last().map(|run| run.model.clone()).unwrap_or_default();
        let theirs: Vec<_> = file.answers.iter().map(table::asked).collect();
        return gain::from_answers(own, answers, &theirs, &name);
    }
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let baseline: Table = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    gain::from_table(own, &baseline)
}

/// One sentence for each kind of question whose answers often lack the letter or number that is graded.
fn unread(answers: &[Record], items: &[Item]) -> Vec<String> {
    let questions: BTreeMap<(&str, &str), &Item> =
        items.iter().map(|i| ((&*i.suite, i.question.id.as_str()), i)).collect();
    let mut counts: BTreeMap<&str, (u32, u32, u32)> = BTreeMap::new();
    for answer in answers.iter().filter(|a| a.correct.is_some()) {
        let Some(item) = questions.get(&(answer.suite.as_str(), answer.id.as_str())) else { continue };
        let (all, missing, cut) = counts.entry(item.question.kind.name()).or_default();
        *all += 1;
        if !item.question.readable(&answer.answer) {
            *missing += 1;
            *cut += u32::from(answer.finish.as_deref() == Some("length"));
        }
    }
    let many = counts.into_iter().filter(|(_, (all, missing, _))| f64::from(*missing) > UNREAD_SHARE * f64::from(*all));
    many.map(|(kind, (all, missing, cut))| {
        format!(
            "questions of kind {kind}: {missing} of {all} answers hold nothing that can be graded ({cut} of them were cut at the question's \
             limit of tokens) and count as wrong; the records have their text"
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::suite;

    fn item() -> Item {
        let row = r#"{"id":"1","domain":"None","kind":"choice","prompt":"p","options":["x","y"],"answer":"B"}"#;
        let question = suite::parse(row, "s").unwrap().remove(0);
        Item { suite: "s".into(), question }
    }

    fn answer(text: &str) -> Record {
        let (id, suite) = ("1".to_owned(), "s".to_owned());
        Record {
            id,
            suite,
            answer: text.to_owned(),
            correct: Some(false),
            finish: Some("length".into()),
            ..Record::default()
        }
    }

    #[test]
    fn answers_that_were_cut_before_their_letter_are_told_of() {
        assert_eq!(unread(&[answer("The answer is (A).")], &[item()]), Vec::<String>::new());
        let said = unread(&[answer("To find it, we first"), answer("B")], &[item()]);
        assert!(
            said.len() == 1
                && said[0].starts_with("questions of kind choice: 1 of 2 answers")
                && said[0].contains("(1 of them"),
            "{said:?}"
        );
    }
}
