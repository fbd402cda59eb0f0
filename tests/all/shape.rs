//! The shape of the source: import arrows, file and function sizes, bans. Architecture that no test keeps is a wish.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each top-level module may use of this crate. `fault clock config` are leaves that everyone may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("fault", &[]),
    ("clock", &[]),
    ("config", &["policy"]),
    ("lla", &[]),
    ("fetch", &[]),
    // Objects over the one constructor of HTTP clients.
    ("store", &["fetch"]),
    ("energy", &[]),
    ("classify", &[]),
    ("tables", &["classify", "energy"]),
    ("api", &[]),
    ("predict", &["classify", "energy", "policy", "tables"]),
    ("models", &["fetch"]),
    ("engine", &["api", "lla"]),
    ("verify", &[]),
    ("policy", &["api", "classify", "energy", "verify"]),
    // Parquet in and out.
    ("columnar", &[]),
    ("journal", &["classify", "columnar", "energy", "policy"]),
    ("cache", &["api", "backend", "energy", "policy"]),
    ("meter", &["energy", "journal", "policy"]),
    ("gate", &[]),
    ("backend", &["api", "engine", "policy", "verify"]),
    ("train", &["classify", "verify"]),
    ("picture", &[]),
    ("profile", &["api", "backend", "classify", "energy", "engine", "models", "picture", "policy", "tables", "verify"]),
    // Its own journal is one of the logs that it reads; a cascade is replayed by the same check as on the live line.
    (
        "replay",
        &[
            "api", "classify", "columnar", "energy", "journal", "picture", "policy", "predict", "store", "tables",
            "verify",
        ],
    ),
    // Joins what the others found on one page.
    ("report", &["journal", "picture", "profile", "replay", "tables"]),
    ("tune", &["classify", "policy", "replay", "verify"]),
    ("cluster", &["classify", "columnar", "policy", "replay", "store"]),
    // The classifier's tiers, what they said lately, and how often.
    ("domains", &["cache", "classify", "energy", "meter", "tier"]),
    // Fed by the journal; decisions see what it knows through their signals.
    ("bandit", &["classify", "journal", "policy", "predict"]),
    ("signals", &["api", "domains", "policy", "predict", "state"]),
    ("state", &["backend", "domains", "policy"]),
    ("sticky", &[]),
    (
        "entry",
        &["api", "backend", "cache", "classify", "energy", "journal", "meter", "policy", "relay", "state", "tee"],
    ),
    ("relay", &["api", "backend", "journal"]),
    ("tier", &["cache", "engine", "models"]),
    ("tee", &["backend", "cache", "energy", "policy"]),
    ("headers", &["energy", "policy"]),
    ("learn", &["backend", "classify", "energy", "journal", "predict", "state"]),
    ("asking", &["api", "app", "backend", "entry", "meter", "policy", "relay", "state", "verify"]),
    ("edge", &["gate", "meter"]),
    ("feedback", &["app", "edge", "gate", "journal", "relay"]),
    ("shadow", &["api", "app", "backend", "entry", "journal", "policy", "relay", "state", "verify"]),
];

/// Everyone may use these.
const LEAVES: &[&str] = &["fault", "clock", "config"];
/// These wire the others together and may use all of them.
const WIRING: &[&str] = &["app", "path", "cli", "main", "lib"];

struct Source {
    path: PathBuf,
    module: String,
    /// Without its tests.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.ends_with("tests") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let inside = path.strip_prefix(&root).unwrap();
                let module = Path::new(inside.components().next().unwrap().as_os_str()).with_extension("");
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap().to_owned();
                found.push(Source { path, module: module.display().to_string(), code });
            }
        }
    }
    assert!(found.len() > 20, "the scan found too little: {}", found.len());
    found
}

