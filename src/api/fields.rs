//! What each request field is to us: read, harmless, beyond the embedded engine, or never accepted.
//!
//! Invariant: a field that is not in these lists travels to a cloud backend as it came and keeps the embedded engine
//! from being asked, because nobody here knows what it means.

use crate::fault::{Fault, Kind};

/// Fields that would name a host, a key or a provider: other gateways have been made to send their keys away by them.
/// Compared without regard to case.
const NEVER: [&str; 24] = [
    "api_base",
    "base_url",
    "api_key",
    "api_version",
    "api_type",
    "azure_endpoint",
    "azure_ad_token",
    "custom_llm_provider",
    "deployment_id",
    "endpoint_url",
    "extra_headers",
    "fallbacks",
    "context_window_fallbacks",
    "headers",
    "host",
    "llm_provider",
    "mock_response",
    "mock_delay",
    "mock_timeout",
    "mock_tool_calls",
    "model_list",
    "proxy",
    "proxies",
    "upstream",
];

/// The same, by how they begin.
const NEVER_PREFIX: [&str; 5] = ["mock_testing", "aws_", "vertex_", "litellm_", "watsonx_"];

/// What a known field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Model,
    Stream,
    StreamOptions,
    Messages,
    Prompt,
    MaxTokens,
    MaxCompletionTokens,
    Temperature,
    TopP,
    Stop,
    Seed,
    Count,
    BestOf,
    Logprobs,
    TopLogprobs,
    Penalty,
    Tools,
    ResponseFormat,
    Wattroute,
    /// Changes nothing about the answer.
    Harmless,
    /// Beyond the embedded engine unless the value, without white space, is one of these.
    Default(&'static [&'static str]),
}

/// Known fields; the place in the list is the bit by which duplicates are found, so at most 64.
const KNOWN: [(&str, Field); 42] = [
    ("model", Field::Model),
    ("messages", Field::Messages),
    ("prompt", Field::Prompt),
    ("stream", Field::Stream),
    ("stream_options", Field::StreamOptions),
    ("max_tokens", Field::MaxTokens),
    ("max_completion_tokens", Field::MaxCompletionTokens),
    ("temperature", Field::Temperature),
    ("top_p", Field::TopP),
    ("stop", Field::Stop),
    ("seed", Field::Seed),
    ("n", Field::Count),
    ("best_of", Field::BestOf),
    ("logprobs", Field::Logprobs),
    ("top_logprobs", Field::TopLogprobs),
    ("presence_penalty", Field::Penalty),
    ("frequency_penalty", Field::Penalty),
    ("tools", Field::Tools),
    ("response_format", Field::ResponseFormat),
    ("wattroute", Field::Wattroute),
    ("user", Field::Harmless),
    ("metadata", Field::Harmless),
    ("safety_identifier", Field::Harmless),
    ("prompt_cache_key", Field::Harmless),
    ("prompt_cache_retention", Field::Harmless),
    ("prompt_cache_options", Field::Harmless),
    ("parallel_tool_calls", Field::Harmless),
    ("tool_choice", Field::Default(&["\"none\"", "\"auto\""])),
    ("functions", Field::Default(&["[]"])),
    ("function_call", Field::Default(&["\"none\"", "\"auto\""])),
    ("store", Field::Default(&["false"])),
    ("service_tier", Field::Default(&["\"auto\"", "\"default\""])),
    ("logit_bias", Field::Default(&["{}"])),
    ("modalities", Field::Default(&["[\"text\"]"])),
    ("echo", Field::Default(&["false"])),
    ("suffix", Field::Default(&["\"\""])),
    ("reasoning_effort", Field::Default(&["\"none\""])),
    ("verbosity", Field::Default(&["\"medium\""])),
    ("audio", Field::Default(&[])),
    ("prediction", Field::Default(&[])),
    ("web_search_options", Field::Default(&[])),
    ("moderation", Field::Default(&[])),
];

/// The field of this name and its bit.
pub fn known(key: &str) -> Option<(Field, u64)> {
    let place = KNOWN.iter().position(|(name, _)| *name == key)?;
    KNOWN.get(place).map(|(_, field)| (*field, 1 << place))
}

/// Refuses fields by which a client would choose where a request goes.
pub fn refuse_hosts(key: &str) -> Result<(), Fault> {
    let starts = |prefix: &&str| key.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    if NEVER.iter().any(|name| key.eq_ignore_ascii_case(name)) || NEVER_PREFIX.iter().any(starts) {
        let message =
            "this field is not accepted: hosts, keys and providers come from the gateway's configuration only";
        return Err(Fault::new(Kind::BadRequest, message).param(shown(key)));
    }
    Ok(())
}

/// Whether a value is one that changes nothing.
pub fn is_default(raw: &str, defaults: &[&str]) -> bool {
    let longest = defaults.iter().map(|text| text.len()).max().unwrap_or(0);
    let bare: String = raw.chars().filter(|c| !c.is_ascii_whitespace()).take(longest + 1).collect();
    defaults.contains(&bare.as_str())
}

/// What stands for a field whose name is not repeated.
const UNUSUAL: &str = "a field of unusual name";

/// A field's name as it may stand in an error, a header or the journal: up to 64 letters, digits and underscores.
/// Such a name is part of a program's vocabulary, as `top_k` is, and no secret; a key or a sentence that was put where a
/// name belongs has other characters, and is not repeated anywhere.
pub fn shown(key: &str) -> String {
    let usual = (1..=64).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if usual { key } else { UNUSUAL }.to_owned()
}

/// A number in a range.
pub fn float(name: &str, raw: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, Fault> {
    let read = serde_json::from_str::<f64>(raw).ok().filter(|number| range.contains(number));
    read.ok_or_else(|| bad(name, format!("must be a number from {} to {}", range.start(), range.end())))
}

/// A whole number in a range.
pub fn whole(name: &str, raw: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, Fault> {
    let read = serde_json::from_str::<u32>(raw).ok().filter(|number| range.contains(number));
    let most = if *range.end() == u32::MAX { "up".to_owned() } else { format!("to {}", range.end()) };
    read.ok_or_else(|| bad(name, format!("must be a whole number from {} {most}", range.start())))
}

/// `true` or `false`.
pub fn boolean(name: &str, raw: &str) -> Result<bool, Fault> {
    match raw {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(bad(name, "must be true or false")),
    }
}

/// Any 64-bit integer; negative seeds keep their bits.
pub fn seed(raw: &str) -> Result<u64, Fault> {
    let signed = serde_json::from_str::<i64>(raw).map(i64::cast_unsigned);
    signed.or_else(|_| serde_json::from_str::<u64>(raw)).map_err(|_| bad("seed", "must be a 64-bit integer"))
}

/// One string, or at most four.
pub fn stop(raw: &str) -> Result<Vec<String>, Fault> {
    let list = if raw.starts_with('"') {
        serde_json::from_str::<String>(raw).map(|one| vec![one])
    } else {
        serde_json::from_str::<Vec<String>>(raw)
    };
    list.ok().filter(|list| list.len() <= 4).ok_or_else(|| bad("stop", "must be a string or at most four strings"))
}

/// A field's value is not what it must be.
pub fn bad(name: &str, what: impl std::fmt::Display) -> Fault {
    Fault::new(Kind::BadRequest, format!("`{name}` {what}")).param(name)
}
