//! `wattroute check`: everything that is wrong with a configuration, and what it would switch on. Opens no port,
//! fetches nothing, writes nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::config::attention::Attention;
use crate::config::checked::{Backend, Energy, EnergyModel, Kind};
use crate::config::schema::quoted;
use crate::config::{self, Config, Problem, Problems};
use crate::domains::Domains;
use crate::energy::cloud;
use crate::journal::JournalError;
use crate::journal::stats::{Filter, stats};
use crate::models::{self, Store};
use crate::policy;
use crate::policy::cascade::{Pays, pays};
use crate::policy::run_probes;
use crate::policy::types::Candidate;
use crate::predict::Outlook;
use crate::tables;

/// Exit code of a bad configuration.
pub const BAD_CONFIG: u8 = 78;

/// Arguments of `wattroute check`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  wattroute check
  wattroute check --config examples/private.toml --json")]
pub struct CheckArgs {
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Nothing is wrong.
    ok: bool,
    /// The file, or `built-in quickstart`.
    file: String,
    problems: Vec<Problem>,
    /// What is served without: said, and no reason not to start.
    warnings: Vec<Problem>,
    listen: Option<String>,
    admin: Option<String>,
    tls: bool,
    /// Client keys; 0 is open.
    keys: usize,
    backends: Vec<Line>,
    /// What sorts queries into domains.
    classify: Option<String>,
    policy: Option<String>,
    /// What a policy's cascade costs at most, and warnings of one that cannot pay.
    cascades: Vec<Paying>,
    /// Probes of these policies that went where they must.
    probes: usize,
    journal: Option<String>,
    cache: Option<String>,
}

/// Whether the cascade of a policy can pay with the configured backends.
#[derive(Debug, Serialize)]
struct Paying {
    policy: String,
    ok: bool,
    about: String,
}

/// One backend as it would start.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    on: bool,
    /// Why it is off, or what it is.
    about: String,
    table: String,
}

/// Runs the command: 0 all is well, 78 problems.
pub fn run(file: Option<&Path>, args: &CheckArgs) -> ExitCode {
    let found = config::find(file);
    let mut report = Report {
        file: found.map_or_else(|| "built-in quickstart".to_owned(), |f| f.display().to_string()),
        ..Report::default()
    };
    match config::load(file) {
        Ok(config) => inspect(&config, &mut report),
        Err(problems) => report.problems = problems.0,
    }
    report.ok = report.problems.is_empty();
    print(&report, args.json);
    if report.ok { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIG) }
}

fn print(report: &Report, as_json: bool) {
    if as_json {
        match serde_json::to_string_pretty(report) {
            Ok(text) => println!("{text}"),
            Err(e) => eprintln!("error: {e}"),
        }
        return;
    }
    for problem in &report.problems {
        eprintln!("{problem}");
    }
    print!("{}", text(report));
}

fn inspect(config: &Config, report: &mut Report) {
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    report.listen = Some(format!("{scheme}://{}", config.server.listen));
    report.admin = Some(format!("http://{}", config.server.admin));
    report.tls = config.server.tls.is_some();
    report.keys = config.server.keys.len();
    for backend in &config.backends {
        let name = backend.name.split_once('/').map_or(&*backend.name, |(_, n)| n);
        let at = format!("backends.{}", quoted(name));
        let table = table_of(backend, &at, report);
        let (on, about) = match &backend.off {
            Some(why) => (false, why.to_string()),
            None => (true, about(backend, &at, report)),
        };
        report.backends.push(Line { name: backend.name.to_string(), on, about, table });
    }
    policies(config, report);
    report.journal = Some(journal(config));
    report.cache =
        Some(if config.cache.enabled { format!("on, {} bytes", config.cache.max_bytes) } else { "off".to_owned() });
    for problem in &mut report.problems {
        if problem.file.is_empty() {
            problem.file.clone_from(&report.file);
        }
    }
}

fn about(backend: &Backend, at: &str, report: &mut Report) -> String {
    match &backend.kind {
        Kind::OpenAi(endpoint) => {
            let key = if endpoint.key.is_some() { "with a key" } else { "without a key" };
            format!("{} at {}, {key}", endpoint.model, endpoint.base)
        }
        Kind::Embedded(embedded) => {
            let found = Store::of_user().and_then(|store| {
                let model = models::resolve(&embedded.model, embedded.sha256.as_deref())?;
                models::locate(&store, &model)
            });
            let state = match found {
                Ok(Some(path)) => format!("here: {}", path.display()),
                Ok(None) => "not here yet: fetched at start, or by `wattroute models pull`".to_owned(),
                Err(e) => {
                    report.problems.push(Problem::new(format!("{at}.model"), e.to_string()));
                    "unusable".to_owned()
                }
            };
            let attention = match &embedded.attention {
                Attention::Softmax => String::new(),
                other => format!("attention {other}, "),
            };
            format!("{} in this process, {attention}{state}", embedded.model)
        }
    }
}

