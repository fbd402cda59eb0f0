//! `wattroute energy`: the meters of this machine, why others are not there, and live watts.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::{fail, say, serve};
use crate::energy::carbon;
use crate::energy::cloud;
use crate::energy::estimate;
use crate::energy::idle::{self, Idle};
use crate::energy::meters::{Absent, Places, Rail, discover};
use crate::energy::sampler::Sampler;
use crate::energy::trace::{Event, Sample, Trace};

/// Show every energy meter of this machine and live watts
#[derive(clap::Args)]
#[command(after_help = "Examples:
  wattroute energy                       meters, why others are missing, and watts once a second
  wattroute energy --once                the same, one reading over a second
  wattroute energy --idle 30             watts of the machine at rest (leave it alone meanwhile)
  wattroute energy --json --for 60       one JSON document a line, for a minute
  wattroute energy --json --raw --for 60 the same with every reading, to be replayed
  wattroute energy --cloud               what a token in the cloud is taken to cost, and how that follows

A meter at the plug: energy.wall_file or energy.wall_command in the configuration.")]
pub struct Args {
    /// Print JSON: first the meters, then one line per interval
    #[arg(long)]
    json: bool,
    /// Put every single reading into the lines
    #[arg(long, requires = "json")]
    raw: bool,
    /// Stop after one interval
    #[arg(long, conflicts_with = "seconds")]
    once: bool,
    /// Seconds between two lines
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    every: f64,
    /// Stop after so long; for ever if left out
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<f64>,
    /// Milliseconds between two readings of the meters
    #[arg(long, default_value_t = 50, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    sample: u64,
    /// Measure the watts of the idle machine over so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with_all = ["once", "seconds"])]
    idle: Option<f64>,
    /// Print the energy model of every cloud backend of the configuration with its derivation
    #[arg(long)]
    cloud: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let given: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    if (0.1..=86_400.0).contains(&given) { Ok(given) } else { Err("from 0.1 to 86400 seconds".to_owned()) }
}

