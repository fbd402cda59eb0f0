//! Configuration files: every bad one names exactly the keys that are wrong, every example loads, no secret is shown.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use wattroute::config::{Around, Config, Problems, load_with, parse_with, watch};

/// Part of every secret in the bad files and in the variables.
const CANARY: &str = "canary";

fn around(base: &Path) -> Around {
    let mut around = Around::fixed(
        &[
            ("CLOUD_KEY", "sk-canary-cloud-0123456789"),
            ("CLIENT_KEY", "canary-client-0123456789"),
            ("SHORT_KEY", "canary"),
            ("BROKEN_KEY", "sk-canary\nx-evil: 1"),
            ("OPENAI_API_KEY", "sk-canary-openai-0123456789"),
            ("TEAM_A_KEY", "canary-team-a-0123456789"),
            ("TEAM_B_KEY", "canary-team-b-0123456789"),
        ],
        base,
    );
    around.base = base.to_owned();
    around
}

fn files(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let listed = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = listed.filter(|p| p.extension().is_some_and(|x| x == "toml")).collect();
    files.sort();
    files
}

#[test]
fn every_bad_file_is_refused_with_exactly_the_keys_that_are_wrong() {
    let base = tempfile::tempdir().unwrap();
    let all = files("tests/config/bad");
    assert!(all.len() >= 40, "{}", all.len());
    let mut wrong = Vec::new();
    for file in all {
        let text = std::fs::read_to_string(&file).unwrap();
        let first =
            text.lines().next().unwrap().strip_prefix("# expect: ").expect("the first line says what to expect");
        let expected: BTreeSet<String> =
            first.split(", ").map(|k| if k == "-" { String::new() } else { k.to_owned() }).collect();
        let name = file.file_name().unwrap().to_str().unwrap();
        match parse_with(&text, Some(Path::new(name)), &around(base.path())) {
            Ok(_) => wrong.push(format!("{name}: was accepted")),
            Err(problems) => {
                let found: BTreeSet<String> = problems.0.iter().map(|p| p.key.clone()).collect();
                if found != expected {
                    wrong.push(format!("{name}: expected {expected:?}, got\n{problems}"));
                }
                let shown = format!("{problems}\n{problems:?}");
                assert!(!shown.contains(CANARY), "{name} shows a secret: {shown}");
                assert!(problems.0.iter().all(|p| p.text.len() > 10), "{name}: {problems}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The examples in a folder of their own, with the files they name beside them.
fn examples() -> tempfile::TempDir {
    let base = tempfile::tempdir().unwrap();
    for file in files("examples") {
        std::fs::copy(&file, base.path().join(file.file_name().unwrap())).unwrap();
    }
    for name in ["cert.pem", "key.pem"] {
        std::fs::write(base.path().join(name), "PEM").unwrap();
    }
    base
}

#[test]
fn every_example_loads_and_hides_its_keys() {
    let base = examples();
    let all = files("examples");
    assert!(all.len() >= 5, "{all:?}");
    for file in all {
        let here = base.path().join(file.file_name().unwrap());
        let config = load_with(Some(&here), around(base.path())).unwrap_or_else(|p| panic!("{p}"));
        assert!(!config.backends.is_empty());
        let shown = format!("{config:?}");
        assert!(!shown.contains(CANARY), "{}: a key reached Debug", here.display());
    }
}

#[test]
fn every_key_of_the_schema_is_shown_in_an_example() {
    let texts: Vec<String> = files("examples").iter().map(|f| std::fs::read_to_string(f).unwrap()).collect();
    let mut missing = Vec::new();
    for (pattern, _) in wattroute::config::schema::KEYS {
        let leaf = pattern.rsplit('.').next().unwrap();
        let written = |text: &String| {
            text.lines().any(|l| l.trim_start_matches('#').trim_start().split(['=', ' ']).next() == Some(leaf))
        };
        if leaf != "*" && !texts.iter().any(written) {
            missing.push(*pattern);
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_variable_that_is_no_key_is_a_problem_of_the_environment() {
    let base = tempfile::tempdir().unwrap();
    let mut around = around(base.path());
    around.overrides = vec![("WATTROUTE__SERVER__LISTNE".to_owned(), "x".to_owned())];
    let text = "[backends.m]\nplace = \"local\"\nkind = \"embedded\"\nmodel = \"smollm2-135m\"\n";
    let problems = parse_with(text, None, &around).unwrap_err();
    assert_eq!(problems.to_string(), "server.listne: unknown key; did you mean `listen`?");
}

#[test]
fn a_changed_file_is_read_again_and_a_bad_one_changes_nothing() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("wattroute.toml");
    let model = "[backends.m]\nplace = \"local\"\nkind = \"embedded\"\nmodel = \"smollm2-135m\"\n";
    std::fs::write(&file, model).unwrap();
    let first = load_with(Some(&file), Around::process()).unwrap();
    let (tell, seen) = mpsc::channel::<Result<Config, Problems>>();
    let _watch = watch::watch(&first, move |loaded| tell.send(loaded).unwrap()).unwrap();
    let next = || seen.recv_timeout(Duration::from_secs(10)).expect("a change is seen");
    // By renaming, as editors do.
    let other = base.path().join("new");
    std::fs::write(&other, format!("{model}[cache]\nenabled = true\n[server]\nworkers = 3\n")).unwrap();
    std::fs::rename(&other, &file).unwrap();
    let second = next().unwrap();
    assert!(second.cache.enabled);
    assert_eq!(watch::needs_restart(&first, &second), ["server.workers"]);
    std::fs::write(&file, format!("{model}[cache]\nenbled = true\n")).unwrap();
    assert_eq!(next().unwrap_err().0[0].key, "cache.enbled");
    std::fs::write(&file, model).unwrap();
    assert!(!next().unwrap().cache.enabled);
    // The same bytes again are no change.
    std::fs::write(&file, model).unwrap();
    assert!(seen.recv_timeout(Duration::from_millis(600)).is_err());
}

#[test]
fn every_shipped_policy_can_be_named() {
    let base = tempfile::tempdir().unwrap();
    for name in wattroute::policy::names() {
        let text = format!(
            "[backends.m]\nplace = \"local\"\nkind = \"embedded\"\nmodel = \"smollm2-135m\"\n[policy]\ndefault = \"{name}\"\n"
        );
        let config = parse_with(&text, None, &around(base.path())).unwrap_or_else(|p| panic!("{p}"));
        for preset in config.policy.presets.values() {
            assert!(wattroute::policy::load(preset, None).is_ok(), "{preset}");
        }
    }
}
