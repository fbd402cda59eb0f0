//! Entries as Parquet, one folder a day: `day=2026-11-23/part-0.parquet`, by arrival in UTC.
//!
//! Everything is written under a hidden name first and moved into place at the end. Invariant: a file that is there is whole, and none
//! is ever written over: a day that has files already is refused before anything is moved.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::export::{self, ExportError};
use super::schema::{COLUMNS, SINCE};
use crate::columnar::write::{Kind, Writer};

/// What a column of an export holds; text where it is not named.
fn kind(column: &str) -> Kind {
    match column {
        "id" | "arrived_ms" | "attempts" | "status" | "input_tokens" | "output_tokens" => Kind::Whole,
        "stream" => Kind::Flag,
        "posterior" => Kind::Reals,
        "domain_p" | "propensity" | "joules_low" | "joules_mid" | "joules_high" | "wasted_joules" | "saved_low"
        | "saved_mid" | "saved_high" | "quality_change" | "usd" | "ttft_ms" | "total_ms" | "overhead_us"
        | "confidence" | "wasted_usd" | "wasted_seconds" | "feedback" | "router_joules" | "judged" => Kind::Real,
        _ => Kind::Text,
    }
}

/// Writes every entry that arrived at or after `since_ms` into folders of days; returns the files and how many entries they hold.
///
/// # Errors
/// The journal cannot be read, the folder not written, or a day has Parquet files already.
pub async fn export(path: &Path, since_ms: u64, folder: &Path) -> Result<(Vec<PathBuf>, u64), ExportError> {
    let mut days = Days::begin(folder)?;
    let entries = export::each(path, since_ms, |entry| days.take(entry)).await?;
    Ok((days.end()?, entries))
}

/// Files of days on their way.
struct Days<'a> {
    folder: &'a Path,
    staging: PathBuf,
    columns: Vec<(&'static str, Kind)>,
    /// The day that is being written: its name, its file.
    open: Option<(String, PathBuf, Writer<BufWriter<File>>)>,
    done: Vec<(PathBuf, PathBuf)>,
}

impl Drop for Days<'_> {
    /// What was not moved into place is of no use to anybody.
    fn drop(&mut self) {
        self.open = None;
        let _ = std::fs::remove_dir_all(&self.staging);
    }
}

impl<'a> Days<'a> {
    fn begin(folder: &'a Path) -> Result<Self, ExportError> {
        let staging = folder.join(format!(".unfinished-{}", std::process::id()));
        std::fs::create_dir_all(&staging)?;
        let columns = COLUMNS.into_iter().chain(SINCE).map(|c| (c, kind(c))).collect();
        Ok(Self { folder, staging, columns, open: None, done: Vec::new() })
    }

    fn take(&mut self, entry: &serde_json::Map<String, serde_json::Value>) -> Result<(), ExportError> {
        let arrived = entry.get("arrived_ms").and_then(serde_json::Value::as_i64).unwrap_or(0);
        let at = Timestamp::from_millisecond(arrived).unwrap_or(Timestamp::UNIX_EPOCH);
        let day = at.to_zoned(TimeZone::UTC).date().to_string();
        if self.open.as_ref().is_none_or(|(open, ..)| *open != day) {
            self.start(day)?;
        }
        let Some((.., writer)) = &mut self.open else { return Ok(()) };
        writer.push(entry).map_err(ExportError::Columns)
    }

    /// Entries come in the order of their arrivals: the day before is over.
    fn start(&mut self, day: String) -> Result<(), ExportError> {
        self.finish()?;
        let target = self.folder.join(format!("day={day}"));
        if holds_parquet(&target) {
            return Err(ExportError::There(target));
        }
        let staged = self.staging.join(format!("{day}.parquet"));
        let writer = Writer::new(BufWriter::new(File::create_new(&staged)?), &self.columns);
        self.open = Some((day, staged.clone(), writer.map_err(ExportError::Columns)?));
        self.done.push((staged, target.join("part-0.parquet")));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ExportError> {
        self.open.take().map_or(Ok(()), |(_, path, writer)| finish(&path, writer))
    }

    /// Finishes the last file, then moves all of them.
    fn end(mut self) -> Result<Vec<PathBuf>, ExportError> {
        self.finish()?;
        for (_, target) in &self.done {
            if let Some(day) = target.parent().filter(|day| holds_parquet(day)) {
                return Err(ExportError::There(day.to_owned()));
            }
        }
        let mut files = Vec::new();
        for (staged, target) in &self.done {
            if let Some(day) = target.parent() {
                std::fs::create_dir_all(day)?;
            }
            std::fs::rename(staged, target)?;
            files.push(target.clone());
        }
        Ok(files)
    }
}

/// Ends a file; it is on the disk before its name is.
fn finish(path: &Path, writer: Writer<BufWriter<File>>) -> Result<(), ExportError> {
    let file = writer.close().map_err(ExportError::Columns)?.into_inner().map_err(|e| e.into_error())?;
    tracing::debug!(file = %path.display(), "a day's entries were written");
    Ok(file.sync_all()?)
}

fn holds_parquet(folder: &Path) -> bool {
    let Ok(all) = std::fs::read_dir(folder) else { return false };
    all.flatten().any(|entry| entry.path().extension().is_some_and(|e| e == "parquet"))
}
