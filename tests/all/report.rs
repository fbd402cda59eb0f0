//! The report: every picture from made-up answers, a page that asks nobody for anything.

use wattroute::config::checked::Energy;
use wattroute::energy::Basis;
use wattroute::profile::record::{File, Joules, Logprobs, Record, Run};
use wattroute::profile::report::{Report, Subject};
use wattroute::profile::table::of_file;

fn answers(n: u32, scale: f64) -> File {
    let answer = |i: u32| {
        let (tokens_in, tokens_out) = (30 + i * 37 % 200, 4 + i * 53 % 90);
        let gross = scale * (0.01 * f64::from(tokens_in) + 0.1 * f64::from(tokens_out));
        Record {
            id: i.to_string(),
            domain: ["Legal services", "None"][i as usize % 2].parse().unwrap(),
            streams: 1,
            correct: Some(i.is_multiple_of(3)),
            answer: "<b>a secret answer</b>".to_owned(),
            tokens_in: Some(tokens_in),
            tokens_out: Some(tokens_out),
            seconds: f64::from(tokens_out) * 0.02,
            ttft_s: Some(0.1),
            joules: Joules { gross: Some(gross), basis: Some(Basis::Counter), ..Joules::default() },
            logprobs: Some(Logprobs {
                mean: -0.01 * f64::from(1 + i % 50),
                min: -3.0,
                tokens: tokens_out,
                values: None,
            }),
            ..Record::default()
        }
    };
    let run = Run {
        model: "m<1>".to_owned(),
        device: "d".to_owned(),
        runtime: "r".to_owned(),
        attention: "softmax".to_owned(),
        ..Run::default()
    };
    File { runs: vec![run], answers: (0..n).map(answer).collect(), ..File::default() }
}

fn subject(name: &str, scale: f64) -> Subject {
    let file = answers(120, scale);
    Subject::new(name.to_owned(), of_file(&file, None).unwrap(), Some(&file))
}

const CLOUD: &str = "Qwen/Qwen3-235B-A22B-Instruct-2507";

#[test]
fn a_report_has_every_picture_and_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let report = Report::new(
        vec![subject("small <one>", 1.0), subject("large", 30.0)],
        CLOUD,
        &Energy::ASSUMED,
        "2026-01-01".to_owned(),
    )
    .unwrap();
    assert!(report.missing.is_empty(), "{:?}", report.missing);
    let files = report.write(&folder.path().join("new/out")).unwrap();
    let names: Vec<String> = files.iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let pictures = ["coverage", "efficiency", "pareto", "tokens", "savings", "calibration"].map(|n| format!("{n}.png"));
    assert_eq!(names[..3], ["report.html", "report.json", "report.png"]);
    assert_eq!(names[3..], pictures);
    let html = std::fs::read_to_string(&files[0]).unwrap();
    for foreign in ["http:", "https:", "<script", "<img", "<link", "url(", "@import", "secret"] {
        let ours = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!ours.contains(foreign), "{foreign}");
    }
    assert!(
        html.contains("prefers-color-scheme:dark") && html.contains("small &lt;one&gt;") && !html.contains("<one>")
    );
    assert_eq!(html.matches("<svg").count(), 6);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&files[1]).unwrap()).unwrap();
    assert_eq!(json["front"], serde_json::json!(["small <one>"]), "as good and leaner");
    assert_eq!(json["savings"]["large"].as_array().unwrap().len(), 7);
    let saved = |name: &str, i: usize| json["savings"][name][i]["mid"].as_f64().unwrap();
    assert!(saved("large", 0) > saved("large", 6) && saved("small <one>", 0) > saved("large", 0));
    assert!(json["subjects"][0]["calibration"]["n"] == 120 && !json.to_string().contains("secret"));
    for picture in &files[2..] {
        let bytes = std::fs::read(picture).unwrap();
        assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
        let width = u32::from_be_bytes(bytes[16..20].try_into().unwrap());
        assert!(width >= 1840 && bytes.len() > 10_000, "{}: {width}", picture.display());
    }
}

#[test]
fn what_cannot_be_drawn_is_said_and_never_invented() {
    let mut table = of_file(&answers(40, 1.0), None).unwrap();
    let text = serde_json::to_string(&table).unwrap();
    table = serde_json::from_str(&text).unwrap();
    for row in std::iter::once(&mut table.overall).chain(table.domains.values_mut()) {
        (row.joules_per_query, row.ipj, row.ipw, row.joules_interval) = (None, None, None, None);
    }
    let report =
        Report::new(vec![Subject::new("x".to_owned(), table, None)], CLOUD, &Energy::ASSUMED, "2026-01-01".to_owned())
            .unwrap();
    assert_eq!(report.missing.len(), 4, "{:?}", report.missing);
    assert!(report.html().contains("not known") && report.routers.is_empty());
    assert!(Report::new(Vec::new(), CLOUD, &Energy::ASSUMED, String::new()).is_err());
    let unknown =
        Report::new(vec![subject("x", 1.0)], "qwen3-235b-a22b-instruct-2508", &Energy::ASSUMED, String::new());
    assert!(unknown.err().unwrap().contains("did you mean"));
}
