//! `wattroute energy` as a user runs it: every meter or the reason it is missing, live watts, a plug that goes away.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn run(folder: &Path, arguments: &[&str]) -> (Vec<Value>, Option<i32>) {
    let said = Command::new(env!("CARGO_BIN_EXE_wattroute")).current_dir(folder).args(arguments).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), said.status.code())
}

fn configured(folder: &Path, energy: &str) {
    let text =
        format!("[backends.m]\nplace = \"local\"\nkind = \"embedded\"\nmodel = \"smollm2-135m\"\n[energy]\n{energy}\n");
    fs::write(folder.join("wattroute.toml"), text).unwrap();
}

#[test]
fn a_plug_is_the_total_and_every_other_meter_is_there_or_explained() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("watts"), "42.5 W\n").unwrap();
    configured(folder.path(), "wall_file = \"watts\"");
    let (lines, code) = run(folder.path(), &["energy", "--once", "--every", "0.5", "--sample", "10", "--json"]);
    assert_eq!((lines.len(), code), (2, Some(0)), "{lines:?}");
    let names: Vec<&str> = lines[0]["rails"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names.first(), Some(&"wall/plug"));
    let absent: Vec<&str> =
        lines[0]["absent"].as_array().unwrap().iter().map(|a| a["meter"].as_str().unwrap()).collect();
    for (meter, prefixes) in [
        ("nvml", &["nvml/"][..]),
        ("rapl", &["rapl/"]),
        ("hwmon", &["amdgpu/", "i915/", "xe/", "amd_energy/", "zenergy/"]),
        ("battery", &["battery/"]),
    ] {
        let there = names.iter().any(|n| prefixes.iter().any(|p| n.starts_with(p)));
        assert!(there != absent.contains(&meter), "{meter}: {names:?} {absent:?}");
    }
    let total = lines[1]["total_watts"].as_f64().unwrap();
    assert!((total - 42.5).abs() < 1e-6, "{total}");
    assert!(lines[1]["sampler"]["samples"].as_u64().unwrap() >= 2);
}

#[test]
fn a_plug_that_cannot_be_read_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    configured(folder.path(), "wall_command = \"no-such-meter --follow\"");
    let (lines, _) = run(folder.path(), &["energy", "--once", "--every", "0.2", "--json"]);
    let absent = lines[0]["absent"].as_array().unwrap();
    let wall = absent.iter().find(|a| a["meter"] == "wall").unwrap();
    assert!(wall["why"].as_str().unwrap().starts_with("no-such-meter: "), "{wall}");
    assert!(wall["fix"].as_str().unwrap().contains("install no-such-meter"));
}

#[test]
fn cloud_figures_print_how_they_follow() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let example = root.join("examples/cloud-and-embedded.toml");
    let (lines, code) = run(folder.path(), &["--config", example.to_str().unwrap(), "energy", "--cloud", "--json"]);
    assert!(code == Some(0) && !lines.is_empty());
    for line in lines {
        let per_token = &line["joules_per_output_token"];
        let [low, mid, high] = ["low", "mid", "high"].map(|k| per_token[k].as_f64().unwrap());
        assert!(low <= mid && mid <= high && per_token["basis"] == "modelled", "{line}");
        assert!(line["derivation"].as_str().unwrap().contains("PUE"), "{line}");
    }
}

#[test]
fn a_plug_program_that_fails_is_told_and_the_other_meters_are_the_total() {
    let folder = tempfile::tempdir().unwrap();
    configured(folder.path(), r#"wall_command = "sh -c 'echo no plug on this line >&2; exit 4'""#);
    let (lines, _) = run(folder.path(), &["energy", "--once", "--every", "0.5", "--sample", "10", "--json"]);
    let absent = lines[0]["absent"].as_array().unwrap();
    let wall = absent.iter().find(|a| a["meter"] == "wall").unwrap();
    assert_eq!(wall["why"], "sh has ended (exit status: 4): no plug on this line");
    let total = lines[1]["total_watts"].as_f64();
    assert!(total.is_some_and(|watts| watts > 0.0), "{}", lines[1]);
}

#[test]
fn a_plug_program_is_a_line_as_in_a_shell_or_a_list() {
    for command in [r#""sh -c 'while :; do echo 33.5; sleep 1; done'""#, r#"["sh", "-c", "echo 33.5; exec sleep 60"]"#]
    {
        let folder = tempfile::tempdir().unwrap();
        configured(folder.path(), &format!("wall_command = {command}"));
        let (lines, code) = run(folder.path(), &["energy", "--once", "--every", "0.5", "--sample", "10", "--json"]);
        assert_eq!(code, Some(0));
        let total = lines[1]["total_watts"].as_f64().unwrap();
        assert!((total - 33.5).abs() < 1e-6, "{command}: {total}");
    }
}

#[test]
fn raw_lines_are_a_recording() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("watts"), "42.5 W\n").unwrap();
    configured(folder.path(), "wall_file = \"watts\"");
    let arguments = ["energy", "--for", "0.6", "--every", "0.3", "--sample", "10", "--json", "--raw"];
    let (lines, _) = run(folder.path(), &arguments);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let trace = wattroute::energy::recorded::read(text.as_bytes()).unwrap();
    let (from_s, to_s) = trace.series[0].span().unwrap();
    let joules = trace.series[0].between(from_s, to_s);
    // A machine too busy to sample leaves a hole, and then there is no figure.
    assert!(to_s > from_s && joules.is_none_or(|joules| (joules - 42.5 * (to_s - from_s)).abs() < 1e-6), "{joules:?}");
}
