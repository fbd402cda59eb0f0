//! The upstream of a backend: where it is, its model, its key. Keys come from a variable or a file, never from the text.

use std::sync::Arc;

use secrecy::SecretString;

use super::address::{base_url, is_private};
use super::backends::refuse;
use super::checked::Endpoint;
use super::env::Around;
use super::problem::Problems;
use super::raw;
use super::resolve::{path_in, variable};
use crate::policy::types::Place;

/// The endpoint, and why the backend is off if it is.
pub fn endpoint(
    raw: &raw::Backend,
    place: Place,
    at: &str,
    around: &Around,
    problems: &mut Problems,
) -> Option<(Endpoint, Option<Arc<str>>)> {
    refuse(
        problems,
        at,
        "openai",
        &[
            ("sha256", raw.sha256.is_some()),
            ("template", raw.template.is_some()),
            ("threads", raw.threads.is_some()),
            ("attention", raw.attention.is_some()),
            ("queue", raw.queue.is_some()),
            ("streams", raw.streams.is_some()),
            ("kv_memory", raw.kv_memory.is_some()),
            ("stall", raw.stall.is_some()),
        ],
    );
    let base = match raw.base_url.as_deref() {
        Some(text) => problems.keep(&format!("{at}.base_url"), base_url(text, place)),
        None => {
            problems.keep(&format!("{at}.base_url"), Err("is missing; e.g. \"https://api.openai.com/v1\"".to_owned()))
        }
    };
    let model = match raw.model.as_deref().map(str::trim) {
        Some(m) if !m.is_empty() && m.len() <= 256 && !m.chars().any(char::is_control) => Some(Arc::from(m)),
        Some(_) => problems.keep(&format!("{at}.model"), Err("must be 1 to 256 printable characters".to_owned())),
        None => problems.keep(&format!("{at}.model"), Err("is missing: the name that the upstream knows".to_owned())),
    };
    let ca = raw.ca.as_deref().map(|p| path_in(around, p, &format!("{at}.ca"), problems));
    let near = base
        .as_ref()
        .and_then(|u| u.host())
        .is_some_and(|h| h == "localhost" || h.trim_matches(['[', ']']).parse().is_ok_and(is_private));
    let (key, off) = upstream_key(raw, place == Place::Local || near, at, around, problems)?;
    let ca = match ca {
        Some(found) => Some(found?),
        None => None,
    };
    Some((Endpoint { base: base?, model: model?, key: key.map(Arc::new), ca }, off))
}

/// The key, or why the backend is off. A missing variable is no problem: the quickstart runs without any.
fn upstream_key(
    raw: &raw::Backend,
    optional: bool,
    at: &str,
    around: &Around,
    problems: &mut Problems,
) -> Option<(Option<SecretString>, Option<Arc<str>>)> {
    match (raw.key_env.as_deref(), raw.key_file.as_deref()) {
        (Some(_), Some(_)) => {
            problems.add(format!("{at}.key_file"), "name key_env or key_file, not both");
            None
        }
        (Some(name), None) => {
            let name = problems.keep(&format!("{at}.key_env"), variable(name))?;
            match (around.var)(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()) {
                Some(value) => {
                    let key = problems.keep(&format!("{at}.key_env"), header_safe(value, name))?;
                    Some((Some(key), None))
                }
                None => Some((None, Some(Arc::from(format!("{name} is not set"))))),
            }
        }
        (None, Some(path)) => {
            let file = path_in(around, path, &format!("{at}.key_file"), problems)?;
            let text = std::fs::read_to_string(&file).map_err(|e| format!("cannot be read: {}", e.kind()));
            let text = problems.keep(&format!("{at}.key_file"), text)?;
            let key = header_safe(text.trim().to_owned(), "the file");
            Some((Some(problems.keep(&format!("{at}.key_file"), key)?), None))
        }
        (None, None) if optional => Some((None, None)),
        (None, None) => {
            problems.add(
                format!("{at}.key_env"),
                "is missing: name the variable that holds the key, e.g. \"OPENAI_API_KEY\", or a key_file",
            );
            None
        }
    }
}

fn header_safe(key: String, holder: &str) -> Result<SecretString, String> {
    if key.is_empty() || !key.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        return Err(format!("{holder} must hold one key of printable ASCII without spaces"));
    }
    Ok(SecretString::from(key))
}
