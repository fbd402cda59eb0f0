//! A trace that was recorded: the lines of `wattroute energy --json --raw`, read back as if its meters were here now. Pure.
//!
//! Invariant: the readings go through the same [`Trace`] as live ones, so that integration, gaps and losses come out alike.

use std::io::BufRead;

use serde::Deserialize;

use crate::energy::meters::Rail;
use crate::energy::trace::{Sample, Trace};

/// The first line, as far as it is needed here.
#[derive(Deserialize)]
struct Head {
    rails: Vec<Rail>,
    sample_s: f64,
}

/// Any other line, likewise.
#[derive(Deserialize)]
struct Line {
    readings: Vec<Sample>,
}

/// Reads a recording.
///
/// # Errors
/// Says which line is no line of a recording, was made without `--raw`, or goes back in time.
pub fn read(lines: impl BufRead) -> Result<Trace, String> {
    let mut numbered = lines.lines().zip(1_u32..).map(|(line, n)| (line.map_err(|e| format!("line {n}: {e}")), n));
    let (first, _) = numbered.next().ok_or("is empty: a recording begins with its meters")?;
    let head: Head = serde_json::from_str(&first?).map_err(|e| format!("line 1: {e}"))?;
    if !(head.sample_s.is_finite() && head.sample_s > 0.0) {
        return Err("line 1: sample_s must be above 0".to_owned());
    }
    let mut trace = Trace::new(head.rails, head.sample_s);
    for (line, n) in numbered {
        let line: Line =
            serde_json::from_str(&line?).map_err(|e| format!("line {n}: {e} (recorded without --raw?)"))?;
        for sample in line.readings {
            if trace.last_s().is_some_and(|last_s| sample.at_s <= last_s) || !sample.at_s.is_finite() {
                return Err(format!("line {n}: a reading at {} s is not after the one before", sample.at_s));
            }
            trace.take(sample.at_s, sample.wall_s, &sample.readings);
        }
    }
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::attribution::Span;
    use crate::energy::books::{Books, Settled, Terms};
    use crate::energy::meters::Reading;
    use crate::energy::trace::Event;
    use flate2::read::GzDecoder;
    use std::io::{BufReader, Read as _};

    const HEAD: &str = r#"{"rails":[{"name":"a/b","device":"","part":"gpu","basis":"power","uncertainty":null,"renewed_s":0.1,"cap_w":null}],"absent":[],"sample_s":0.1}"#;

    fn real() -> String {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/energy/proc-stat-50ms.jsonl.gz");
        let mut text = String::new();
        GzDecoder::new(std::fs::File::open(file).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_recording_comes_out_as_it_was_seen() {
        let text = [
            HEAD,
            r#"{"readings":[{"at_s":0.0,"wall_s":10.0,"readings":[{"watts":10.0}]},{"at_s":0.1,"wall_s":10.1,"readings":[{"watts":30.0}]}]}"#,
            r#"{"readings":[{"at_s":0.2,"wall_s":10.2,"readings":["missing"]},{"at_s":5.0,"wall_s":15.0,"readings":[{"watts":1}]}]}"#,
        ]
        .join("\n");
        let trace = read(text.as_bytes()).unwrap();
        assert!((trace.series[0].between(0.0, 0.1).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(trace.series[0].between(0.0, 5.0), None);
        assert_eq!(trace.events, [Event::Gap { from_s: 0.2, to_s: 5.0 }]);
    }

    #[test]
    fn a_line_that_is_none_of_a_recording_is_named() {
        let back = r#"{"readings":[{"at_s":1.0,"wall_s":1.0,"readings":[]},{"at_s":1.0,"wall_s":1.0,"readings":[]}]}"#;
        for (text, want) in [
            (String::new(), "is empty"),
            ("{}".to_owned(), "line 1: missing field `rails`"),
            (HEAD.replace("0.1}", "0}"), "line 1: sample_s"),
            (format!("{HEAD}\n{{\"at_s\":1.0}}"), "line 2: missing field `readings`"),
            (format!("{HEAD}\n{back}"), "line 2: a reading at 1 s is not after"),
        ] {
            let why = read(text.as_bytes()).err().unwrap();
            assert!(why.starts_with(want), "{why}");
        }
    }

    #[test]
    fn a_real_recording_is_shared_out_to_the_last_joule() {
        let text = real();
        let trace = read(BufReader::new(text.as_bytes())).unwrap();
        let (from_s, to_s) = trace.series[0].span().unwrap();
        assert!(to_s - from_s > 25.0 && trace.series[0].len() > 400, "{from_s} to {to_s}");
        // What the meter itself said at both ends.
        let said: Vec<f64> = text
            .lines()
            .skip(1)
            .flat_map(|line| serde_json::from_str::<Line>(line).unwrap().readings)
            .map(|sample| match sample.readings[0] {
                Reading::Joules(joules) => joules,
                other => panic!("{other:?}"),
            })
            .collect();
        let counted = said.last().unwrap() - said.first().unwrap();
        assert!(counted > 1.0, "{counted}");
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut books = Books::new(vec![Terms { idle_w: Some(0.5), renewed_s: 0.05 }], from_s);
            // Queries begin, go on and end all along the recording, and the books are cut whoever runs.
            let (mut running, mut settled): (Vec<(u64, f64)>, Vec<Settled>) = (Vec::new(), Vec::new());
            let mut now_s = from_s;
            while now_s < to_s {
                match random.u8(0..6) {
                    0 | 1 => running.push((books.began(now_s), now_s)),
                    2 | 3 if !running.is_empty() => {
                        let (id, start_s) = running.swap_remove(random.usize(..running.len()));
                        let tokens = f64::from(random.u16(0..500));
                        let first_s = Some(start_s + random.f64() * (now_s - start_s));
                        let span = Span { start_s, first_s, end_s: now_s, input_tokens: tokens, output_tokens: tokens };
                        books.ended(id, span);
                    }
                    4 => settled.extend(books.cut(&trace.series, now_s - random.f64())),
                    _ => settled.extend(books.settle(&trace.series, now_s)),
                }
                now_s += random.f64();
            }
            running.iter().for_each(|(id, _)| books.forget(*id));
            settled.extend(books.settle(&trace.series, to_s));
            let charged: f64 = settled.iter().map(|one| one.shares[0].gross).sum();
            let balance = books.balance()[0];
            assert!((charged + balance.unattributed - balance.delta).abs() < 1e-6, "{seed}: {charged} {balance:?}");
            assert!((balance.delta - counted).abs() < 1e-6, "{seed}: {balance:?} of {counted}");
        }
    }
}