/// Runs the command.
pub fn run(file: Option<&Path>, args: &Args) -> ExitCode {
    let config = match serve::checked(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if args.cloud {
        return clouds(&config, args.json);
    }
    if let Some(watts) = config.energy.cpu_tdp_w {
        estimate::set_tdp(watts);
    }
    let found = discover(&Places::of(&config.energy));
    let (rails, absent) = (found.rails(), found.absent);
    let sample_s = Duration::from_millis(args.sample).as_secs_f64();
    say(&if args.json { line(&meters_json(&rails, &absent, sample_s)) } else { meters_text(&rails, &absent) });
    if rails.is_empty() {
        return fail("no meter can be read on this machine");
    }
    let sampler = match Sampler::start(found.meters, Duration::from_millis(args.sample)) {
        Ok(sampler) => sampler,
        Err(e) => return fail(&format!("the sampler did not start: {e}")),
    };
    match args.idle {
        Some(seconds) => at_rest(&sampler, seconds, args.json),
        None => live(&sampler, args),
    }
    ExitCode::SUCCESS
}

/// Prints watts until the time is over.
fn live(sampler: &Sampler, args: &Args) {
    let over_s = if args.once { Some(args.every) } else { args.seconds };
    let redraw = !args.json && std::io::stdout().is_terminal();
    if args.raw {
        sampler.keep();
    }
    let (mut drawn, mut told) = (0, 0);
    for turn in 1_u32.. {
        let until_s = f64::from(turn) * args.every;
        sampler.wait_past(until_s, Duration::from_secs_f64(args.every * 2.0 + 1.0));
        let kept = args.raw.then(|| sampler.kept());
        let (text, noticed) = sampler.look(|trace| {
            let text = if args.json {
                line(&watts_json(trace, args.every, told, kept))
            } else {
                watts_text(trace, args.every)
            };
            (text, trace.noticed)
        });
        told = noticed;
        if redraw {
            say(&erased(drawn));
        }
        drawn = text.lines().count();
        say(&text);
        if over_s.is_some_and(|over_s| until_s + 1e-9 >= over_s) {
            return;
        }
    }
}

/// Takes so many lines off the terminal, to be drawn anew.
fn erased(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

/// Measures and prints the idle machine.
fn at_rest(sampler: &Sampler, seconds: f64, as_json: bool) {
    let from_s = sampler.now_s();
    // The first sample after the start opens the window, the last one closes it.
    let period_s = sampler.every().as_secs_f64();
    let (from_s, to_s) = (from_s + 2.0 * period_s, from_s + 2.0 * period_s + seconds);
    sampler.wait_past(to_s, Duration::from_secs_f64(seconds + 5.0));
    let rows: Vec<(Rail, Option<Idle>)> = sampler.look(|trace| {
        let pairs = trace.rails.iter().zip(&trace.series);
        pairs.map(|(rail, s)| (rail.clone(), idle::measure(s, from_s, to_s, rail.renewed_s.max(period_s)))).collect()
    });
    for (rail, idle) in rows {
        say(&match (idle, as_json) {
            (idle, true) => line(&json!({ "rail": rail.name, "basis": rail.basis, "idle": idle })),
            (Some(idle), false) => format!(
                "{}: {:.2} W at rest (+-{:.2} W over {:.0} s, basis {})\n",
                rail.name,
                idle.watts,
                idle.spread,
                idle.seconds,
                rail.basis.name()
            ),
            (None, false) => format!("{}: not known; measure for longer\n", rail.name),
        });
    }
}

/// The energy model of every cloud backend, and its grid.
fn clouds(config: &crate::config::checked::Config, as_json: bool) -> ExitCode {
    let mut any = false;
    for backend in &config.backends {
        let model = match cloud::Model::new(&backend.energy, &config.energy) {
            Ok(Some(model)) => model,
            Ok(None) => continue,
            Err(why) => return fail(&format!("{}: {why}", backend.name)),
        };
        any = true;
        let grid = match backend.region.as_deref().map(carbon::find).transpose() {
            Ok(grid) => grid,
            Err(why) => return fail(&format!("{}: energy.region: {why}", backend.name)),
        };
        let grams = grid.as_ref().and_then(|g| g.grams(model.output.times(1000.0)));
        say(&if as_json {
            line(&json!({ "backend": &*backend.name, "joules_per_output_token": model.output,
                "joules_per_input_token": model.input, "derivation": model.derivation(), "grid": grid, "grams_per_1000_output_tokens": grams }))
        } else {
            format!("{}\n{}\n{}\n", backend.name, model.derivation(), place(grid.as_ref(), grams))
        });
    }
    if !any && !as_json {
        say("no cloud backend of this configuration has an energy model; see [backends.NAME.energy]\n");
    }
    ExitCode::SUCCESS
}

/// The grid in words.
fn place(grid: Option<&carbon::Grid>, grams: Option<carbon::Grams>) -> String {
    let Some(grid) = grid else {
        return "no place configured: energy.region of the backend names its grid\n".to_owned();
    };
    let each = grams.map(|g| format!("1000 output tokens: {:.2} g CO2e ({:.2} to {:.2})\n", g.mid, g.low, g.high));
    format!("{}\n{}", grid.derivation(), each.unwrap_or_default())
}

fn line(document: &Value) -> String {
    format!("{document}\n")
}

fn meters_json(rails: &[Rail], absent: &[Absent], sample_s: f64) -> Value {
    json!({ "rails": rails, "absent": absent, "sample_s": sample_s })
}

fn meters_text(rails: &[Rail], absent: &[Absent]) -> String {
    let mut text = format!("{:<22} {:<8} {:<12} {:>9} {:>7}  device\n", "meter", "part", "basis", "renewed", "cap");
    for rail in rails {
        let range = rail.uncertainty.map(|u| format!(" (+-{:.0} %)", u * 100.0)).unwrap_or_default();
        text += &format!(
            "{:<22} {:<8} {:<12} {:>6.0} ms {:>7}  {}{range}\n",
            rail.name,
            format!("{:?}", rail.part).to_lowercase(),
            rail.basis.name(),
            rail.renewed_s * 1000.0,
            rail.cap_w.map_or("-".to_owned(), |w| format!("{w:.0} W")),
            rail.device
        );
    }
    for one in absent {
        text += &format!(
            "no {}: {}{}\n",
            one.meter,
            one.why,
            one.fix.as_ref().map(|f| format!("; {f}")).unwrap_or_default()
        );
    }
    text + "\n"
}

/// Joules since the start and watts over the last interval, rail by rail.
fn figures(trace: &Trace, every: f64) -> Vec<(&Rail, Option<f64>, Option<f64>)> {
    let each = trace.rails.iter().zip(&trace.series).enumerate();
    each.map(|(i, (rail, series))| (rail, trace.watts(i, every), series.last().map(|p| p.joules))).collect()
}

fn total_w(trace: &Trace, every: f64) -> Option<f64> {
    let rails = trace.total();
    let sum: Option<f64> = rails.iter().map(|i| trace.watts(*i, every)).sum();
    sum.filter(|_| !rails.is_empty())
}

/// One line: watts and joules, what was noticed since the line before, and the readings themselves if they are kept.
fn watts_json(trace: &Trace, every: f64, told: u64, kept: Option<Vec<Sample>>) -> Value {
    let rails: Vec<Value> = figures(trace, every)
        .into_iter()
        .map(
            |(rail, watts, joules)| json!({ "rail": rail.name, "basis": rail.basis, "watts": watts, "joules": joules }),
        )
        .collect();
    let events: Vec<&Event> = trace.news(told).collect();
    let mut line = json!({ "at_s": trace.last_s(), "total_watts": total_w(trace, every), "rails": rails,
        "sampler": trace.cost, "events": events });
    if let (Some(kept), Some(fields)) = (kept, line.as_object_mut()) {
        fields.insert("readings".to_owned(), json!(kept));
    }
    line
}

fn watts_text(trace: &Trace, every: f64) -> String {
    let shown = |figure: Option<f64>| figure.map_or("-".to_owned(), |x| format!("{x:.2}"));
    let mut text = format!("{:<22} {:>10} {:>12}\n", "rail", "W", "J so far");
    for (rail, watts, joules) in figures(trace, every) {
        text += &format!("{:<22} {:>10} {:>12}\n", rail.name, shown(watts), shown(joules));
    }
    text += &format!("{:<22} {:>10}\n", "total", shown(total_w(trace, every)));
    let share = trace.cost.core_share.map_or("-".to_owned(), |s| format!("{:.3} %", s * 100.0));
    text += &format!("sampler: {} readings of {:.0} us, {share} of one core\n", trace.cost.samples, trace.cost.mean_us);
    for (rail, since_s, why) in trace.lost() {
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        text += &format!("{rail}: nothing read since {since_s:.1} s{why}\n");
    }
    let last = trace.events.iter().rev().find_map(|event| match event {
        Event::Gap { from_s, to_s } => Some(format!("last gap: {:.1} s at {from_s:.1} s\n", to_s - from_s)),
        Event::ClockStep { at_s, by_s } => Some(format!("last clock step: {by_s:+.1} s at {at_s:.1} s\n")),
        Event::Lost { .. } | Event::Back { .. } => None,
    });
    text + &last.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::Basis;
    use crate::energy::meters::{Part, Reading};

    #[test]
    fn a_table_is_drawn_over_the_one_before_and_says_what_is_gone() {
        let rail = |name: &str, part: Part| Rail {
            name: name.to_owned(),
            device: String::new(),
            part,
            basis: Basis::Power,
            uncertainty: None,
            renewed_s: 0.1,
            cap_w: None,
        };
        let mut trace = Trace::new(vec![rail("wall/plug", Part::Wall), rail("rapl/package-0", Part::Package)], 1.0);
        for second in 0..10 {
            let at_s = f64::from(second);
            let plug = if second < 5 { Reading::Watts(80.0) } else { Reading::Missing };
            trace.take(at_s, at_s, &[plug, Reading::Watts(20.0)]);
            trace.explain(|_| Some("sh has ended (exit status: 1)".to_owned()));
            let text = watts_text(&trace, 1.0);
            let total = text.lines().find(|l| l.starts_with("total")).unwrap();
            assert_eq!(total.ends_with("80.00"), (1..5).contains(&second), "{text}");
            let gone = "wall/plug: nothing read since 4.0 s: sh has ended (exit status: 1)\n";
            assert_eq!(text.contains(gone), second >= 7, "{text}");
        }
        assert_eq!(erased(0), "", "nothing was drawn yet");
        let lines = watts_text(&trace, 1.0).lines().count();
        assert_eq!(erased(lines), format!("\u{1b}[{lines}A\u{1b}[J"));
    }

    #[test]
    fn a_line_has_what_was_noticed_since_the_line_before() {
        let mut trace = Trace::new(Vec::new(), 0.1);
        trace.keep();
        for second in 0..3 {
            trace.take(f64::from(second) * 10.0, f64::from(second) * 10.0, &[]);
        }
        let kept = trace.kept();
        let line = watts_json(&trace, 1.0, 1, Some(kept));
        assert_eq!(line["events"].as_array().unwrap().len(), 1, "{line}");
        assert_eq!(line["readings"].as_array().unwrap().len(), 3);
        assert_eq!(watts_json(&trace, 1.0, trace.noticed, None)["events"], json!([]));
        assert!(trace.kept().is_empty());
    }
}
