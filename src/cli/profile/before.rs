//! What was before this run: the record file, whether it is of the same thing, and the command that goes on with it.

use std::path::Path;

use super::Args;
use crate::config::Config;
use crate::profile::log::Log;
use crate::profile::record::{self, File, Run};

/// What a server is called where nobody said what it is.
pub const UNNAMED_SERVER: &str = "openai-compatible server";

/// The command that repeats and goes on with this run: every option that is not the default and has a part in the table.
pub fn command(args: &Args, config: &Config) -> String {
    let mut words = vec!["wattroute".to_owned()];
    let mut say = |name: &str, value: String| {
        let plain = !value.is_empty() && value.chars().all(|c| c.is_alphanumeric() || "-_./,:".contains(c));
        words.extend([name.to_owned(), if plain { value } else { format!("'{}'", value.replace('\'', "'\\''")) }]);
    };
    if let Some(file) = &config.file {
        say("--config", file.display().to_string());
    }
    say("profile --backend", args.backend.clone());
    args.suite.iter().for_each(|suite| say("--suite", suite.clone()));
    let listed = |list: &[u32]| list.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|p| p.display().to_string());
    let optional = [
        ("--domains", (!args.domains.is_empty()).then(|| args.domains.join(","))),
        ("--limit", args.limit.map(|n| n.to_string())),
        ("--seed", (args.seed != 1).then(|| args.seed.to_string())),
        ("--repeats", (args.repeats != 1).then(|| args.repeats.to_string())),
        ("--streams", (args.streams != [1]).then(|| listed(&args.streams))),
        ("--budget-joules", args.budget_joules.map(|x| x.to_string())),
        ("--budget-minutes", args.budget_minutes.map(|x| x.to_string())),
        ("--settle", (args.settle.as_millis() != 10_000).then(|| format!("{}ms", args.settle.as_millis()))),
        ("--warm-up", (args.warm_up != 2).then(|| args.warm_up.to_string())),
        ("--sample", (args.sample != 50).then(|| args.sample.to_string())),
        ("--lambda", args.lambda.map(|x| x.to_string())),
        ("--tokenizer", args.tokenizer.clone()),
        ("--judge", args.judge.clone()),
        ("--against", path(&args.against)),
        ("--baseline", path(&args.baseline)),
        ("--runtime", args.runtime.clone()),
        ("--model-name", args.model_name.clone()),
        ("--out", path(&args.out)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            say(name, value);
        }
    }
    words.join(" ")
}

/// Opens the record file, keeps other runs from it, and reads what is in it.
///
/// # Errors
/// It cannot be written or read, another run writes it, or it is of another model, attention, device or suite.
pub fn earlier(records: &Path, fresh: bool, about: &Run) -> Result<(Log, File), String> {
    let mut log = Log::open(records)?;
    if fresh && std::fs::metadata(records).is_ok_and(|about| about.len() > 0) {
        let aside = (1..).map(|n| records.with_extension(format!("{n}.jsonl"))).find(|path| !path.exists());
        let aside = aside.unwrap_or_else(|| records.with_extension("old.jsonl"));
        std::fs::rename(records, &aside).map_err(|e| format!("{}: {e}", records.display()))?;
        eprintln!("starting over; the earlier records are in {}", aside.display());
        log = Log::open(records)?;
    }
    let file = record::read(records)?;
    if let Some(why) = file.runs.iter().find_map(|run| differs(run, about)) {
        return Err(of_another(records, &why));
    }
    log.cut(file.whole_bytes)?;
    Ok((log, file))
}

/// Whether what the meters and the model file say is what they said in the runs before.
///
/// # Errors
/// What differs, and what to do.
pub fn same(runs: &[Run], now: &Run, records: &Path) -> Result<(), String> {
    runs.iter().find_map(|run| measured_otherwise(run, now)).map_or(Ok(()), |why| Err(of_another(records, &why)))
}

fn of_another(records: &Path, why: &str) -> String {
    format!("{} is of another run: {why}; --out names another file, --fresh starts over", records.display())
}

