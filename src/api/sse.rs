//! Watches a stream of server-sent events as it passes: usage, finish, error, `[DONE]`, content.
//!
//! Invariant: what comes out is what went in, byte for byte and in order, except that a usage event nobody asked for is
//! taken out whole. An event is let through when it is complete (a client can do nothing with half of one), comments
//! at once; so a stream that is cut never leaves half an event in front of the error that follows. Any split of the
//! input gives the same result. Pure: no clock, no socket.

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

use super::event::{self, Found};
use super::twin::Twin;

/// An incomplete event larger than this is no longer held back; no usage event is as large.
const HOLD_BYTES: usize = 64 * 1024;
/// No event may be larger: ours to hold, so ours to bound.
pub const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// What a stream has shown so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Prompt and generated tokens, as the upstream counts them.
    pub usage: Option<(u32, u32)>,
    /// `finish_reason` of the first choice that has one.
    pub finish: Option<String>,
    /// Model that the upstream says answers.
    pub model: Option<String>,
    /// llama.cpp's own timings.
    pub timings: Option<Timings>,
    /// An error object, or an event named `error`.
    pub error: bool,
    /// `[DONE]`.
    pub done: bool,
    /// Events with data.
    pub events: u64,
    /// Events with generated content: a lower bound on tokens when no usage comes.
    pub deltas: u32,
}

/// What llama.cpp measures of its own work.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default)]
pub struct Timings {
    /// Milliseconds of prompt processing.
    pub prompt_ms: Option<f64>,
    /// Prompt tokens processed, without cached ones.
    pub prompt_n: Option<f64>,
    /// Milliseconds of decode.
    pub predicted_ms: Option<f64>,
    /// Generated tokens.
    pub predicted_n: Option<f64>,
}

/// The stream holds an event above [`MAX_EVENT_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// Observer of one stream. No `Debug`: it holds text of the answer.
#[derive(Default)]
pub struct Observer {
    hide_usage: bool,
    seen: Seen,
    /// The event that is not complete yet.
    pending: BytesMut,
    lines: Lines,
    twin: Twin,
    /// How much of `pending` went out already.
    sent: usize,
}

impl Observer {
    /// With `hide_usage` the usage event (empty `choices`) is taken out of the stream.
    pub fn new(hide_usage: bool) -> Self {
        Self { hide_usage, ..Self::default() }
    }

    /// What was seen up to the last complete event.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Whether part of an unfinished event has gone out, so that a next event needs a blank line first.
    pub fn mid_event(&self) -> bool {
        self.sent > self.lines.comments
    }

    /// Whether bytes that are not a comment wait for the rest of their event.
    pub fn in_data(&self) -> bool {
        self.pending.first().is_some_and(|first| *first != b':')
    }

    /// Takes the next bytes and gives those that may go to the client now; empty when an event is incomplete.
    pub fn feed(&mut self, chunk: Bytes) -> Result<Bytes, TooLarge> {
        if self.pending.is_empty() {
            return self.feed_whole(chunk);
        }
        self.pending.extend_from_slice(&chunk);
        let mut out = BytesMut::new();
        while let Some(bounds) = self.lines.next_event(&self.pending) {
            let event = self.pending.split_to(bounds.end);
            let sent = std::mem::take(&mut self.sent);
            let until = self.shown(&event, bounds)?;
            out.extend_from_slice(event.get(sent..until).unwrap_or_default());
        }
        self.let_through(&mut out)?;
        Ok(out.freeze())
    }

    /// The common case: nothing is pending, and most chunks are whole events that pass without a copy.
    fn feed_whole(&mut self, chunk: Bytes) -> Result<Bytes, TooLarge> {
        let mut from = 0;
        // What goes out, once it is not simply the chunk's beginning.
        let mut copy: Option<BytesMut> = None;
        while let Some(bounds) = self.lines.next_event(chunk.get(from..).unwrap_or_default()) {
            let event = chunk.get(from..from + bounds.end).unwrap_or_default();
            let until = self.shown(event, bounds)?;
            if until < event.len() && copy.is_none() {
                copy = Some(BytesMut::from(chunk.get(..from).unwrap_or_default()));
            }
            if let Some(copy) = &mut copy {
                copy.extend_from_slice(event.get(..until).unwrap_or_default());
            }
            from += bounds.end;
        }
        if from == chunk.len() {
            return Ok(copy.map_or(chunk, BytesMut::freeze));
        }
        self.pending.extend_from_slice(chunk.get(from..).unwrap_or_default());
        let mut more = BytesMut::new();
        self.let_through(&mut more)?;
        if more.is_empty() && copy.is_none() {
            return Ok(chunk.slice(..from));
        }
        let mut out = copy.unwrap_or_else(|| BytesMut::from(chunk.get(..from).unwrap_or_default()));
        out.extend_from_slice(&more);
        Ok(out.freeze())
    }

