//! A judge for answers that no grader can score: another backend says which of two answers is better, in both orders.
//!
//! Models favour the answer that they read first. So each pair is judged twice with the order swapped, and only a verdict
//! that both orders agree on counts: won or tied is right, lost is wrong. If they disagree the answer stays unscored.

use std::collections::HashMap;

use tokio::sync::watch;

use super::asker::{Asker, Trouble};
use super::log::Log;
use super::pick::Item;
use super::record::verdict::Verdict;
use super::record::{Line, Record};
use super::run::{ATTEMPTS, backoff};
use crate::clock;
use crate::verify::pair::{Better, prompt, verdict};

/// Tokens of a verdict with its reason.
const VERDICT_TOKENS: u32 = 512;

/// Answers to compare with.
pub struct Against {
    /// What the verdicts call them: the other run's model.
    pub name: String,
    /// By suite hash and id.
    answers: HashMap<(String, String), String>,
}

impl Against {
    /// The whole answers of another run.
    pub fn of(name: String, records: &[Record]) -> Self {
        let whole = records.iter().filter(|r| r.error.is_none());
        let answers = whole.map(|r| ((r.suite.clone(), r.id.clone()), r.answer.clone())).collect();
        Self { name, answers }
    }

    /// The other answer and what it is called: the other run's, else the suite's reference.
    fn find<'a>(&'a self, record: &Record, item: &'a Item) -> Option<(&'a str, &'a str)> {
        let other = self.answers.get(&(record.suite.clone(), record.id.clone()));
        let reference = Some(item.question.answer.as_str()).filter(|answer| !answer.trim().is_empty());
        other.map(|answer| (answer.as_str(), self.name.as_str())).or(reference.map(|answer| (answer, "reference")))
    }
}

/// How judging went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Both orders agreed.
    pub scored: u32,
    /// They did not.
    pub disagreed: u32,
    /// The judge gave no verdict.
    pub failed: u32,
    /// There is nothing to compare with.
    pub alone: u32,
}

/// Judges every answer that waits for a judge and appends the verdicts.
///
/// # Errors
/// The record file cannot be written, or the judge cannot be asked at all.
pub async fn judge(
    asker: &Asker,
    items: &[Item],
    records: &[Record],
    against: &Against,
    log: &mut Log,
    stop: &watch::Receiver<bool>,
) -> Result<Judged, String> {
    let mut done = Judged::default();
    let by_key: HashMap<(&str, &str), &Item> = items.iter().map(|i| ((&*i.suite, i.question.id.as_str()), i)).collect();
    let waits = |r: &&Record| matches!(r.unscored.as_deref(), Some("no judge" | "judge failed"));
    for record in records.iter().filter(waits) {
        if *stop.borrow() {
            break;
        }
        let Some(item) = by_key.get(&(record.suite.as_str(), record.id.as_str())) else { continue };
        let Some((other, name)) = against.find(record, item) else {
            done.alone += 1;
            continue;
        };
        let question = item.question.prompt.as_str();
        let forth = reading(asker, question, &record.answer, other).await?;
        let back = reading(asker, question, other, &record.answer).await?;
        let (correct, judged, unscored) = outcome(forth, back);
        match unscored {
            None => done.scored += 1,
            Some("judge disagrees") => done.disagreed += 1,
            Some(_) => done.failed += 1,
        }
        log.put(&Line::Verdict(Verdict {
            suite: record.suite.clone(),
            id: record.id.clone(),
            repeat: record.repeat,
            streams: record.streams,
            correct,
            judged,
            unscored: unscored.map(str::to_owned),
            judge: asker.backend().config.name.to_string(),
            against: name.to_owned(),
            at: clock::rfc3339(),
        }))?;
        log.sync(false)?;
    }
    log.sync(true)?;
    Ok(done)
}

/// Two readings, the second with the order swapped, to what the record says.
fn outcome(forth: Option<Better>, back: Option<Better>) -> (Option<bool>, Option<f64>, Option<&'static str>) {
    match (forth, back) {
        (Some(Better::First), Some(Better::Second)) => (Some(true), Some(1.0), None),
        (Some(Better::Second), Some(Better::First)) => (Some(false), Some(0.0), None),
        (Some(Better::Tie), Some(Better::Tie)) => (Some(true), Some(0.5), None),
        (None, _) | (_, None) => (None, None, Some("judge failed")),
        _ => (None, None, Some("judge disagrees")),
    }
}

/// One verdict; none if the judge gave none.
async fn reading(asker: &Asker, question: &str, first: &str, second: &str) -> Result<Option<Better>, String> {
    let text = prompt(question, first, second);
    let mut failed = 0;
    loop {
        let asked = asker.ask(&text, VERDICT_TOKENS).await;
        match asked.trouble {
            None => return Ok(verdict(&asked.heard.text)),
            Some(Trouble::Refused(_)) => return Ok(None),
            Some(Trouble::Fatal(why)) => return Err(format!("the judge: {why}")),
            Some(trouble @ (Trouble::Passing(..) | Trouble::Away(_))) => {
                failed += 1;
                if failed >= ATTEMPTS {
                    return Err(format!("the judge: {}", trouble.why()));
                }
                tokio::time::sleep(backoff(failed, trouble.after())).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_orders_agree_on_counts() {
        use Better::{First, Second, Tie};
        for (forth, back, want) in [
            (Some(First), Some(Second), (Some(true), Some(1.0), None)),
            (Some(Second), Some(First), (Some(false), Some(0.0), None)),
            (Some(Tie), Some(Tie), (Some(true), Some(0.5), None)),
            // The judge liked whatever came first.
            (Some(First), Some(First), (None, None, Some("judge disagrees"))),
            (Some(First), Some(Tie), (None, None, Some("judge disagrees"))),
            (None, Some(First), (None, None, Some("judge failed"))),
        ] {
            assert_eq!(outcome(forth, back), want, "{forth:?} {back:?}");
        }
    }
}
