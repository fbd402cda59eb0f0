//! `[backends.NAME]` to a checked [`Backend`].

use std::sync::Arc;
use std::time::Duration;

use super::attention;
use super::checked::{Backend, Embedded, Kind, Price, Waits};
use super::energy;
use super::env::Around;
use super::problem::{Problems, shown};
use super::raw;
use super::resolve::{path_in, span, whole};
use super::units::size_within;
use super::upstream::endpoint;
use crate::policy::types::{Capabilities, Place};

/// Context assumed for a cloud model that does not say; the smallest of today's large providers.
const CLOUD_CONTEXT: u32 = 128_000;
/// Context assumed for a local server that does not say: what most start with unless told otherwise.
const LOCAL_CONTEXT: u32 = 8_192;
/// Largest context that a file may claim, in tokens.
const CONTEXT_MAX: i64 = 16_000_000;

/// One backend; `at` is its key path.
pub fn backend(name: &str, raw: &raw::Backend, at: &str, around: &Around, problems: &mut Problems) -> Option<Backend> {
    let named = problems.keep(at, check_name(name));
    let place = problems.keep(&format!("{at}.place"), place(raw.place.as_deref()));
    let kind_word = problems.keep(&format!("{at}.kind"), kind_word(raw.kind.as_deref()));
    let price = price(&raw.price, at, problems);
    let energy = energy::of_backend(&raw.energy, place, at, problems);
    let waits = waits(&raw.waits, place, at, problems);
    let max_in_flight = whole(raw.max_in_flight, 64, 1, 100_000, &format!("{at}.max_in_flight"), problems);
    let table = raw.table.as_deref().map(|t| table(t, &format!("{at}.table"), around, problems));
    let success = raw.success.as_deref().map(|s| path_in(around, s, &format!("{at}.success"), problems));
    let (place, kind_word) = (place?, kind_word?);
    let caps = caps(raw, place, kind_word, at, problems);
    let (kind, off) = match kind_word {
        "embedded" => (Kind::Embedded(embedded(raw, place, at, around, problems)?), None),
        _ => {
            let (endpoint, off) = endpoint(raw, place, at, around, problems)?;
            (Kind::OpenAi(endpoint), off)
        }
    };
    named?;
    Some(Backend {
        name: Arc::from(format!("{}/{name}", place.name())),
        place,
        kind,
        caps: caps?,
        price: price?,
        table: table.flatten(),
        success: success.flatten(),
        energy: energy?,
        region: raw.energy.region.clone(),
        waits: waits?,
        max_in_flight: max_in_flight?,
        off,
    })
}

/// The part of a name after the slash.
pub fn check_name(name: &str) -> Result<(), String> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if name.contains('/') {
        return Err("a backend's name has no slash: place = \"local\" or \"cloud\" makes it local/NAME or cloud/NAME"
            .to_owned());
    }
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !first || name.len() > 64 || !name.bytes().all(fine) {
        return Err("a name is 1 to 64 of a-z, 0-9, `.`, `_`, `-` and starts with a letter or digit".to_owned());
    }
    if name == "auto" {
        return Err("`auto` is the name that lets the policy decide: choose another".to_owned());
    }
    Ok(())
}

fn place(text: Option<&str>) -> Result<Place, String> {
    match text {
        Some("local") => Ok(Place::Local),
        Some("cloud") => Ok(Place::Cloud),
        Some(other) => Err(format!("must be \"local\" or \"cloud\" (got {})", shown(other))),
        None => Err("is missing: say place = \"local\" or \"cloud\"".to_owned()),
    }
}

fn kind_word(text: Option<&str>) -> Result<&'static str, String> {
    match text {
        Some("openai") | None => Ok("openai"),
        Some("embedded") => Ok("embedded"),
        Some("anthropic") => {
            Err("\"anthropic\" is not supported yet: use an endpoint that speaks OpenAI's format".to_owned())
        }
        Some(other) => Err(format!("must be \"openai\" or \"embedded\" (got {})", shown(other))),
    }
}

fn embedded(raw: &raw::Backend, place: Place, at: &str, around: &Around, problems: &mut Problems) -> Option<Embedded> {
    if place == Place::Cloud {
        problems.add(format!("{at}.place"), "must be \"local\": an embedded model runs in this process");
    }
    refuse(
        problems,
        at,
        "embedded",
        &[
            ("base_url", raw.base_url.is_some()),
            ("key_env", raw.key_env.is_some()),
            ("key_file", raw.key_file.is_some()),
            ("ca", raw.ca.is_some()),
        ],
    );
    let sha256 = match raw.sha256.as_deref() {
        Some(h) => Some(problems.keep(&format!("{at}.sha256"), hex_of(h, 64))?),
        None => None,
    };
    let model = match raw.model.as_deref() {
        Some(m) => problems.keep(&format!("{at}.model"), model_source(m, sha256.is_some(), around)),
        None => problems.keep(
            &format!("{at}.model"),
            Err("is missing: a model of `wattroute models list`, a GGUF file, or hf:OWNER/REPO/FILE".to_owned()),
        ),
    };
    let context = whole(raw.context, 2048, 64, 1_000_000, &format!("{at}.context"), problems);
    let threads = whole(raw.threads, 0, 0, 1024, &format!("{at}.threads"), problems);
    let attention = attention::check(raw.attention.as_ref(), &format!("{at}.attention"), problems);
    let queue = whole(raw.queue, 32, 1, 100_000, &format!("{at}.queue"), problems);
    let streams = whole(raw.streams, 8, 1, 256, &format!("{at}.streams"), problems);
    let kv_memory = match raw.kv_memory.as_deref() {
        Some(text) => Some(problems.keep(&format!("{at}.kv_memory"), size_within(text, 1 << 20, 1 << 44))?),
        None => None,
    };
    let stall_at = format!("{at}.stall");
    let stall = span(raw.stall.as_deref(), Duration::from_millis(100), (10, 10_000), &stall_at, problems);
    Some(Embedded {
        model: model?,
        sha256,
        template: raw.template.clone(),
        context: context?,
        threads: threads?,
        attention: attention?,
        queue: queue?,
        streams: streams?,
        kv_memory,
        stall: stall?,
    })
}

