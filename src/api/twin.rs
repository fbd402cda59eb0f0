//! The events of a stream are mostly one event with another piece of text in it. Such a one is known by its bytes, and is not
//! read as JSON again.
//!
//! Invariant: what it accepts says the same as the event remembered, which brought content, but for the text itself: the
//! bytes around the text are equal, and the text is the inside of a JSON string that needs no unescaping. Pure.

use std::ops::Range;

/// Longer events are read as they come.
const EVENT_BYTES_MAX: usize = 4 * 1024;

/// The last event that brought text, without its text. No `Debug`: it holds part of an answer.
#[derive(Default)]
pub struct Twin {
    /// Up to the text's opening quote, with it.
    before: Vec<u8>,
    /// From the closing quote.
    after: Vec<u8>,
}

impl Twin {
    /// Whether the event is the one remembered with another text, and not an empty one.
    pub fn is_like(&self, event: &[u8]) -> bool {
        let text = event.strip_prefix(&*self.before).and_then(|rest| rest.strip_suffix(&*self.after));
        !self.after.is_empty() && text.is_some_and(is_plain)
    }

    /// Remembers an event by where its text is, without the quotes.
    pub fn remember(&mut self, event: &[u8], text: &Range<usize>) {
        if event.len() > EVENT_BYTES_MAX {
            return;
        }
        let (Some(before), Some(after)) = (event.get(..text.start), event.get(text.end..)) else { return };
        before.clone_into(&mut self.before);
        after.clone_into(&mut self.after);
    }
}

/// The inside of a JSON string without escapes.
fn is_plain(text: &[u8]) -> bool {
    let odd = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    !text.is_empty()
        && !text.iter().fold(false, |so_far, byte| so_far | odd(*byte))
        && std::str::from_utf8(text).is_ok()
}
