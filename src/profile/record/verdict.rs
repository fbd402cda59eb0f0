//! What a judge said of an answer that no grader can score: a line of the record file.

use serde::{Deserialize, Serialize};

use super::{Key, Record};

/// What a judge says of an answer. [`parse`](super::lines::parse) puts it into the answer's record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// Suite of the question.
    pub suite: String,
    /// Its id.
    pub id: String,
    /// Which repetition.
    pub repeat: u32,
    /// At which level.
    pub streams: u32,
    /// Won or tied in both orders; null if the orders disagree or the judge gave no verdict.
    pub correct: Option<bool>,
    /// 1 won, 0.5 tied, 0 lost.
    pub judged: Option<f64>,
    /// Why it is not scored.
    pub unscored: Option<String>,
    /// Backend that judged; its joules are in no figure.
    pub judge: String,
    /// What the answer was compared with: `reference`, or the model of the other run.
    pub against: String,
    /// When, RFC 3339.
    pub at: String,
}

impl Verdict {
    /// The key of the answer it is about.
    pub fn key(&self) -> Key {
        (self.suite.clone(), self.id.clone(), self.repeat, self.streams)
    }

    /// Writes it into the answer's record.
    pub fn settle(&self, record: &mut Record) {
        (record.correct, record.judged) = (self.correct, self.judged);
        record.unscored.clone_from(&self.unscored);
    }
}
