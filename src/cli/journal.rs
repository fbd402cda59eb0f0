//! `wattroute journal`: sums over the journal, and its entries as lines.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::config::{self, units};
use crate::journal::days;
use crate::journal::export::{self, ExportError};
use crate::journal::stats::{self, Filter, Group, Stats, Sum};
use crate::report::traffic::unit;

/// Exit code of a bad configuration.
const BAD_CONFIG: u8 = 78;

/// Arguments of `wattroute journal`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  wattroute journal stats --since 24h
  wattroute journal export --format csv --output journal.csv
  wattroute journal export --to parquet --out archive --since 30d")]
pub struct JournalArgs {
    #[command(subcommand)]
    action: Action,
    /// Read this journal instead of the configured one
    #[arg(long, global = true, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only entries that arrived within this time, such as 24h or 7d
    #[arg(long, global = true, value_name = "TIME", value_parser = units::duration)]
    since: Option<Duration>,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Share answered locally, joules used and saved, by domain and backend
    Stats {
        /// Only this tenant's entries
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Every entry, earliest arrival first
    Export {
        /// One JSON object a line, CSV, or Parquet in folders of days
        #[arg(long, visible_alias = "to", value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        /// Write here instead of to standard output; for Parquet the folder of the days
        #[arg(long, visible_alias = "out", value_name = "FILE|DIR", required_if_eq("format", "parquet"))]
        output: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Jsonl,
    Csv,
    Parquet,
}

/// Runs the command: 0 done, 1 failed, 78 bad configuration.
pub fn run(file: Option<&Path>, args: &JournalArgs) -> ExitCode {
    let file = match (&args.file, config::load(file)) {
        (Some(file), _) => file.clone(),
        (None, Ok(config)) => config.journal.path,
        (None, Err(problems)) => {
            eprintln!("{problems}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    let since_ms = super::since_ms(args.since);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(args.json, &format!("no runtime: {e}")),
    };
    match &args.action {
        Action::Stats { tenant } => {
            let filter = Filter { since_ms, tenant: tenant.clone() };
            match runtime.block_on(stats::stats(&file, &filter)) {
                Ok(stats) => print_stats(&stats, args.json),
                Err(e) => failed(args.json, &e.to_string()),
            }
        }
        Action::Export { format, output } => {
            let output = output.as_deref();
            let done = match (format, output) {
                (Format::Jsonl, _) => runtime.block_on(lines(&file, since_ms, export::Format::Jsonl, output)),
                (Format::Csv, _) => runtime.block_on(lines(&file, since_ms, export::Format::Csv, output)),
                (Format::Parquet, Some(folder)) => runtime.block_on(by_day(&file, since_ms, folder, args.json)),
                (Format::Parquet, None) => Ok(()),
            };
            match done {
                Ok(()) => ExitCode::SUCCESS,
                Err(ExportError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
                Err(e) => failed(args.json, &e.to_string()),
            }
        }
    }
}

async fn lines(file: &Path, since: u64, format: export::Format, output: Option<&Path>) -> Result<(), ExportError> {
    let mut out: Box<dyn Write> = match output {
        Some(path) => Box::new(BufWriter::new(std::fs::File::create(path)?)),
        None => Box::new(BufWriter::new(io::stdout().lock())),
    };
    export::export(file, since, format, &mut out).await.map(drop)
}

async fn by_day(file: &Path, since: u64, folder: &Path, as_json: bool) -> Result<(), ExportError> {
    let (files, entries) = days::export(file, since, folder).await?;
    if as_json {
        println!("{}", json!({ "entries": entries, "files": files }));
    } else {
        files.iter().for_each(|f| println!("{}", f.display()));
        println!("{entries} entries");
    }
    Ok(())
}

fn failed(as_json: bool, text: &str) -> ExitCode {
    if as_json {
        println!("{}", json!({ "error": text }));
    } else {
        eprintln!("error: {text}");
    }
    ExitCode::FAILURE
}

fn print_stats(stats: &Stats, as_json: bool) -> ExitCode {
    if as_json {
        match serde_json::to_string_pretty(stats) {
            Ok(text) => println!("{text}"),
            Err(e) => return failed(true, &e.to_string()),
        }
    } else {
        print!("{}", table(stats));
    }
    ExitCode::SUCCESS
}

/// What people read. Unknown figures are a dash, and how many entries lack one is said beside the sum.
fn table(s: &Stats) -> String {
    let mut t = String::new();
    let _ = writeln!(t, "entries          {}  ({} answered)", s.entries, s.answered);
    let share = s.local_share.map_or("-".to_owned(), |x| format!("{:.1} %", x * 100.0));
    let _ = writeln!(t, "answered locally {share}  ({} local, {} cloud)", s.local, s.cloud);
    let _ = writeln!(t, "joules used      {}", range(&s.joules));
    let _ = writeln!(t, "  wasted         {}", joules(s.wasted_joules));
    let _ = writeln!(t, "joules saved     {}", range(&s.saved));
    let usd = s.usd.map_or("-".to_owned(), |x| format!("{x:.4}"));
    let _ = writeln!(t, "US dollars       {usd}{}", without(s.usd_unknown, "a price"));
    let _ = writeln!(t, "tokens           {} in, {} out", s.input_tokens, s.output_tokens);
    let quality = s.quality_change.map_or("-".to_owned(), |x| format!("{:+.2} points", x * 100.0));
    let _ = writeln!(t, "expected quality {quality} against the baseline, mean");
    if s.scored > 0 {
        let _ = writeln!(t, "feedback         {:.2} mean of {} scores", s.score.unwrap_or(0.0), s.scored);
    }
    let maps = [
        ("outcomes", &s.outcomes),
        ("faults", &s.faults),
        ("refused early", &s.refused_early),
        ("basis of joules", &s.bases),
    ];
    for (title, map) in maps {
        if !map.is_empty() {
            let list: Vec<String> = map.iter().map(|(k, n)| format!("{k} {n}")).collect();
            let _ = writeln!(t, "{title:<16} {}", list.join(", "));
        }
    }
    groups(&mut t, "DOMAIN", &s.domains);
    groups(&mut t, "BACKEND", &s.backends);
    if !s.shadows.is_empty() {
        let title = "ASKED AGAIN, IN NO SUM ABOVE";
        let _ = writeln!(
            t,
            "\n{title:<48} {:>8} {:>9} {:>14} {:>10} {:>9}",
            "ASKED", "COMPARED", "AGREEMENT", "USED", "USD"
        );
    }
    for shadow in &s.shadows {
        let agreement = match (shadow.agreement, shadow.agreement_within) {
            (Some(mean), Some(within)) => format!("{mean:.2} +- {within:.2}"),
            (mean, _) => mean.map_or("-".to_owned(), |mean| format!("{mean:.2}")),
        };
        let usd = shadow.usd.map_or("-".to_owned(), |usd| format!("{usd:.4}"));
        let (asked, compared, used) = (shadow.asked, shadow.compared, joules(shadow.joules));
        let _ = writeln!(t, "{:<48} {asked:>8} {compared:>9} {agreement:>14} {used:>10} {usd:>9}", shadow.backend);
        if let [better, same, worse] = shadow.judged
            && better + same + worse > 0
        {
            let _ = writeln!(t, "  by a judge in both orders: {better} better, {same} as good, {worse} worse");
        }
    }
    t
}

fn groups(t: &mut String, title: &str, groups: &[Group]) {
    if groups.is_empty() {
        return;
    }
    let _ = writeln!(t, "\n{title:<48} {:>8} {:>7} {:>10} {:>10}", "ENTRIES", "LOCAL", "USED", "SAVED");
    for g in groups {
        let _ = writeln!(
            t,
            "{:<48} {:>8} {:>7} {:>10} {:>10}",
            g.name,
            g.entries,
            g.local,
            joules(g.joules.mid),
            joules(g.saved.mid)
        );
    }
}

fn range(sum: &Sum) -> String {
    let figures = format!("{} (low {}, high {})", joules(sum.mid), joules(sum.low), joules(sum.high));
    figures + &without(sum.unknown, "a figure")
}

fn without(n: u64, what: &str) -> String {
    if n == 0 { String::new() } else { format!("; {n} entries without {what}") }
}

fn joules(x: Option<f64>) -> String {
    x.map_or_else(|| "-".to_owned(), unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_not_known() {
        let stats = Stats {
            entries: 3,
            answered: 2,
            local: 1,
            cloud: 1,
            local_share: Some(0.5),
            joules: Sum { low: Some(900.0), mid: Some(1500.0), high: Some(2e6), known: 1, unknown: 1 },
            ..Stats::default()
        };
        let text = table(&stats);
        for line in [
            "50.0 %  (1 local, 1 cloud)",
            "1.50 kJ (low 900 J, high 2.00 MJ); 1 entries without a figure",
            "joules saved     -",
        ] {
            assert!(text.contains(line), "{line}\nnot in\n{text}");
        }
    }
}
