//! Bytes of a record file to its lines.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{File, Line};

/// Reads the bytes of a record file; `name` is what errors call it.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &[u8], name: &str) -> Result<File, String> {
    let mut file = File::default();
    let mut at = BTreeMap::new();
    let mut from = 0;
    let mut number = 0;
    while let Some(length) = memchr::memchr(b'\n', bytes.get(from..).unwrap_or_default()) {
        let line = bytes.get(from..from + length).unwrap_or_default();
        (from, number) = (from + length + 1, number + 1);
        if line.trim_ascii().is_empty() {
            continue;
        }
        match line_of(line).map_err(|e| format!("{name}:{number}: {e}"))? {
            Line::Run(run) => file.runs.push(*run),
            Line::Window(window) => file.windows.push(window),
            Line::Verdict(verdict) => {
                if let Some(record) = at.get(&verdict.key()).and_then(|i: &usize| file.answers.get_mut(*i)) {
                    verdict.settle(record);
                }
            }
            Line::Answer(record) => match at.get(&record.key()).and_then(|i: &usize| file.answers.get_mut(*i)) {
                Some(before) => file.replaced.push(std::mem::replace(before, *record)),
                None => {
                    at.insert(record.key(), file.answers.len());
                    file.answers.push(*record);
                }
            },
        }
    }
    file.whole_bytes = u64::try_from(from).unwrap_or(u64::MAX);
    Ok(file)
}

fn line_of(line: &[u8]) -> Result<Line, String> {
    let mut value: Value = serde_json::from_slice(line).map_err(|e| format!("not JSON: {e}"))?;
    let Some(object) = value.as_object_mut() else { return Err("not a JSON object".to_owned()) };
    object.entry("line").or_insert_with(|| Value::from("answer"));
    serde_json::from_value(value).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::record::verdict::Verdict;
    use crate::profile::record::window::{Balance, Window};
    use crate::profile::record::{Counted, FORMAT, Joules, Note, Record, Run};

    fn text(line: &Line) -> String {
        serde_json::to_string(line).unwrap() + "\n"
    }

    fn record(id: &str, correct: Option<bool>) -> Record {
        Record { id: id.to_owned(), correct, streams: 1, seconds: 2.0, ..Record::default() }
    }

    #[test]
    fn what_is_written_is_read_back_and_the_last_line_of_a_key_counts() {
        let joules = Joules { gross: Some(3.0), note: Some(Note::Pooled), ..Joules::default() };
        let first = Record { error: Some("cut".to_owned()), ..record("1", None) };
        let again = Record { joules, tokens_from: Some(Counted::Usage), ..record("1", Some(true)) };
        let other = Record { repeat: 1, ..record("1", Some(false)) };
        let verdict = Verdict {
            id: "1".to_owned(),
            repeat: 1,
            streams: 1,
            correct: Some(true),
            judged: Some(0.5),
            ..Verdict::default()
        };
        let window =
            Window { streams: 1, rails: BTreeMap::from([("a/b".to_owned(), Balance::default())]), ..Window::default() };
        let run = Run { format: FORMAT, model: "m".to_owned(), ..Run::default() };
        let lines = [
            Line::Run(Box::new(run.clone())),
            Line::Answer(Box::new(first.clone())),
            Line::Answer(Box::new(other.clone())),
            Line::Answer(Box::new(again.clone())),
            Line::Window(window.clone()),
            Line::Verdict(verdict),
        ];
        let whole: String = lines.iter().map(text).collect();
        let file = parse((whole.clone() + "{\"line\":\"answer\",\"id\":\"to").as_bytes(), "r").unwrap();
        let judged = Record { correct: Some(true), judged: Some(0.5), ..other };
        assert_eq!((file.runs, file.answers), (vec![run], vec![again, judged]));
        assert_eq!((file.replaced, file.windows), (vec![first], vec![window]));
        assert_eq!(file.whole_bytes, whole.len() as u64);
    }

    #[test]
    fn older_and_newer_lines_are_readable_and_unknown_stays_unknown() {
        let old = r#"{"id":"7","domain":"Legal services","correct":true,"input_tokens":9,"output_tokens":2,"seconds":1.5,"prefill_j":1.0}"#;
        let file = parse(format!("{old}\n").as_bytes(), "r").unwrap();
        let [record] = &file.answers[..] else { panic!("{file:?}") };
        assert_eq!((record.tokens_in, record.tokens_out), (Some(9), Some(2)));
        assert_eq!((record.joules.gross, record.watts(), record.ttft_s), (None, None, None));
        assert!(text(&Line::Answer(Box::new(record.clone()))).contains("\"gross\":null"));
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        for (text, want) in [
            ("{}\nnonsense\n", "r:2: not JSON"),
            ("[1]\n", "r:1: not a JSON object"),
            ("{\"line\":\"other\"}\n", "unknown variant `other`"),
            ("{\"domain\":\"Nowhere\"}\n", "r:1: "),
        ] {
            let said = parse(text.as_bytes(), "r").unwrap_err();
            assert!(said.contains(want), "{text}: {said}");
        }
    }
}
