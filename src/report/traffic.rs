//! What a journal says, as a part of a page: what stayed local, what it took and saved, where and when. Pure.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::journal::stats::{Group, Hour, Stats, Sum};
use crate::picture::axis::{Scale, frame, legend};
use crate::picture::page::{row, section};
use crate::picture::scene::{Anchor, Ink, Scene};
use crate::picture::svg::escaped;
use crate::tables::show::figure;

const WIDTH: f64 = 1060.0;
const LEFT: f64 = 80.0;
/// Columns of a chart over time; beyond, hours are joined.
const SLOTS: usize = 200;
/// Domains drawn; the rest stand in the table.
const DOMAINS: usize = 23;

/// The whole part.
pub fn part(out: &mut String, stats: &Stats, hours: &[Hour]) {
    headline(out, stats);
    figures(out, stats);
    let (slots, wide) = joined(hours);
    let from = slots.first().map_or_else(String::new, |s| format!("hours since {}", moment(s.start_ms)));
    let every = if wide == 1 { "an hour".to_owned() } else { format!("{wide} hours") };
    if let Some(scene) = load(&slots, wide, &from) {
        let lede = format!("Answers by where they came from, each column {every}; times are UTC.");
        section(out, "Queries over time", &lede, &scene);
    }
    match joules(&slots, wide, &from) {
        Some(scene) => {
            let lede = "Middle assumptions. What a local answer saves is the cloud's joules minus its own; below the line it took more.";
            section(out, "Joules over time", lede, &scene);
        }
        None => out.push_str("<p class=\"missing\">No joules over time: no entry knows its joules.</p>"),
    }
    if let Some(scene) = domains(&stats.domains) {
        section(
            out,
            "Queries by domain",
            "As the classifier saw them; the share at the right is what was answered locally.",
            &scene,
        );
    }
    groups(out, "domain", &stats.domains);
    groups(out, "backend", &stats.backends);
    counts(out, stats);
}

fn headline(out: &mut String, s: &Stats) {
    let share = s.local_share.map_or("none".to_owned(), |x| format!("{:.1} %", 100.0 * x));
    let saved = match (s.saved.low, s.saved.mid, s.saved.high) {
        (Some(low), Some(mid), Some(high)) => {
            let word = if mid < 0.0 { "more than everything in the cloud would have taken" } else { "saved" };
            format!("<b>{} {word}</b> ({} to {})", unit(mid.abs()), unit(low), unit(high))
        }
        _ => "saving unknown".to_owned(),
    };
    let used = match (s.joules.low, s.joules.mid, s.joules.high) {
        (Some(low), Some(mid), Some(high)) => format!("{} ({} to {})", unit(mid), unit(low), unit(high)),
        _ => "unknown energy".to_owned(),
    };
    let when = s.first_ms.zip(s.last_ms).map(|(a, b)| format!(" from {} to {}", moment(a), moment(b)));
    let _ = write!(
        out,
        "<p class=\"lede\"><b>{}</b> queries{}, <b>{share}</b> of the answered ones locally. They took {used}, {saved}{}.</p>",
        s.entries,
        escaped(&when.unwrap_or_default()),
        without(&s.saved),
    );
    let wasted = s.wasted_joules.map_or_else(|| "none is known".to_owned(), unit);
    let bases: Vec<String> = s.bases.iter().map(|(basis, n)| format!("{n} {basis}")).collect();
    let _ = write!(
        out,
        "<p>Ranges are from the cheapest to the dearest stated assumption about the cloud, not an interval of chance. Wasted on attempts that \
         were thrown away: {wasted}. Joules by basis: {}.</p>",
        escaped(&if bases.is_empty() { "none known".to_owned() } else { bases.join(", ") }),
    );
}

fn figures(out: &mut String, s: &Stats) {
    let maybe = |x: Option<f64>, of: &dyn Fn(f64) -> String| x.map_or_else(|| "not known".to_owned(), of);
    let rows = [
        ("answered", format!("{} of {}", s.answered, s.entries)),
        ("local, cloud", format!("{}, {}", s.local, s.cloud)),
        ("tokens in, out", format!("{}, {}", s.input_tokens, s.output_tokens)),
        ("US dollars", maybe(s.usd, &figure) + &lacking(s.usd_unknown, "a price")),
        (
            "expected quality against everything in the cloud",
            maybe(s.quality_change, &|x| format!("{:+.2} points", 100.0 * x)),
        ),
        ("feedback", s.score.map_or_else(|| "none".to_owned(), |x| format!("{x:.2} mean of {}", s.scored))),
        ("refused before they were queries", s.refused_early.values().sum::<u64>().to_string()),
    ];
    out.push_str("<div class=\"wide facts\"><table><tbody>");
    for (name, value) in rows {
        row(out, "td", [name.to_owned(), value]);
    }
    out.push_str("</tbody></table></div>");
}