/// What would mix two things that are not comparable.
fn differs(run: &Run, now: &Run) -> Option<String> {
    // A server that was not named then may be named now.
    let renamed = run.runtime == UNNAMED_SERVER;
    let runtime = if renamed { &now.runtime } else { &run.runtime };
    for (what, before, asked) in [
        ("model", &run.model, &now.model),
        ("attention", &run.attention, &now.attention),
        ("runtime", runtime, &now.runtime),
        ("place", &run.place, &now.place),
    ] {
        if before != asked {
            return Some(unlike(what, before, asked));
        }
    }
    // The GPUs, if any, are known later: `measured_otherwise` compares the whole.
    if !run.device.ends_with(&now.device) && !run.device.is_empty() {
        return Some(unlike("device", &run.device, &now.device));
    }
    let gone = run.suites.iter().find(|old| !now.suites.iter().any(|new| new.hash == old.hash))?;
    Some(match now.suites.iter().find(|new| new.name == gone.name) {
        Some(_) => format!("the suite {} has changed since", gone.name),
        None => format!("it asked the suite {}, which is not asked now", gone.name),
    })
}

fn measured_otherwise(run: &Run, now: &Run) -> Option<String> {
    let digest = |run: &Run| run.digest.clone();
    if let (Some(before), Some(asked)) = (digest(run), digest(now))
        && before != asked
    {
        return Some(unlike("model file's SHA-256", &before, &asked));
    }
    let basis = |run: &Run| run.basis.map_or("unknown", |b| b.name()).to_owned();
    let meters = |run: &Run| {
        let rails = run.rails.iter().filter(|rail| rail.total);
        rails.map(|rail| rail.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let cap = |run: &Run| {
        let caps = run.rails.iter().filter(|rail| rail.total).filter_map(|rail| rail.cap_w);
        caps.map(|watts| format!("{watts} W")).collect::<Vec<_>>().join(", ")
    };
    let driver = |run: &Run| run.driver.clone().unwrap_or_default();
    let (mut before, mut asked) = (Vec::new(), Vec::new());
    for (list, run) in [(&mut before, run), (&mut asked, now)] {
        list.extend([run.device.clone(), driver(run), basis(run), meters(run), cap(run)]);
    }
    let names = ["device", "driver", "basis", "list of meters", "power cap"];
    let each = names.into_iter().zip(before.iter().zip(&asked));
    each.into_iter().find(|(_, (a, b))| a != b && !a.is_empty()).map(|(what, (a, b))| unlike(what, a, b))
}

fn unlike(what: &str, before: &str, now: &str) -> String {
    format!("its {what} is `{before}`, not `{now}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::Basis;
    use crate::profile::record::RailAbout;

    fn run() -> Run {
        let rail =
            RailAbout { name: "rapl/package-0".to_owned(), total: true, cap_w: Some(65.0), ..RailAbout::default() };
        Run {
            device: "2 logical processors of X".to_owned(),
            digest: Some("ab".to_owned()),
            basis: Some(Basis::Counter),
            rails: vec![rail],
            ..Run::default()
        }
    }

    #[test]
    fn another_machine_meter_cap_or_model_file_is_refused_with_what_differs() {
        let path = Path::new("r.jsonl");
        let refused = |change: fn(&mut Run)| {
            let mut other = run();
            change(&mut other);
            differs(&run(), &other).map(|why| of_another(path, &why)).or(same(&[run()], &other, path).err())
        };
        assert_eq!(refused(|_| {}), None);
        for (change, want) in [
            ((|r| r.device = "8x H100, 2 logical processors of X".to_owned()) as fn(&mut Run), "its device"),
            (|r| r.device = "64 logical processors of Y".to_owned(), "its device"),
            (|r| r.driver = Some("570".to_owned()), ""),
            (|r| r.basis = Some(Basis::Utilisation), "its basis is `counter`, not `utilisation`; --out names"),
            (|r| r.rails.clear(), "its list of meters is `rapl/package-0`"),
            (|r| r.rails.iter_mut().for_each(|rail| rail.cap_w = Some(30.0)), "its power cap is `65 W`, not `30 W`"),
            (|r| r.digest = Some("cd".to_owned()), "SHA-256 is `ab`, not `cd`"),
            (|r| r.digest = None, ""),
        ] {
            let said = refused(change).unwrap_or_default();
            assert!(said.contains(want) && said.is_empty() == want.is_empty(), "{want}: {said}");
        }
    }

    #[test]
    fn a_server_that_was_not_named_may_be_named_later() {
        let before = Run { runtime: UNNAMED_SERVER.to_owned(), ..run() };
        assert_eq!(differs(&before, &Run { runtime: "llama.cpp".to_owned(), ..run() }), None);
        assert!(differs(&Run { runtime: "llama.cpp".to_owned(), ..run() }, &before).is_some());
    }
}
