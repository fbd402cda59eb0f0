//! Raw to checked. Collects every problem, then fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backends::backend;
use super::checked::{Cache, Config, Journal, Limits, Policy};
use super::classify;
use super::energy;
use super::env::Around;
use super::problem::{Problems, did_you_mean, looks_secret, shown};
use super::raw;
use super::schema::quoted;
use super::server::server;
use super::shadow;
use super::source::Source;
use super::units::{duration_within, size_within};
use crate::policy;

/// Presets of `auto:NAME` and the policies they stand for unless the file says otherwise.
pub const PRESETS: &[(&str, &str)] =
    &[("green", "green"), ("fast", "fast"), ("quality", "quality"), ("private", "private")];

/// Checks everything that a file says.
pub fn resolve(source: Source, around: &Around) -> Result<Config, Problems> {
    let Source { raw, order, mut problems, .. } = source;
    let server = server(&raw.server, around, &mut problems);
    let limits = limits(&raw.limits, &mut problems);
    let mut backends = Vec::new();
    for name in &order {
        let Some(one) = raw.backends.get(name) else { continue };
        backends.extend(backend(name, one, &format!("backends.{}", quoted(name)), around, &mut problems));
    }
    if order.is_empty() && !problems.0.iter().any(|p| p.key.starts_with("backends")) {
        problems.add("backends", "there is none: add a table such as [backends.smollm2]; examples/ has whole files");
    }
    let policy = policy(&raw.policy, around, &mut problems);
    let names = full_names(&raw);
    aliases(&raw.aliases, &names, &policy, &mut problems);
    let classify = classify::section(&raw.classify, around, &mut problems);
    let journal = journal(&raw.journal, around, &mut problems);
    let cache = cache(&raw.cache, &mut problems);
    let energy = energy::checked(&raw.energy, around, &mut problems);
    let learning = energy::learning(raw.learning.as_deref(), &mut problems);
    let shadow = shadow::section(&raw.shadow, &names, &mut problems);
    let all = match (server, limits, classify, journal, cache, energy, shadow) {
        (Some(server), Some(limits), Some(classify), Some(journal), Some(cache), Some(energy), Some(shadow)) => {
            Some(Config {
                file: None,
                read: key_files(&raw, around),
                server,
                limits,
                backends,
                aliases: raw.aliases,
                policy,
                classify,
                journal,
                cache,
                energy,
                learning,
                shadow,
            })
        }
        _ => None,
    };
    problems.finish(all)
}

/// A whole number in a range, or its default.
pub fn whole<T: TryFrom<i64>>(
    value: Option<i64>,
    default: i64,
    low: i64,
    high: i64,
    at: &str,
    problems: &mut Problems,
) -> Option<T> {
    let value = value.unwrap_or(default);
    if !(low..=high).contains(&value) {
        problems.add(at, format!("must be from {low} to {high} (got {value})"));
        return None;
    }
    T::try_from(value).ok()
}

/// A duration in a range of milliseconds, or its default.
pub fn span(
    text: Option<&str>,
    default: Duration,
    ms: (u64, u64),
    at: &str,
    problems: &mut Problems,
) -> Option<Duration> {
    let Some(text) = text else { return Some(default) };
    problems.keep(at, duration_within(text, Duration::from_millis(ms.0), Duration::from_millis(ms.1)))
}

/// A file that must exist, relative to the configuration file.
pub fn path_in(around: &Around, text: &str, at: &str, problems: &mut Problems) -> Option<PathBuf> {
    let path = around.base.join(text);
    let found = match path.metadata() {
        Ok(meta) if meta.is_file() => Ok(path),
        Ok(_) => Err(format!("{} is not a file", path.display())),
        Err(e) => Err(format!("{} cannot be used: {}", path.display(), e.kind())),
    };
    problems.keep(at, found)
}