fn model_source(text: &str, pinned: bool, around: &Around) -> Result<String, String> {
    if let Some(hub) = text.strip_prefix("hf:") {
        if hub.split('/').filter(|p| !p.is_empty()).count() < 3 || hub.contains("..") {
            return Err("must be hf:OWNER/REPO/FILE".to_owned());
        }
        if !pinned {
            return Err("a model of the hub is pinned: add its sha256 beside it".to_owned());
        }
        return Ok(text.to_owned());
    }
    if text.contains('/') || text.ends_with(".gguf") {
        return Ok(around.base.join(text).display().to_string());
    }
    match text.trim() {
        "" => Err("must not be empty".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// Hex digits in lower case.
pub fn hex_of(text: &str, digits: usize) -> Result<String, String> {
    if text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(text.to_lowercase());
    }
    Err(format!("must be {digits} hex digits"))
}

/// Keys that another kind of backend has.
pub fn refuse(problems: &mut Problems, at: &str, kind: &str, keys: &[(&str, bool)]) {
    for (key, present) in keys {
        if *present {
            problems.add(format!("{at}.{key}"), format!("has no meaning for kind = \"{kind}\": remove it"));
        }
    }
}

fn caps(raw: &raw::Backend, place: Place, kind: &str, at: &str, problems: &mut Problems) -> Option<Capabilities> {
    let inside = kind == "embedded";
    if inside {
        let asked = [
            ("tools", raw.tools),
            ("images", raw.images),
            ("audio", raw.audio),
            ("json", raw.json),
            ("many", raw.many),
        ];
        for (key, value) in asked {
            if value == Some(true) {
                problems.add(format!("{at}.{key}"), "the embedded engine cannot do this: remove it or set it to false");
            }
        }
    }
    let default = match (inside, place) {
        (true, _) => 2048,
        (_, Place::Cloud) => CLOUD_CONTEXT,
        (_, Place::Local) => LOCAL_CONTEXT,
    };
    let context = whole(raw.context, i64::from(default), 64, CONTEXT_MAX, &format!("{at}.context"), problems);
    Some(Capabilities {
        context: context?,
        tools: !inside && raw.tools.unwrap_or(true),
        images: !inside && raw.images.unwrap_or(place == Place::Cloud),
        audio: !inside && raw.audio.unwrap_or(false),
        json: !inside && raw.json.unwrap_or(true),
        many: !inside && raw.many.unwrap_or(true),
        logprobs: raw.logprobs.unwrap_or(true),
        any_field: !inside,
    })
}

/// Outer none: a problem. Inner none: no price given.
fn price(raw: &raw::Price, at: &str, problems: &mut Problems) -> Option<Option<Price>> {
    let mut one = |name: &str, value: f64| {
        let fine = value.is_finite() && (0.0..=100_000.0).contains(&value);
        let text = || "must be US dollars per million tokens, 0 or more".to_owned();
        problems.keep(&format!("{at}.price.{name}"), if fine { Ok(value) } else { Err(text()) })
    };
    match (raw.input, raw.output) {
        (None, None) => Some(None),
        (Some(i), Some(o)) => match (one("input", i), one("output", o)) {
            (Some(input), Some(output)) => Some(Some(Price { input, output })),
            _ => None,
        },
        (input, _) => {
            let missing = if input.is_some() { "output" } else { "input" };
            problems.add(format!("{at}.price.{missing}"), "is missing: a price has input and output");
            None
        }
    }
}

fn waits(raw: &raw::Waits, place: Option<Place>, at: &str, problems: &mut Problems) -> Option<Waits> {
    // A local model may have to load first and reads a long prompt slowly; OpenAI's clients give up after 600 s.
    let first = if place == Some(Place::Local) { 120 } else { 60 };
    let mut one = |name: &str, text: &Option<String>, default: u64, high: u64| {
        span(text.as_deref(), Duration::from_secs(default), (1, high * 1000), &format!("{at}.waits.{name}"), problems)
    };
    let connect = one("connect", &raw.connect, 5, 60);
    let first_token = one("first_token", &raw.first_token, first, 3600);
    let gap = one("gap", &raw.gap, 30, 3600);
    let total = one("total", &raw.total, 600, 86_400);
    Some(Waits { connect: connect?, first_token: first_token?, gap: gap?, total: total? })
}

fn table(text: &str, at: &str, around: &Around, problems: &mut Problems) -> Option<std::path::PathBuf> {
    if text.contains('/') || text.ends_with(".json") { path_in(around, text, at, problems) } else { Some(text.into()) }
}