fn table_of(backend: &Backend, at: &str, report: &mut Report) -> String {
    let model = match &backend.kind {
        Kind::OpenAi(endpoint) => endpoint.model.to_string(),
        Kind::Embedded(embedded) => embedded.model.clone(),
    };
    match tables::find(backend.table.as_deref(), &model) {
        Ok(Some(table)) => format!("table {} on {} ({})", table.model, table.device, table.basis.name()),
        Ok(None) => match backend.energy {
            EnergyModel::Unknown => {
                let known = cloud::Model::new(&EnergyModel::Named(model.clone()), &Energy::ASSUMED).is_ok();
                let hint = if known { format!("; energy.model = \"{model}\" estimates them") } else { String::new() };
                format!("no table and no energy model: its joules are unknown{hint}")
            }
            EnergyModel::Table => "no table: prior coverage, joules unknown".to_owned(),
            _ => "no table: prior coverage, modelled joules".to_owned(),
        },
        Err(Problems(found)) => {
            let in_table = |mut p: Problem| {
                if p.file.is_empty() {
                    p.key = format!("{at}.table");
                }
                p
            };
            report.problems.extend(found.into_iter().map(in_table));
            "unusable".to_owned()
        }
    }
}

/// Loads every policy that the configuration names and runs its probes.
fn policies(config: &Config, report: &mut Report) {
    let domains = match Domains::load(&config.classify, config.energy.cpu_tdp_w) {
        Ok(domains) => domains,
        Err(problem) => return report.problems.push(problem),
    };
    report.warnings.extend(domains.lacks().cloned().map(|lacking| lacking.file(report.file.clone())));
    report.classify = Some(domains.about());
    let outlooks = config.backends.iter().filter_map(|b| Outlook::of(b, &config.energy).ok());
    let candidates: Vec<Candidate> = outlooks.map(|o| o.usual()).collect();
    let presets = config.policy.presets.iter().map(|(k, name)| (format!("policy.presets.{}", quoted(k)), name));
    let mut seen = BTreeSet::new();
    for (at, name) in std::iter::once(("policy.default".to_owned(), &config.policy.default)).chain(presets) {
        if !seen.insert(name) {
            continue;
        }
        match policy::load(name, config.policy.folder.as_deref()) {
            Ok(policy) => {
                if let Some(Pays { ok, text }) = pays(&policy, &candidates) {
                    report.cascades.push(Paying { policy: name.clone(), ok, about: text });
                }
                for probe in run_probes(&policy, |text| domains.sort_now(text).posterior) {
                    if probe.ok {
                        report.probes += 1;
                    } else {
                        let text = format!("a promise of the policy does not hold: {}", probe.text);
                        let problem = Problem::new(format!("probes[{}]", probe.index), text);
                        report.problems.push(problem.file(format!("policy {name}")));
                    }
                }
            }
            Err(Problems(found)) => report.problems.extend(found.into_iter().map(|mut p| {
                if p.file.is_empty() {
                    p.key.clone_from(&at);
                }
                p
            })),
        }
    }
    report.policy = Some(config.policy.default.clone());
}

fn journal(config: &Config) -> String {
    let path = config.journal.path.display();
    if !config.journal.enabled {
        return "off".to_owned();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return format!("{path}: not looked at: {e}"),
    };
    match runtime.block_on(stats(&config.journal.path, &Filter::default())) {
        Ok(stats) => format!("{path}, {} entries", stats.entries),
        Err(JournalError::Missing(_)) => format!("{path}, made at start"),
        Err(e) => format!("not usable now, serving would go on without it: {e}"),
    }
}

fn text(r: &Report) -> String {
    let mut t = String::new();
    if !r.ok {
        let n = r.problems.len();
        let _ = writeln!(t, "{}: {n} problem{}", r.file, if n == 1 { "" } else { "s" });
        return t;
    }
    let _ = writeln!(t, "{}: no problems", r.file);
    let keys = if r.keys == 0 { "open to this machine".to_owned() } else { format!("{} client keys", r.keys) };
    let _ = writeln!(t, "listen   {}  ({keys})", r.listen.as_deref().unwrap_or_default());
    let _ = writeln!(t, "admin    {}", r.admin.as_deref().unwrap_or_default());
    for b in &r.backends {
        let _ = writeln!(t, "backend  {:<20} {:<4} {}", b.name, if b.on { "on" } else { "off" }, b.about);
        let _ = writeln!(t, "         {:<25} {}", "", b.table);
    }
    let _ = writeln!(t, "classify {}", r.classify.as_deref().unwrap_or_default());
    let _ = writeln!(t, "policy   {}; {} probes as expected", r.policy.as_deref().unwrap_or_default(), r.probes);
    for c in &r.cascades {
        let _ = writeln!(t, "{}{}: {}", if c.ok { "cascade  " } else { "warning  cascade of " }, c.policy, c.about);
    }
    for warning in &r.warnings {
        let _ = writeln!(t, "warning  {warning}; until then the fast tier decides alone");
    }
    let _ = writeln!(t, "journal  {}", r.journal.as_deref().unwrap_or_default());
    let _ = writeln!(t, "cache    {}", r.cache.as_deref().unwrap_or_default());
    t
}