/// Names right after `crate::`, and each name of `crate::{a::b, c}`, outside comments.
fn uses(code: &str) -> Vec<String> {
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for part in code.split("crate::").skip(1) {
        let name =
            |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match part.strip_prefix('{') {
            None => names.push(name(part)),
            Some(group) => {
                let (mut depth, mut item) = (0, String::new());
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => names.push(name(&std::mem::take(&mut item))),
                        _ if depth == 0 => item.push(c),
                        _ => {}
                    }
                }
                names.push(name(&item));
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn modules_use_only_what_the_architecture_allows() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        if WIRING.contains(&source.module.as_str()) {
            continue;
        }
        let Some(allowed) = arrows.get(source.module.as_str()) else {
            wrong.push(format!("{}: module {} has no arrows", source.path.display(), source.module));
            continue;
        };
        for used in uses(&source.code) {
            if used != source.module && !allowed.contains(&used.as_str()) && !LEAVES.contains(&used.as_str()) {
                wrong.push(format!("{}: {} uses {used}", source.path.display(), source.module));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn groups_and_paths_of_imports_are_both_seen() {
    let code =
        "use crate::{api::{a, b}, gate};\nlet x = crate::meter::render();\n// crate::edge\nuse crate::fault::Fault;";
    assert_eq!(uses(code), ["api", "gate", "meter", "fault"]);
}

/// Crates that only one part of the program may know.
const KNOWN_ONLY_BY: &[(&str, &[&str])] = &[
    ("hyper::server", &["edge"]),
    ("candle_core", &["engine"]),
    ("sqlx", &["journal"]),
    ("object_store", &["cluster", "store"]),
    ("cudarc", &["lla"]),
    ("libloading", &["lla"]),
    ("linfa", &["train"]),
    ("moka", &["cache"]),
    ("parquet", &["columnar"]),
    ("reqwest", &["fetch", "models", "backend", "cli"]),
    ("clap", &["cli", "main"]),
    ("datafusion", &["cluster"]),
    ("ballista", &["cluster"]),
    ("tiny_skia", &["picture"]),
    ("ttf_parser", &["picture"]),
];

#[test]
fn crates_are_known_only_where_they_belong() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, modules) in KNOWN_ONLY_BY {
            let mentions = source.code.lines().filter(|line| !line.trim_start().starts_with("//"));
            let prefix = format!("{name}::");
            if mentions.clone().any(|line| line.contains(&prefix)) && !modules.contains(&source.module.as_str()) {
                wrong.push(format!("{}: {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Pure parts never import what waits, reads files or tells the time.
#[test]
fn pure_parts_do_no_io() {
    let pure = |path: &Path| {
        let path = path.display().to_string();
        path.contains("/src/policy/decide")
            || path.contains("/src/api/")
            // An artifact is read once, before anything is predicted.
            || (path.contains("/src/predict") && !path.ends_with("/success/artifact.rs"))
            || path.contains("/src/verify")
            || path.contains("/src/lla/")
    };
    for source in sources().iter().filter(|source| pure(&source.path)) {
        for banned in ["tokio::", "reqwest::", "std::fs", "std::net", "clock::now", "hyper::"] {
            assert!(!source.code.contains(banned), "{} mentions {banned}", source.path.display());
        }
    }
}

#[test]
fn files_stay_within_their_line_budget() {
    let long: Vec<_> = sources()
        .iter()
        .map(|source| (source.code.lines().count(), source.path.display().to_string()))
        .filter(|(lines, _)| *lines > 300)
        .collect();
    assert!(long.is_empty(), "over 300 lines without tests: {long:#?}");
}

#[test]
fn functions_stay_within_their_line_budget() {
    let mut long = Vec::new();
    for source in sources() {
        let mut open: Option<(usize, String, usize)> = None;
        for (number, line) in source.code.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let words = line.trim_start();
            if open.is_none() && (words.starts_with("fn ") || words.contains(" fn ")) && !words.starts_with("//") {
                open = Some((indent, words.to_owned(), number));
            }
            if let Some((at, name, start)) = &open
                && indent == *at
                && (words == "}"
                    || (number == *start && words.ends_with(['}', ';']))
                    || words == ";"
                    || words.ends_with(';'))
            {
                if number - start + 1 > 60 {
                    long.push(format!("{}:{}: {} lines: {name}", source.path.display(), start + 1, number - start + 1));
                }
                open = None;
            }
        }
    }
    assert!(long.is_empty(), "over 60 lines: {long:#?}");
}

#[test]
fn unsafe_code_lives_in_the_kernels_only() {
    for source in sources() {
        let kernel = ["lla", "engine"].contains(&source.module.as_str());
        let mentions = source.code.lines().any(|line| {
            let line = line.trim_start();
            !line.starts_with("//")
                && (line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"))
        });
        assert!(kernel || !mentions, "unsafe in {}", source.path.display());
    }
}
