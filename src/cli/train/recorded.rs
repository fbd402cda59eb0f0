//! A stronger model whose answers were recorded by somebody else: right or wrong and tokens from outcome tables, joules by
//! the assumptions about the cloud.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::checked::Energy;
use crate::replay::cost::{self, Stated, Tariff};
use crate::replay::outcomes::{self, Columns, Models};
use crate::replay::source::Lines;

/// Rows read at a time.
const ROWS: usize = 4096;

/// A recorded answer: whether it was right, and its joules, low, mid and high.
type Answer = (bool, [f64; 3]);

/// Answers by question.
#[derive(Default)]
pub struct Recorded {
    answers: BTreeMap<Box<str>, Answer>,
    /// Who answered what, and how its joules follow.
    pub told: Vec<String>,
}

impl Recorded {
    /// Reads tables, each as `TABLE=MODEL`.
    ///
    /// # Errors
    /// A table that cannot be read or has grades in place of right and wrong, a model that it lacks or whose energy is unknown.
    pub fn read(named: &[String]) -> Result<Self, String> {
        let mut recorded = Self::default();
        for one in named {
            let Some((table, model)) = one.rsplit_once('=') else {
                return Err(format!("--strong-outcomes: `{one}` is not TABLE=MODEL"));
            };
            recorded.add(Path::new(table), model)?;
        }
        Ok(recorded)
    }

    fn add(&mut self, table: &Path, model: &str) -> Result<(), String> {
        let models = Models::beside(table)?;
        let at = models.find(model).map_err(|e| format!("{}: {e}", table.display()))?;
        let Some(model) = models.models.get(at) else { return Ok(()) };
        let stated = Stated::assumed(Energy::ASSUMED);
        let tariff = cost::cloud(model, &stated)?;
        let columns = Columns { weak: at, strong: at, models: models.models.len(), text: false };
        let (mut lines, before) = (Lines::open(table)?, self.answers.len());
        while let Some(chunk) = lines.chunk(ROWS)? {
            for (line, bytes) in chunk.lines().filter(|(_, bytes)| !bytes.is_empty()) {
                let read =
                    outcomes::read(line, bytes, columns).map_err(|e| format!("{}:{line}: {e}", table.display()))?;
                if read.graded {
                    return Err(format!("{}: has grades; a cascade's front needs right and wrong", table.display()));
                }
                if let Some(answer) = answer(&read.case.strong, read.case.input_tokens, &tariff) {
                    self.answers.insert(read.case.id, answer);
                }
            }
        }
        let n = self.answers.len() - before;
        if n == 0 {
            return Err(format!("{}: no answer of {} with a length and known joules", table.display(), model.id));
        }
        self.told.push(format!("{} on {n} questions of {}", model.id, table.display()));
        // What follows names an option of another command.
        let how = cost::energy_of(model, &stated).1;
        let how = how.split("; --cloud-params").next().unwrap_or_default();
        self.told.push(format!("its joules: {how}; for low, mid and high {}", list(&tariff)));
        Ok(())
    }

    /// The answer to a question.
    pub fn get(&self, id: &str) -> Option<Answer> {
        self.answers.get(id).copied()
    }
}

/// J per output token of all three assumptions.
fn list(tariff: &Tariff) -> String {
    let j = tariff.output;
    let each = [j.low, j.mid, j.high].map(|j| j.map_or("unknown".to_owned(), |j| format!("{j:.2}")));
    format!("{} J per output token", each.join(", "))
}

fn answer(arm: &crate::replay::case::Arm, input: f64, tariff: &Tariff) -> Option<Answer> {
    let joules = tariff.joules(input, arm.output_tokens?);
    Some((arm.ok? > 0.5, [joules.low?, joules.mid?, joules.high?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_right_or_wrong_and_cost_what_is_assumed() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("t.jsonl");
        std::fs::write(folder.path().join("t.models.json"), r#"{"models":[{"id":"small"},{"id":"gpt-4o"}]}"#).unwrap();
        let rows = [
            r#"{"id":"a","prompt":"One and one?","ok":[1,0],"out_tokens":[3,10]}"#,
            r#"{"id":"b","prompt":"Two and two?","ok":[0,1],"out_tokens":[3,20]}"#,
            r#"{"id":"c","prompt":"Three?","ok":[0,null],"out_tokens":[3,null]}"#,
        ];
        std::fs::write(&table, rows.join("\n")).unwrap();
        let named = |model: &str| format!("{}={model}", table.display());
        let read = Recorded::read(&[named("gpt-4o")]).unwrap();
        let ((right, a), (also, b)) = (read.get("a").unwrap(), read.get("b").unwrap());
        assert!(!right && also && read.get("c").is_none());
        assert!(a[0] < a[1] && a[1] < a[2] && b[1] > 1.9 * a[1], "{a:?} {b:?}");
        assert!(
            read.told[0].contains("gpt-4o on 2 questions") && read.told[1].contains("J per output token"),
            "{:?}",
            read.told
        );
        assert!(Recorded::read(&["x".to_owned()]).err().unwrap().contains("TABLE=MODEL"));
        assert!(Recorded::read(&[named("gpt-5x")]).err().unwrap().contains("no model"));
    }
}
