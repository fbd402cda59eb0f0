//! One complete server-sent event: what it says about the answer.
//!
//! Lenient on purpose: what cannot be read is not counted, and passes all the same.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::sse::{Seen, Timings};

/// Events above this are looked at for their keys only when one of them is there.
const SMALL_BYTES: usize = 16 * 1024;

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"finish_reason\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));

/// What kind of event it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Usage and no choices: the event that `include_usage` adds.
    Usage,
    /// One choice that brings text, which is here in the event, without its quotes.
    Text(Range<usize>),
    /// Anything else.
    Other,
}

/// Reads an event with its line ends, and notes what it says.
pub fn interpret(event: &[u8], seen: &mut Seen) -> Found {
    let (data, name) = parts(event);
    let Some(data) = data else { return Found::Other };
    seen.events += 1;
    seen.error |= name == Some(b"error".as_slice());
    if data.trim_ascii() == b"[DONE]" {
        seen.done = true;
        return Found::Other;
    }
    if data.len() > SMALL_BYTES && ![&USAGE, &FINISH, &ERROR].iter().any(|key| key.find(&data).is_some()) {
        seen.deltas = seen.deltas.saturating_add(1);
        return Found::Other;
    }
    match serde_json::from_slice::<Chunk<'_>>(&data) {
        Ok(chunk) => chunk.note(event, seen),
        Err(_) => Found::Other,
    }
}

/// The event's data (lines joined by LF) and its name.
pub fn parts(event: &[u8]) -> (Option<Cow<'_, [u8]>>, Option<&[u8]>) {
    let event = event.strip_prefix(b"\xef\xbb\xbf").unwrap_or(event);
    let (mut data, mut name): (Option<Cow<'_, [u8]>>, Option<&[u8]>) = (None, None);
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if let Some(value) = field(line, b"data") {
            match &mut data {
                None => data = Some(Cow::Borrowed(value)),
                Some(joined) => {
                    let joined = joined.to_mut();
                    joined.push(b'\n');
                    joined.extend_from_slice(value);
                }
            }
        } else if let Some(value) = field(line, b"event") {
            name = Some(value);
        }
    }
    (data, name)
}

/// The value of a line `name: value`; one space after the colon is not part of it.
fn field<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let rest = line.strip_prefix(name)?;
    if rest.is_empty() {
        return Some(rest);
    }
    let value = rest.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timings: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow, default)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow, default)]
    audio: Option<&'a RawValue>,
}

/// Token counts as upstreams write them.
#[derive(Deserialize)]
pub struct Counts {
    #[serde(default)]
    prompt_tokens: u32,
    #[serde(default)]
    completion_tokens: u32,
}

impl Counts {
    /// Prompt and generated tokens of a raw `usage` object.
    pub fn read(raw: &RawValue) -> Option<(u32, u32)> {
        let counts: Self = serde_json::from_str(raw.get()).ok()?;
        Some((counts.prompt_tokens, counts.completion_tokens))
    }
}

impl Chunk<'_> {
    fn note(self, event: &[u8], seen: &mut Seen) -> Found {
        seen.error |= self.error.is_some();
        if seen.model.is_none() {
            seen.model = self.model.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        }
        let choices = self.choices.unwrap_or_default();
        if choices.iter().any(Choice::has_content) {
            seen.deltas = seen.deltas.saturating_add(1);
        }
        if seen.finish.is_none() {
            seen.finish = choices.iter().find_map(|choice| choice.finish_reason.as_deref().map(str::to_owned));
        }
        if let Some(timings) = self.timings {
            seen.timings = serde_json::from_str::<Timings>(timings.get()).ok();
        }
        let usage = self.usage.and_then(Counts::read);
        seen.usage = usage.or(seen.usage);
        match &*choices {
            [] if usage.is_some() && self.error.is_none() => Found::Usage,
            [only] => only.text().and_then(|raw| inside(event, raw)).map_or(Found::Other, Found::Text),
            _ => Found::Other,
        }
    }
}

impl Choice<'_> {
    fn has_content(&self) -> bool {
        let delta = self.delta.as_ref().is_some_and(Delta::has_content);
        delta || self.text.is_some_and(says_something)
    }
}

impl Choice<'_> {
    /// Generated text, if it is a string that says something.
    fn text(&self) -> Option<&RawValue> {
        let text = self.delta.as_ref().and_then(|delta| delta.content).or(self.text)?;
        (says_something(text) && text.get().starts_with('"')).then_some(text)
    }
}

/// Where in the event a string's inside is; none if the event's lines had to be joined before it was read.
fn inside(event: &[u8], string: &RawValue) -> Option<Range<usize>> {
    let start = (string.get().as_ptr() as usize).checked_sub(event.as_ptr() as usize)?;
    let end = start.checked_add(string.get().len())?;
    (event.get(start..end)? == string.get().as_bytes()).then_some(start + 1..end - 1)
}

impl Delta<'_> {
    fn has_content(&self) -> bool {
        let parts = [
            self.content,
            self.reasoning_content,
            self.reasoning,
            self.refusal,
            self.tool_calls,
            self.function_call,
            self.audio,
        ];
        parts.into_iter().flatten().any(says_something)
    }
}

fn says_something(raw: &RawValue) -> bool {
    !matches!(raw.get(), "\"\"" | "[]" | "{}" | "null")
}
