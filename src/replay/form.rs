//! How a line becomes a query: an outcome table with labels, or another program's log, whose labels are predicted.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::case::{Arm, Case, hash, stem};
use super::foreseen::Foreseer;
use super::outcomes::{self, Columns, Model, Read};
use super::predictions::Expected;
use super::programs::JOURNAL;
use super::run::Request;
use super::shapes::{self, Kind, Row};
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
    Foreseen(Columns, Arc<Foreseer>),
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

    /// What one line says of the log's order; the same lines are bad, and the same hold no query, as for [`Self::read`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn outline(&self, line: u64, bytes: &[u8]) -> Result<Option<Outline>, String> {
        match self {
            Self::Outcomes(columns) | Self::Foreseen(columns, _) => {
                let case = outcomes::read(line, bytes, Columns { text: false, ..*columns })?.case;
                Ok(Some(Outline { key: hash(&case.id), at: case.arrival_s, domain: Some(case.domain) }))
            }
            Self::Log(_) if bytes.is_empty() => Ok(None),
            Self::Log(log) => {
                let of = |(id, logged): (String, Row)| Outline { key: hash(&id), at: logged.at, domain: None };
                Ok(log.row(line, bytes)?.map(of))
            }
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

/// A query without what is predicted of it.
pub struct Outline {
    /// Hash of its key.
    pub key: u64,
    /// When it arrived, in seconds of some clock.
    pub at: Option<f64>,
    /// Its label; none where the classifier gives one of the taxonomy's.
    pub domain: Option<Box<str>>,
}

/// How a log without labels is read, as it travels to other processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Packed {
    format: String,
    columns: Option<shapes::Columns>,
    /// Name and table of the weak and of the strong side.
    sides: [(String, String); 2],
    since_s: Option<f64>,
}

/// A log without labels, and the tables that stand in for them.
pub struct Unlabelled {
    kind: Kind,
    weak: Outlook,
    strong: Outlook,
    since_s: Option<f64>,
    classifier: Arc<Classifier>,
}

impl Unlabelled {
    /// Looks at a log's first line and finds the tables of both sides: a shipped one's name, or a file.
    ///
    /// # Errors
    /// The format is not known, or a table is not.
    pub fn open(request: &Request, named: Option<&str>) -> Result<Self, String> {
        let file = &request.file;
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
        let (weak, strong) = (side(&request.weak, Place::Local)?, side(&request.strong, Place::Cloud)?);
        Ok(Self { kind, weak, strong, since_s: request.since_s, classifier: Classifier::shipped() })
    }

    /// As other processes need it.
    ///
    /// # Errors
    /// None that is expected.
    pub fn packed(&self) -> Result<Packed, String> {
        let side = |side: &Outlook| -> Result<(String, String), String> {
            let table = side.table.as_ref().ok_or_else(|| format!("{}: has no table", side.backend))?;
            Ok((side.backend.to_string(), serde_json::to_string(&**table).map_err(|e| e.to_string())?))
        };
        let (format, columns) = (self.kind.name().to_owned(), self.kind.columns());
        Ok(Packed { format, columns, sides: [side(&self.weak)?, side(&self.strong)?], since_s: self.since_s })
    }

    /// Back again.
    ///
    /// # Errors
    /// It was packed by another version.
    pub fn unpacked(packed: &Packed) -> Result<Self, String> {
        let kind = packed.columns.map(Kind::Csv).or_else(|| Kind::named(&packed.format));
        let kind = kind.ok_or_else(|| format!("no format `{}`", packed.format))?;
        let side = |(name, table): &(String, String), place| -> Result<Outlook, String> {
            let table: Table = serde_json::from_str(table).map_err(|e| format!("{name}: {e}"))?;
            Ok(Outlook::new(name.as_str().into(), place, Capabilities::ANY, Some(Arc::new(table))))
        };
        let [weak, strong] = &packed.sides;
        let (weak, strong) = (side(weak, Place::Local)?, side(strong, Place::Cloud)?);
        Ok(Self { kind, weak, strong, since_s: packed.since_s, classifier: Classifier::shipped() })
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

    /// A query of the log with its key, if the line holds one that is asked for.
    fn row(&self, line: u64, bytes: &[u8]) -> Result<Option<(String, Row)>, String> {
        if line == 1 && matches!(self.kind, Kind::Csv(_)) {
            return Ok(None);
        }
        let Some(mut logged) = shapes::read(self.kind, bytes)? else { return Ok(None) };
        if self.since_s.is_some_and(|since| logged.at.is_some_and(|at| at < since)) {
            return Ok(None);
        }
        let id = logged.id.take().unwrap_or_else(|| format!("line {line}"));
        Ok(Some((id, logged)))
    }

    fn read(&self, line: u64, bytes: &[u8]) -> Result<Option<Read>, String> {
        let Some((id, logged)) = self.row(line, bytes)? else { return Ok(None) };
        let posterior = match logged.posterior {
            Some(known) => known,
            None if logged.text.is_empty() => Posterior::none(),
            None => self.classifier.posterior(&logged.text),
        };
        let input = logged.input.unwrap_or(0.0);
        let expected = self.expected(&posterior, input);
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
