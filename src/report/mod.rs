//! One page out of everything that is known: what the journal says happened, what the tables say of the models, and what other
//! policies would have made of the same queries. Pure but for [`Joined::write`].

pub mod traffic;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::journal::stats::{Hour, Stats};
use crate::picture::page::{begin, chapter, end, missing};
use crate::profile::report::Report;
use crate::replay::outcome::Outcome;
use crate::replay::{page, whole};

/// What a page is made of; what is not there is said, with the reason.
pub struct Joined {
    /// Date, ISO 8601.
    pub date: String,
    /// The journal's sums, and the same by hour.
    pub traffic: (Stats, Vec<Hour>),
    /// Measured tables.
    pub tables: Result<Report, String>,
    /// A replay of the journal.
    pub replay: Result<Outcome, String>,
}

impl Joined {
    /// The page.
    pub fn html(&self) -> String {
        let mut out = begin("What the router did");
        chapter(&mut out, "traffic", "Traffic");
        let (stats, hours) = &self.traffic;
        traffic::part(&mut out, stats, hours);
        chapter(&mut out, "replay", "The same queries under other policies");
        match &self.replay {
            Ok(outcome) => page::body(&mut out, outcome, &self.date, &|_| None),
            Err(why) => missing(&mut out, &format!("No replay: {why}")),
        }
        chapter(&mut out, "tables", "The models");
        match &self.tables {
            Ok(report) => report.body(&mut out),
            Err(why) => missing(&mut out, &format!("No tables: {why}")),
        }
        end(out)
    }

    /// Every figure of the page.
    pub fn json(&self) -> Value {
        let (stats, hours) = &self.traffic;
        json!({ "date": self.date, "journal": stats, "hours": hours, "tables": self.tables.as_ref().ok().map(Report::json),
            "replay": self.replay.as_ref().ok(), "missing": self.absent() })
    }

    /// What is missing, and why.
    pub fn absent(&self) -> Vec<String> {
        let told = |what: &str, why: Option<&String>| why.map(|why| format!("no {what}: {why}"));
        [told("tables", self.tables.as_ref().err()), told("replay", self.replay.as_ref().err())]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Writes `report.html` and `report.json`, each whole; returns the files.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, String> {
        let told = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
        std::fs::create_dir_all(folder).map_err(|e| told(folder, e))?;
        let json = serde_json::to_string_pretty(&self.json()).map_err(|e| e.to_string())? + "\n";
        let mut written = Vec::new();
        for (name, text) in [("report.html", self.html()), ("report.json", json)] {
            let path = folder.join(name);
            whole::write(&path, text.as_bytes()).map_err(|e| told(&path, e))?;
            written.push(path);
        }
        Ok(written)
    }
}