fn counts(out: &mut String, s: &Stats) {
    for (title, map) in
        [("Outcomes", &s.outcomes), ("Faults", &s.faults), ("Refused before they were queries", &s.refused_early)]
    {
        if !map.is_empty() {
            let each: Vec<String> = map.iter().map(|(name, n)| format!("{name} {n}")).collect();
            let _ = write!(out, "<p>{title}: {}.</p>", escaped(&each.join(", ")));
        }
    }
}

fn groups(out: &mut String, what: &str, groups: &[Group]) {
    let _ = write!(out, "<details><summary>By {what}, in figures</summary><div class=\"wide\"><table><thead>");
    row(
        out,
        "th",
        [what, "entries", "local", "cloud", "joules used", "low to high", "joules saved", "low to high", "score (n)"],
    );
    out.push_str("</thead><tbody>");
    for g in groups {
        let mid = |sum: &Sum| sum.mid.map_or_else(|| "-".to_owned(), unit) + &without(sum);
        let ends = |sum: &Sum| match (sum.low, sum.high) {
            (Some(low), Some(high)) => format!("{} to {}", unit(low), unit(high)),
            _ => "-".to_owned(),
        };
        let score = g.score.map_or_else(|| "-".to_owned(), |x| format!("{x:.2} ({})", g.scored));
        let shares = [g.entries, g.local, g.cloud].map(|n| n.to_string());
        let sums = [mid(&g.joules), ends(&g.joules), mid(&g.saved), ends(&g.saved), score];
        row(out, "td", [g.name.clone()].into_iter().chain(shares).chain(sums));
    }
    out.push_str("</tbody></table></div></details>");
}

/// Hours in as many columns as fit, and how many hours a column has. Hours without a query are empty columns.
pub fn joined(hours: &[Hour]) -> (Vec<Hour>, u64) {
    const HOUR_MS: u64 = 3_600_000;
    let (Some(first), Some(last)) = (hours.first(), hours.last()) else { return (Vec::new(), 1) };
    let all = (last.start_ms - first.start_ms) / HOUR_MS + 1;
    let wide = all.div_ceil(SLOTS as u64).max(1);
    let mut out: Vec<Hour> = (0..all.div_ceil(wide))
        .map(|i| Hour { start_ms: first.start_ms + i * wide * HOUR_MS, ..Hour::default() })
        .collect();
    let plus = |a: Option<f64>, b: Option<f64>| a.map_or(b, |a| Some(a + b.unwrap_or(0.0)));
    for hour in hours {
        let at = usize::try_from((hour.start_ms - first.start_ms) / HOUR_MS / wide).unwrap_or(usize::MAX);
        if let Some(slot) = out.get_mut(at) {
            slot.entries += hour.entries;
            slot.local += hour.local;
            slot.cloud += hour.cloud;
            slot.joules_mid = plus(slot.joules_mid, hour.joules_mid);
            slot.saved_mid = plus(slot.saved_mid, hour.saved_mid);
        }
    }
    (out, wide)
}

/// One column of a chart over time, from one value to another.
fn column(scene: &mut Scene, x: &Scale, y: &Scale, (at, wide): (f64, f64), (from, to): (f64, f64), ink: Ink) {
    let (left, right) = (x.px(at), (x.px(at + wide) - 1.0).max(x.px(at) + 0.5));
    let (low, high) = (y.px(from), y.px(to));
    scene.area(vec![(left, low), (left, high), (right, high), (right, low)], ink);
}

fn load(slots: &[Hour], wide: u64, from: &str) -> Option<Scene> {
    let most = slots.iter().map(|s| s.local + s.cloud).max().filter(|n| *n > 0)?;
    let mut scene = Scene::new(WIDTH, 0.0);
    let names = [(0, "local".to_owned()), (1, "cloud".to_owned())];
    let top = 14.0 + legend(&mut scene, &names, (LEFT, 18.0), WIDTH - 120.0);
    scene.height = top + 310.0;
    let x = Scale::linear(0.0, count(slots.len() as u64 * wide), (LEFT, WIDTH - 40.0));
    let y = Scale::linear(0.0, count(most) * 1.1, (top + 250.0, top));
    frame(&mut scene, &x, &y, (from, "answers"));
    for (i, slot) in slots.iter().enumerate() {
        let at = (count(i as u64 * wide), count(wide));
        let (local, all) = (count(slot.local), count(slot.local + slot.cloud));
        column(&mut scene, &x, &y, at, (0.0, local), Ink::Series(0));
        column(&mut scene, &x, &y, at, (local, all), Ink::Series(1));
    }
    Some(scene)
}