    /// How much of a complete event the client gets: all, or of a hidden one the comments before it.
    fn shown(&mut self, event: &[u8], bounds: Bounds) -> Result<usize, TooLarge> {
        if event.len() > MAX_EVENT_BYTES {
            return Err(TooLarge);
        }
        if self.twin.is_like(event) {
            self.seen.events += 1;
            self.seen.deltas = self.seen.deltas.saturating_add(1);
            return Ok(event.len());
        }
        let found = event::interpret(event, &mut self.seen);
        if let Found::Text(text) = &found {
            self.twin.remember(event, text);
        }
        let hidden = found == Found::Usage && self.hide_usage && event.len() <= HOLD_BYTES;
        Ok(if hidden { bounds.comments } else { event.len() })
    }

    /// Lets out of an incomplete event what need not wait: whole comment lines, or all of a large one.
    fn let_through(&mut self, out: &mut BytesMut) -> Result<(), TooLarge> {
        if self.pending.len() > MAX_EVENT_BYTES {
            return Err(TooLarge);
        }
        let large = self.pending.len() > HOLD_BYTES;
        let ready = if large { self.pending.len() } else { self.lines.comments };
        if ready > self.sent {
            out.extend_from_slice(self.pending.get(self.sent..ready).unwrap_or_default());
            self.sent = ready;
        }
        Ok(())
    }
}

/// Where an event ends, and where the comment lines at its beginning do.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// After its blank line.
    pub end: usize,
    comments: usize,
}

/// Finds where events end: after a blank line, with LF, CRLF or CR, never looking at a byte twice.
#[derive(Debug, Default)]
pub struct Lines {
    /// Start of the line that is being read.
    start: usize,
    /// No line ends before this.
    searched: usize,
    /// The event's first bytes up to here are comment lines.
    comments: usize,
}