/// The name of an environment variable. Never repeats what was written: it may be the key itself.
pub fn variable(name: &str) -> Result<&str, String> {
    let fine = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if fine && !looks_secret(name) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit()) && name.len() <= 128 {
        return Ok(name);
    }
    Err("must be the NAME of a variable in capitals, e.g. \"OPENAI_API_KEY\", never the key itself; \
         if this was a key, replace it at its provider"
        .to_owned())
}

fn limits(raw: &raw::Limits, problems: &mut Problems) -> Option<Limits> {
    let mut wait = |name: &str, text: &Option<String>, default: u64| {
        span(text.as_deref(), Duration::from_secs(default), (100, 3_600_000), &format!("limits.{name}"), problems)
    };
    let first_byte = wait("first_byte", &raw.first_byte, 10);
    let head = wait("head", &raw.head, 10);
    let idle = wait("idle", &raw.idle, 60);
    let body_gap = wait("body_gap", &raw.body_gap, 10);
    let body_total = wait("body_total", &raw.body_total, 30);
    let write_stall = wait("write_stall", &raw.write_stall, 60);
    let mut size = |name: &str, text: &Option<String>, default: &str, low: u64, high: u64| {
        let value = size_within(text.as_deref().unwrap_or(default), low, high);
        problems.keep(&format!("limits.{name}"), value).and_then(|v| usize::try_from(v).ok())
    };
    let head_bytes = size("head_bytes", &raw.head_bytes, "32KiB", 1 << 10, 1 << 20);
    let body_bytes = size("body_bytes", &raw.body_bytes, "10MiB", 1 << 10, 1 << 30);
    let mut count = |name: &str, value: Option<i64>, default: i64, high: i64| {
        whole(value, default, 1, high, &format!("limits.{name}"), problems)
    };
    let header_fields = count("header_fields", raw.header_fields, 100, 1000);
    let json_depth = count("json_depth", raw.json_depth, 64, 120);
    let connections = count("connections", raw.connections, 1024, 1_000_000);
    let in_flight = count("in_flight", raw.in_flight, 256, 1_000_000);
    let all = in_flight.and_then(|seats: usize| i64::try_from(seats).ok()).unwrap_or(1_000_000);
    let tenant_in_flight = count("tenant_in_flight", raw.tenant_in_flight, all, all);
    Some(Limits {
        first_byte: first_byte?,
        head: head?,
        idle: idle?,
        body_gap: body_gap?,
        body_total: body_total?,
        head_bytes: head_bytes?,
        header_fields: header_fields?,
        body_bytes: body_bytes?,
        json_depth: json_depth?,
        connections: connections?,
        in_flight: in_flight?,
        tenant_in_flight: tenant_in_flight?,
        write_stall: write_stall?,
    })
}

/// Files whose content is part of the configuration.
fn key_files(raw: &raw::Raw, around: &Around) -> Vec<PathBuf> {
    let upstream = raw.backends.values().filter_map(|b| b.key_file.as_ref());
    let client = raw.server.keys.iter().filter_map(|k| k.key_file.as_ref());
    let tls = [&raw.server.tls.cert, &raw.server.tls.key].into_iter().flatten();
    upstream.chain(client).chain(tls).map(|f| around.base.join(f)).collect()
}

fn full_names(raw: &raw::Raw) -> Vec<String> {
    raw.backends.iter().map(|(n, b)| format!("{}/{n}", b.place.as_deref().unwrap_or("cloud"))).collect()
}

fn policy(raw: &raw::Policy, around: &Around, problems: &mut Problems) -> Policy {
    let mut presets: BTreeMap<String, String> =
        PRESETS.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    presets.extend(raw.presets.clone());
    let folder = raw.folder.as_deref().map(|f| around.base.join(f));
    if let Some(missing) = folder.as_ref().filter(|f| !f.is_dir()) {
        problems.add("policy.folder", format!("{} is not a folder", missing.display()));
    }
    let default = raw.default.clone().unwrap_or_else(|| "balanced".to_owned());
    let named = raw.default.iter().map(|name| ("policy.default".to_owned(), name));
    let presets_named = raw.presets.iter().map(|(k, name)| (format!("policy.presets.{}", quoted(k)), name));
    for (at, name) in named.chain(presets_named) {
        problems.keep(&at, policy_exists(name, folder.as_deref()));
    }
    Policy { default, presets, folder, classify_pinned: raw.classify_pinned.unwrap_or(true) }
}