fn joules(slots: &[Hour], wide: u64, from: &str) -> Option<Scene> {
    let of = |f: fn(&Hour) -> Option<f64>| slots.iter().filter_map(f);
    let known: Vec<f64> = of(|s| s.joules_mid).chain(of(|s| s.saved_mid)).collect();
    if known.is_empty() {
        return None;
    }
    let (low, high) = known.iter().fold((0.0_f64, 0.0_f64), |(l, h), v| (l.min(*v), h.max(*v)));
    let mut scene = Scene::new(WIDTH, 0.0);
    let names = [(0, "used".to_owned()), (2, "saved".to_owned())];
    let top = 14.0 + legend(&mut scene, &names, (LEFT, 18.0), WIDTH - 120.0);
    scene.height = top + 310.0;
    let x = Scale::linear(0.0, count(slots.len() as u64 * wide), (LEFT, WIDTH - 40.0));
    // Large sums would need more room than the axis has: they are told in the unit of the largest.
    let (by, name) = match high.max(-low) {
        m if m >= 1e6 => (1e6, "MJ"),
        m if m >= 1e3 => (1e3, "kJ"),
        _ => (1.0, "J"),
    };
    let y = Scale::linear(low * 1.1 / by, high * 1.1 / by, (top + 250.0, top));
    frame(&mut scene, &x, &y, (from, name));
    for (i, slot) in slots.iter().enumerate() {
        let (at, half) = (count(i as u64 * wide), count(wide) / 2.0);
        for (place, value, ink) in [(at, slot.joules_mid, Ink::Series(0)), (at + half, slot.saved_mid, Ink::Series(2))]
        {
            if let Some(value) = value {
                column(&mut scene, &x, &y, (place, half), (0.0, value / by), ink);
            }
        }
    }
    scene.line((LEFT, y.px(0.0)), (WIDTH - 40.0, y.px(0.0)), Ink::Axis, 1.6);
    Some(scene)
}

fn domains(groups: &[Group]) -> Option<Scene> {
    let most = groups.iter().map(|g| g.local + g.cloud).max().filter(|n| *n > 0)?;
    let shown: Vec<&Group> = groups.iter().filter(|g| g.local + g.cloud > 0).take(DOMAINS).collect();
    let mut scene = Scene::new(WIDTH, 0.0);
    let names = [(0, "local".to_owned()), (1, "cloud".to_owned())];
    let top = 14.0 + legend(&mut scene, &names, (290.0, 18.0), WIDTH - 380.0);
    let tall = 26.0;
    scene.height = top + tall * count(shown.len() as u64) + 16.0;
    let x = Scale::linear(0.0, count(most), (290.0, WIDTH - 150.0));
    for (i, g) in shown.iter().enumerate() {
        let from = top + tall * count(i as u64);
        let (above, below) = (from + 4.0, from + tall - 4.0);
        let name: String = g.name.chars().take(40).collect();
        scene.text((278.0, from + tall / 2.0 + 4.0), name, Ink::Text, Anchor::End);
        let (local, all) = (count(g.local), count(g.local + g.cloud));
        for (a, b, ink) in [(0.0, local, Ink::Series(0)), (local, all, Ink::Series(1))] {
            let (left, right) = (x.px(a), x.px(b));
            scene.area(vec![(left, above), (right, above), (right, below), (left, below)], ink);
        }
        let share = format!("{} ({:.0} % local)", g.local + g.cloud, 100.0 * local / all);
        scene.sized((x.px(all) + 8.0, from + tall / 2.0 + 4.0), 11.0, share, Ink::Muted, Anchor::Start);
    }
    Some(scene)
}

/// A moment to the minute, UTC.
fn moment(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// Joules with a unit that keeps three figures readable.
pub fn unit(x: f64) -> String {
    match x.abs() {
        a if a >= 1e6 => format!("{:.2} MJ", x / 1e6),
        a if a >= 1e3 => format!("{:.2} kJ", x / 1e3),
        a if a >= 100.0 => format!("{x:.0} J"),
        _ => format!("{x:.2} J"),
    }
}

fn without(sum: &Sum) -> String {
    lacking(sum.unknown, "a figure")
}

fn lacking(n: u64, what: &str) -> String {
    if n == 0 { String::new() } else { format!("; {n} without {what}") }
}

#[expect(clippy::cast_precision_loss, reason = "counts of entries")]
fn count(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_joined_into_columns_and_nothing_is_lost() {
        let hour = |h: u64, n: u64| Hour {
            start_ms: h * 3_600_000,
            entries: n,
            local: n,
            cloud: 1,
            joules_mid: Some(2.0),
            saved_mid: None,
        };
        let hours = [hour(10, 3), hour(11, 4), hour(500, 5)];
        let (slots, wide) = joined(&hours);
        assert_eq!((slots.len(), wide), (164, 3));
        assert_eq!(slots.iter().map(|s| s.entries).sum::<u64>(), 12);
        assert_eq!((slots[0].entries, slots[0].joules_mid, slots[0].saved_mid), (7, Some(4.0), None));
        assert_eq!((slots[163].entries, slots[100].joules_mid), (5, None));
        assert_eq!(joined(&[]), (Vec::new(), 1));
    }

    #[test]
    fn what_is_not_known_is_said_and_names_are_escaped() {
        let mut out = String::new();
        let group = Group { name: "<a>".to_owned(), entries: 2, local: 1, cloud: 1, ..Group::default() };
        let stats = Stats { entries: 2, domains: vec![group], ..Stats::default() };
        part(&mut out, &stats, &[]);
        assert!(out.contains("saving unknown") && out.contains("No joules over time") && out.contains("&lt;a&gt;"));
        assert!(!out.contains("<a>") && out.contains("none is known"));
    }
}
