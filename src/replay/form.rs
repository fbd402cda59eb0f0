//! How a line becomes a query: an outcome table with labels, or another program's log, whose labels are predicted.

use std::path::Path;
use std::sync::Arc;

use super::case::{Arm, Case, hash, stem};
use super::foreseen::Foreseer;
use super::outcomes::{self, Columns, Model, Read};
use super::predictions::Expected;
use super::shapes::{self, JOURNAL, Kind};
use super::source::Lines;
use crate::classify::Classifier;
use crate::classify::domain::Posterior;
use crate::policy::types::{Capabilities, Place};
use crate::predict::Outlook;
use crate::tables::{self, Table};

/// How lines are read.
pub enum Form {
    /// Labels are in the row.
    Outcomes(Columns),
    /// The same, and each row is foreseen from its words; these are not kept.
    Foreseen(Columns, Foreseer),
    /// Labels are what tables expect.
    Log(Box<Unlabelled>),
}

impl Form {
    /// Reads one line; none where it holds no query (a header).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, line: u64, bytes: &[u8]) -> Result<Option<Read>, String> {
        match self {
            Self::Outcomes(columns) => outcomes::read(line, bytes, *columns).map(Some),
            Self::Foreseen(columns, foreseer) => {
                let mut read = outcomes::read(line, bytes, *columns)?;
                read.case.expected = foreseer.of(&read.case);
                read.case.text = None;
                Ok(Some(read))
            }
            Self::Log(_) if bytes.is_empty() => Ok(None),
            Self::Log(log) => log.read(line, bytes),
        }
    }

    /// The word in output.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Outcomes(_) | Self::Foreseen(..) => "outcome table",
            Self::Log(log) => log.kind.name(),
        }
    }
}

/// A log without labels, and the tables that stand in for them.
pub struct Unlabelled {
    kind: Kind,
    weak: Outlook,
    strong: Outlook,
    classifier: Arc<Classifier>,
}

impl Unlabelled {
    /// Looks at a log's first line and finds the tables of both sides: a shipped one's name, or a file.
    ///
    /// # Errors
    /// The format is not known, or a table is not.
    pub fn open(file: &Path, named: Option<&str>, weak: &str, strong: &str) -> Result<Self, String> {
        let mut lines = Lines::open(file)?;
        let first = loop {
            let Some(chunk) = lines.chunk(1)? else { return Err(format!("{}: holds no queries", file.display())) };
            let line = chunk.lines().map(|(_, line)| line.to_vec()).find(|line| !line.trim_ascii().is_empty());
            if let Some(line) = line {
                break line;
            }
        };
        let kind = shapes::detect(&first, named).map_err(|e| format!("{}:1: {e}", file.display()))?;
        // Who says that it is a journal means that nothing else will do.
        if named == Some(JOURNAL) && !shapes::detect(&first, None).is_ok_and(|seen| seen.name() == JOURNAL) {
            return Err(format!("{}: is neither a journal of wattroute nor an export of one", file.display()));
        }
        let side = |name: &str, place| -> Result<Outlook, String> {
            let table = tables::find(Some(Path::new(name)), name).map_err(|e| format!("{name}: {e}"))?;
            Ok(Outlook::new(name.into(), place, Capabilities::ANY, table))
        };
        let (weak, strong) = (side(weak, Place::Local)?, side(strong, Place::Cloud)?);
        Ok(Self { kind, weak, strong, classifier: Classifier::shipped() })
    }

    /// The models of both sides.
    pub fn models(&self) -> [Model; 2] {
        [&self.weak, &self.strong].map(|side| {
            let id = side.table.as_ref().map_or_else(|| side.backend.to_string(), |t| t.model.clone());
            Model { id, ..Model::default() }
        })
    }

    /// The local side's table.
    pub fn local_table(&self) -> Option<Arc<Table>> {
        self.weak.table.clone()
    }

    /// What is expected of a query of this domain distribution.
    pub fn expected(&self, posterior: &Posterior, input: f64) -> Expected {
        let input = input.min(f64::from(u32::MAX)) as u32;
        Expected {
            weak: self.weak.chance(posterior),
            strong: self.strong.chance(posterior),
            weak_tokens: self.weak.output_tokens(posterior, input, None),
            strong_tokens: self.strong.output_tokens(posterior, input, None),
        }
    }

    fn read(&self, line: u64, bytes: &[u8]) -> Result<Option<Read>, String> {
        if line == 1 && matches!(self.kind, Kind::Csv(_)) {
            return Ok(None);
        }
        let Some(logged) = shapes::read(self.kind, bytes)? else { return Ok(None) };
        let posterior = match logged.posterior {
            Some(known) => known,
            None if logged.text.is_empty() => Posterior::none(),
            None => self.classifier.posterior(&logged.text),
        };
        let input = logged.input.unwrap_or(0.0);
        let expected = self.expected(&posterior, input);
        let id = logged.id.unwrap_or_else(|| format!("line {line}"));
        let (domain, _) = posterior.top();
        // The log's own answer tells how long answers to this query are, better than a table's mean.
        let arm = |chance: f64, tokens: f64| Arm {
            ok: Some(chance),
            output_tokens: Some(logged.output.unwrap_or(tokens)),
            ..Arm::default()
        };
        let case = Case {
            line,
            domain: domain.name().into(),
            domain_index: 0,
            stem: if logged.text.is_empty() { hash(&id) } else { stem(&logged.text) },
            text: None,
            input_tokens: input,
            arrival_s: logged.at,
            weak: arm(expected.weak.mean, expected.weak_tokens),
            strong: arm(expected.strong.mean, expected.strong_tokens),
            expected: Some(expected),
            evidence: None,
            logged: logged.logged,
            id: id.into(),
        };
        Ok(Some(Read { case, graded: false, by_chars: false, top: 1.0, ease: None }))
    }
}
