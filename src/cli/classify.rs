//! `wattroute classify`: the domain of a text, or of every row of a JSONL file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::sorter::Sorter;

/// A longer line is no prompt; it is skipped with an error.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;
/// Domains shown for one text.
const SHOWN: usize = 5;

/// What answers.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Hashed features: microseconds.
    Fast,
    /// A sentence encoder with them: milliseconds a text
    Encoder,
    /// The encoder where the fast tier is not sure
    Auto,
}

/// Arguments of `wattroute classify`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  wattroute classify \"Write a Python function that reverses a list\"
  wattroute classify --jsonl prompts.jsonl --field prompt > domains.jsonl
  wattroute classify --taxonomy mmlu-pro \"What is the derivative of x^2?\"
  wattroute classify --taxonomy mine.bin --jsonl prompts.jsonl")]
pub struct ClassifyArgs {
    /// The text to classify
    #[arg(required_unless_present_any = ["jsonl", "domains"], conflicts_with_all = ["jsonl", "domains"])]
    text: Option<String>,
    /// Classify every row of this file of one JSON object per line; - is standard input
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,
    /// The field that holds the text
    #[arg(long, default_value = "prompt", requires = "jsonl")]
    field: String,
    /// Print JSON; rows of --jsonl are always JSON
    #[arg(long)]
    json: bool,
    /// List the domains
    #[arg(long, conflicts_with = "jsonl")]
    domains: bool,
    /// Labels: aei (the 22 domains), mmlu-pro, an artifact that was trained for labels of your own, or their TOML file
    /// with --artifact
    #[arg(long, value_name = "NAME|FILE", default_value = "aei")]
    pub taxonomy: String,
    /// What answers; all but fast need `wattroute models pull minilm`
    #[arg(long, value_enum, default_value = "fast")]
    pub tier: Tier,
    /// Say None where the classifier is not sure; with aei it always does
    #[arg(long)]
    pub abstain: bool,
    /// Use this artifact instead of the one inside the program
    #[arg(long, value_name = "FILE")]
    pub artifact: Option<PathBuf>,
}

/// Runs the command: 0 done, 1 failed or some rows could not be read.
pub fn run(args: &ClassifyArgs) -> ExitCode {
    match work(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Stop::Closed) => ExitCode::SUCCESS,
        Err(Stop::Failed(message)) => {
            if args.json {
                println!("{}", json!({ "error": message }));
            } else {
                eprintln!("error: {message}");
            }
            ExitCode::FAILURE
        }
    }
}

enum Stop {
    /// The reader of our output went away; that is not an error.
    Closed,
    Failed(String),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Failed(e.to_string()) }
    }
}

fn work(args: &ClassifyArgs) -> Result<bool, Stop> {
    let mut out = BufWriter::new(io::stdout().lock());
    if args.domains {
        let names = Sorter::of(args).map_err(Stop::Failed)?.names();
        if args.json {
            writeln!(out, "{}", json!(names))?;
        } else {
            writeln!(out, "{}", names.join("\n"))?;
        }
        out.flush()?;
        return Ok(true);
    }
    let sorter = Sorter::of(args).map_err(Stop::Failed)?;
    let done = match (&args.jsonl, &args.text) {
        (Some(path), _) => rows(&sorter, path, &args.field, &mut out)?,
        (None, Some(text)) => one(&sorter, text, args.json, &mut out)?,
        (None, None) => return Err(Stop::Failed("nothing to classify".into())),
    };
    out.flush()?;
    Ok(done)
}

fn one(sorter: &Sorter, text: &str, as_json: bool, out: &mut impl Write) -> Result<bool, Stop> {
    let sorted = sorter.sort(text).map_err(Stop::Failed)?;
    if as_json {
        writeln!(out, "{}", Value::Object(sorted.facts()))?;
        return Ok(true);
    }
    let mut ranked = sorted.posterior;
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (name, p) in ranked.into_iter().take(SHOWN) {
        writeln!(out, "{p:>6.3}  {name}")?;
    }
    Ok(true)
}

/// Writes a line per row; a row that cannot be read is told on standard error with its place, and the others go on.
fn rows(sorter: &Sorter, path: &PathBuf, field: &str, out: &mut impl Write) -> Result<bool, Stop> {
    let (name, source): (String, Box<dyn Read>) = if path.as_os_str() == "-" {
        ("-".into(), Box::new(io::stdin().lock()))
    } else {
        let shown = path.display().to_string();
        let file = File::open(path).map_err(|e| Stop::Failed(format!("{shown}: {e}")))?;
        (shown, Box::new(file))
    };
    let mut reader = BufReader::new(source);
    let mut line = Vec::new();
    let (mut number, mut bad, mut good) = (0u64, 0u64, 0u64);
    loop {
        line.clear();
        if (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(|e| read_error(&name, &e))? == 0 {
            break;
        }
        number += 1;
        let read = if line.len() as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
            reader.skip_until(b'\n').map_err(|e| read_error(&name, &e))?;
            Err(format!("line of more than {MAX_LINE_BYTES} bytes"))
        } else if line.trim_ascii().is_empty() {
            continue;
        } else {
            row(&line, field)
        };
        match read {
            Ok((id, text)) => {
                good += 1;
                let mut all = sorter.sort(&text).map_err(Stop::Failed)?.facts();
                all.insert("id".into(), id.unwrap_or_else(|| json!(number)));
                writeln!(out, "{}", Value::Object(all))?;
            }
            Err(why) => {
                bad += 1;
                eprintln!("error: {name}:{number}: {why}");
            }
        }
    }
    if bad > 0 {
        eprintln!("error: {bad} of {} rows could not be read", bad + good);
    }
    Ok(bad == 0)
}

fn read_error(name: &str, e: &io::Error) -> Stop {
    Stop::Failed(format!("{name}: {e}"))
}

/// The row's id, if it has one, and its text.
fn row(line: &[u8], field: &str) -> Result<(Option<Value>, String), String> {
    let value: Value = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let Value::Object(mut fields) = value else { return Err("not a JSON object".into()) };
    match fields.remove(field) {
        Some(Value::String(text)) => Ok((fields.remove("id"), text)),
        Some(_) => Err(format!("field `{field}` is not a string")),
        None => Err(format!("no field `{field}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Classifier;

    #[test]
    fn malformed_rows_are_told_with_their_place_and_others_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, b"{\"id\":\"a\",\"prompt\":\"bake bread\"}\nnot json\n\n{\"prompt\":7}\n\xff\xfe\n{\"q\":1}\n{\"prompt\":\"hi\"}").unwrap();
        let mut out = Vec::new();
        let all_read = rows(&Sorter::domains(Classifier::shipped()), &path, "prompt", &mut out).unwrap_or(true);
        assert!(!all_read);
        let lines: Vec<Value> =
            String::from_utf8(out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["id"], "a");
        assert_eq!(lines[1]["id"], 7, "a row without id is named by its line");
        let total: f64 = lines[0]["posterior"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
        assert!((total - 1.0).abs() < 1e-4, "{total}");
        assert_eq!(lines[0]["posterior"].as_object().unwrap().len(), 23);
    }

    #[test]
    fn a_row_error_names_the_field() {
        assert_eq!(row(br#"{"a":1}"#, "prompt").unwrap_err(), "no field `prompt`");
        assert_eq!(row(br#"{"prompt":1}"#, "prompt").unwrap_err(), "field `prompt` is not a string");
        assert_eq!(row(b"[1]", "prompt").unwrap_err(), "not a JSON object");
    }
}
