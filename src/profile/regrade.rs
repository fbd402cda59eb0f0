//! Answers of earlier runs, graded by the graders of today.
//!
//! A grader that reads better than the one that scored a file would else leave the file with two standards. Invariant: the
//! file is only appended to; a grade that changes is a verdict line, whose judge is [`GRADER`].

use std::collections::HashMap;

use super::log::Log;
use super::pick::Item;
use super::record::verdict::Verdict;
use super::record::{Line, Record};
use crate::clock;

/// Who said so, in the verdict.
pub const GRADER: &str = "grader";

/// Appends a verdict for each whole answer that is graded otherwise now; how many.
///
/// # Errors
/// The record file cannot be written.
pub fn regrade(items: &[Item], records: &[Record], log: &mut Log) -> Result<u32, String> {
    let by_key: HashMap<(&str, &str), &Item> = items.iter().map(|i| ((&*i.suite, i.question.id.as_str()), i)).collect();
    let mut changed = 0;
    // What a judge scored no grader can.
    for record in records.iter().filter(|r| r.correct.is_some() && r.judged.is_none() && r.error.is_none()) {
        let Some(item) = by_key.get(&(record.suite.as_str(), record.id.as_str())) else { continue };
        let graded = item.question.grade(&record.answer);
        if graded.is_none() || graded == record.correct {
            continue;
        }
        changed += 1;
        log.put(&Line::Verdict(Verdict {
            suite: record.suite.clone(),
            id: record.id.clone(),
            repeat: record.repeat,
            streams: record.streams,
            correct: graded,
            judge: GRADER.to_owned(),
            at: clock::rfc3339(),
            ..Verdict::default()
        }))?;
    }
    log.sync(true)?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{record, suite};

    #[test]
    fn only_what_is_graded_otherwise_now_gets_a_verdict() {
        let row = r#"{"id":"1","domain":"None","kind":"number","prompt":"p","answer":"8"}"#;
        let item = Item { suite: "s".into(), question: suite::parse(row, "s").unwrap().remove(0) };
        let answer = |repeat, text: &str, correct| Record {
            id: "1".to_owned(),
            suite: "s".to_owned(),
            repeat,
            answer: text.to_owned(),
            correct,
            ..Record::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        let mut log = Log::open(&path).unwrap();
        let judged = Record { judged: Some(1.0), ..answer(3, "7", Some(true)) };
        for record in [answer(0, "5 + 3 = 8", Some(false)), answer(1, "8", Some(true)), answer(2, "8", None), judged] {
            log.put(&Line::Answer(Box::new(record))).unwrap();
        }
        let changed = regrade(&[item], &record::read(&path).unwrap().answers, &mut log).unwrap();
        let grades: Vec<Option<bool>> = record::read(&path).unwrap().answers.iter().map(|r| r.correct).collect();
        assert_eq!((changed, grades), (1, vec![Some(true), Some(true), None, Some(true)]));
    }
}