impl Lines {
    /// Bounds of the first event of `bytes`, once it is complete; then starts over for what follows it.
    pub fn next_event(&mut self, bytes: &[u8]) -> Option<Bounds> {
        loop {
            let rest = bytes.get(self.searched..).unwrap_or_default();
            let Some(found) = memchr2(b'\n', b'\r', rest) else {
                self.searched = bytes.len();
                return None;
            };
            let end = self.searched + found;
            let next = match (bytes.get(end), bytes.get(end + 1)) {
                (Some(b'\r'), Some(b'\n')) => end + 2,
                // Whether this CR stands alone is known with the next byte.
                (Some(b'\r'), None) => {
                    self.searched = end;
                    return None;
                }
                _ => end + 1,
            };
            if end == self.start {
                let comments = std::mem::take(self).comments;
                return Some(Bounds { end: next, comments });
            }
            if self.comments == self.start && bytes.get(self.start) == Some(&b':') {
                self.comments = next;
            }
            self.start = next;
            self.searched = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USAGE: &str =
        "data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\n";

    fn run(stream: &[u8], cuts: &[usize], hide: bool) -> (Vec<u8>, Seen) {
        let mut observer = Observer::new(hide);
        let (mut out, mut from) = (Vec::new(), 0);
        for cut in cuts.iter().copied().chain([stream.len()]) {
            let cut = cut.clamp(from, stream.len());
            out.extend_from_slice(&observer.feed(Bytes::copy_from_slice(&stream[from..cut])).unwrap());
            from = cut;
        }
        (out, observer.seen().clone())
    }

    fn sample() -> String {
        [
            ": keep-alive\n\n",
            "data: {\"model\":\"m\u{e9}\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n",
            "data:{\"choices\":[{\"delta\":{\"content\":\"h\u{1f600}\"}}]}\r\n\r\n",
            "event: message\nid: 1\ndata: {\"choices\":[{\"delta\":\ndata: {\"reasoning_content\":\"\\\"usage\\\": 1\"}}]}\n\n",
            "\n: ping\ndata: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"timings\":{\"prompt_n\":4,\"predicted_ms\":1.5}}\n\n",
            USAGE,
            "data: [DONE]\n\n",
        ]
        .concat()
    }

    #[test]
    fn sees_everything_and_changes_nothing() {
        let stream = sample();
        let (out, seen) = run(stream.as_bytes(), &[], false);
        assert_eq!(String::from_utf8(out).unwrap(), stream);
        assert_eq!(seen.usage, Some((7, 3)));
        assert_eq!((seen.finish.as_deref(), seen.model.as_deref()), (Some("stop"), Some("m\u{e9}")));
        assert_eq!((seen.deltas, seen.events, seen.done, seen.error), (3, 7, true, false));
        assert_eq!(seen.timings.unwrap().prompt_n, Some(4.0));
    }

    #[test]
    fn takes_out_the_usage_event_and_nothing_else() {
        let stream = sample();
        let (out, seen) = run(stream.as_bytes(), &[], true);
        assert_eq!(String::from_utf8(out).unwrap(), stream.replace(USAGE, ""));
        assert_eq!(seen.usage, Some((7, 3)));
    }

    #[test]
    fn usage_beside_choices_stays() {
        let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";
        let (out, seen) = run(stream.as_bytes(), &[], true);
        assert_eq!((out.as_slice(), seen.usage), (stream.as_bytes(), Some((1, 2))));
    }

    #[test]
    fn every_single_split_gives_the_same() {
        let stream = sample();
        for hide in [false, true] {
            let whole = run(stream.as_bytes(), &[], hide);
            for cut in 0..stream.len() {
                assert_eq!(run(stream.as_bytes(), &[cut], hide), whole, "cut at {cut}");
            }
            let bytewise: Vec<usize> = (0..stream.len()).collect();
            assert_eq!(run(stream.as_bytes(), &bytewise, hide), whole);
        }
    }

    #[test]
    fn half_an_event_is_held_and_a_comment_is_not() {
        let mut observer = Observer::new(false);
        let mut feed = |text: &'static str| observer.feed(Bytes::from_static(text.as_bytes())).unwrap();
        assert_eq!(feed(": ping\n"), ": ping\n");
        assert_eq!(feed("data: {\"a\":"), "");
        assert_eq!(feed("1}\n"), "");
        assert_eq!(feed("\ndata: [DO"), "data: {\"a\":1}\n\n");
        assert!(!observer.seen().done && observer.in_data() && !observer.mid_event());
    }

    #[test]
    fn a_mebibyte_event_passes_in_parts_and_is_still_read() {
        let long = format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}},\"finish_reason\":\"stop\"}}]}}\n\n",
            "x".repeat(1 << 20)
        );
        let mut observer = Observer::new(true);
        let (head, tail) = long.split_at(HOLD_BYTES + 1);
        assert_eq!(observer.feed(Bytes::copy_from_slice(head.as_bytes())).unwrap().len(), head.len());
        assert!(observer.mid_event());
        assert_eq!(observer.feed(Bytes::copy_from_slice(tail.as_bytes())).unwrap(), tail);
        assert_eq!((observer.seen().deltas, observer.seen().finish.as_deref()), (1, Some("stop")));
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut observer = Observer::new(false);
        let mut fed = 0;
        while observer.feed(Bytes::from(vec![b'x'; 1 << 16])).is_ok() {
            fed += 1 << 16;
            assert!(fed <= MAX_EVENT_BYTES);
        }
    }

    #[test]
    fn events_that_differ_in_their_text_are_read_alike() {
        let event = |rest: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{rest}\n\n");
        let plain = |text: &str| event(&format!("\"{text}\"}},\"finish_reason\":null}}],\"usage\":null}}"));
        let tails = [
            "\"\"},\"finish_reason\":null}],\"usage\":null}",
            "\"a\"},\"finish_reason\":\"length\"}],\"usage\":null}",
            "\"b\"},\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":5}}",
            "\"c\"},\"finish_reason\":null}],\"error\":{}}",
            "\"d\",\"tool_calls\":[1]},\"finish_reason\":null}],\"model\":\"m\"}",
            "null},\"finish_reason\":null}],\"usage\":null}",
            "\"e\"},\"finish_reason\":null}],\"usage\":nul}",
        ];
        for text in
            ["x", " token", "\u{e9}\u{1f600}", "\\n", "\\\"", "a\\u0041", "\\", "\u{1}", "\"", "\"},\"x\":{\"y\":\""]
        {
            for tail in tails.map(event) {
                for first in [plain("h"), plain(text), tail.clone()] {
                    let events = [first, plain(text), tail.clone(), plain("i"), plain(text), tail.clone()];
                    let mut together = Observer::new(false);
                    let mut sum = Seen::default();
                    for event in &events {
                        together.feed(Bytes::from(event.clone())).unwrap();
                        event::interpret(event.as_bytes(), &mut sum);
                    }
                    assert_eq!(together.seen(), &sum, "{events:?}");
                }
            }
        }
    }

    #[test]
    fn errors_are_seen_in_both_shapes() {
        for stream in ["data: {\"error\":{\"message\":\"x\"}}\n\n", "event: error\ndata: {\"message\":\"x\"}\n\n"] {
            let (out, seen) = run(stream.as_bytes(), &[], true);
            assert!(seen.error && out == stream.as_bytes());
        }
        assert!(!run(b"data: {\"choices\":[],\"error\":null}\n\n", &[], false).1.error);
    }

    proptest! {
        #[test]
        fn any_split_of_any_bytes_gives_the_same(
            pieces in proptest::collection::vec(
                prop_oneof![Just("\n"), Just("\r"), Just("\r\n"), Just(": c"), Just("data: "), Just("data"), Just("{\"choices\":[]"),
                    Just(",\"usage\":{\"prompt_tokens\":1}}"), Just("[DONE]"), Just("\u{e9}"), Just("\n\n")], 0..40),
            cuts in proptest::collection::vec(0_usize..200, 0..12), hide in any::<bool>(),
        ) {
            // A blank line at the end completes what is open; without it the rest is held on purpose.
            let stream = format!("{}\n\n\n", pieces.concat());
            let mut cuts = cuts;
            cuts.sort_unstable();
            let whole = run(stream.as_bytes(), &[], hide);
            prop_assert_eq!(&run(stream.as_bytes(), &cuts, hide), &whole);
            if !hide {
                prop_assert_eq!(whole.0, stream.into_bytes());
            }
        }
    }
}