/// A file, a policy of the user's folder, or a shipped one. Whether its content is right is for `check` and the loader.
fn policy_exists(name: &str, folder: Option<&Path>) -> Result<(), String> {
    if name.contains('/') || name.ends_with(".toml") {
        let found = Path::new(name).is_file() || folder.is_some_and(|f| f.join(name).is_file());
        return if found { Ok(()) } else { Err(format!("there is no file {}", shown(name))) };
    }
    let own = folder.is_some_and(|f| f.join(format!("{name}.toml")).is_file());
    if own || policy::names().any(|n| n == name) {
        return Ok(());
    }
    let near = did_you_mean(name, policy::names()).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
    let place = if folder.is_some() { "neither shipped nor in policy.folder" } else { "not a shipped policy" };
    Err(format!("{} is {place}{near}", shown(name)))
}

fn aliases(raw: &BTreeMap<String, String>, names: &[String], policy: &Policy, problems: &mut Problems) {
    for (alias, target) in raw {
        let at = format!("aliases.{}", quoted(alias));
        if alias.is_empty() || alias.len() > 128 || alias.chars().any(|c| c.is_control() || c == ' ') {
            problems.add(at.clone(), "an alias is 1 to 128 characters without spaces");
        }
        if alias == "auto" || ["auto:", "local/", "cloud/"].iter().any(|p| alias.starts_with(p)) {
            problems.add(at.clone(), "names that start with auto, local/ or cloud/ have their own meaning");
        }
        let preset = target.strip_prefix("auto:").is_some_and(|p| policy.presets.contains_key(p));
        if target == "auto" || preset || names.contains(target) {
            continue;
        }
        let known = names.iter().map(String::as_str).chain(["auto"]);
        let near = did_you_mean(target, known).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        problems.add(at, format!("must be auto, auto:PRESET or a backend (got {}){near}", shown(target)));
    }
}

fn journal(raw: &raw::Journal, around: &Around, problems: &mut Problems) -> Option<Journal> {
    const DAY_MS: u64 = 86_400_000;
    let keep =
        span(raw.keep.as_deref(), Duration::from_secs(90 * 86_400), (60_000, 3650 * DAY_MS), "journal.keep", problems);
    let max = size_within(raw.max_bytes.as_deref().unwrap_or("1GiB"), 1 << 20, 1 << 42);
    let max_bytes = problems.keep("journal.max_bytes", max);
    let queue = whole(raw.queue, 8192, 16, 1_000_000, "journal.queue", problems);
    let path = match raw.path.as_deref() {
        Some("") => problems.keep("journal.path", Err("must not be empty".to_owned()))?,
        Some(p) => around.base.join(p),
        None => around.data.join("journal.db"),
    };
    if Path::new(&path).is_dir() {
        problems.add("journal.path", format!("{} is a folder: name a file in it", path.display()));
    }
    Some(Journal { path, keep: keep?, max_bytes: max_bytes?, queue: queue?, enabled: raw.enabled.unwrap_or(true) })
}

fn cache(raw: &raw::Cache, problems: &mut Problems) -> Option<Cache> {
    let max = size_within(raw.max_bytes.as_deref().unwrap_or("64MiB"), 1 << 16, 1 << 40);
    let max_bytes = problems.keep("cache.max_bytes", max);
    let ttl = span(raw.ttl.as_deref(), Duration::from_secs(3600), (1000, 30 * 86_400_000), "cache.ttl", problems);
    let (enabled, sampled) = (raw.enabled.unwrap_or(false), raw.sampled.unwrap_or(false));
    Some(Cache { enabled, sampled, max_bytes: max_bytes?, ttl: ttl? })
}
