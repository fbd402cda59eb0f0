//! Secrets that may show up nowhere but where they belong. Every test uses them, every test's end looks for them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// What clients prove themselves with.
pub const CLIENT_KEY: &str = "wr-canary-client-5f0a91c7d2e84b36";
/// The key of another client.
pub const OTHER_KEY: &str = "wr-canary-others-2b94d07ce8f1a356";
/// The key of a client whose queries never leave the machine.
pub const PRIVATE_KEY: &str = "wr-canary-private-c3d8e1f60b7a4925";
/// What the gateway proves itself to upstreams with.
pub const CLOUD_KEY: &str = "sk-canary-cloud-93be17aa60cf4d52";
/// A prompt; only the chosen upstream may see it.
pub const PROMPT: &str = "canaryprompt what is the boiling point of zirconium at sea level";
/// An answer; only the client may see it.
pub const ANSWER: &str = "canaryanswer four thousand degrees";

/// What is looked for: a part of each, so that escaping or cutting does not hide it.
const MARKS: [&str; 6] = [
    "canary-client-5f0a91c7",
    "canary-others-2b94d07c",
    "canary-private-c3d8e1f6",
    "canary-cloud-93be17aa",
    "canaryprompt",
    "canaryanswer",
];

static LINES: AtomicU64 = AtomicU64::new(0);
static HITS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Where a mark stands in some bytes.
pub fn find(bytes: &[u8]) -> Option<&'static str> {
    MARKS.into_iter().find(|mark| memchr::memmem::find(bytes, mark.as_bytes()).is_some())
}

/// Fails if a mark stands in some bytes.
#[track_caller]
pub fn absent(place: &str, bytes: &[u8]) {
    if let Some(mark) = find(bytes) {
        panic!("{mark} in {place}");
    }
}

/// Captures everything that this process logs, down to trace level, once per process.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let all = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(Ear);
        all.init();
    });
}

/// Fails if anything that this process has logged so far holds a mark, or if nothing was listened to.
#[track_caller]
pub fn silent() {
    let hits = HITS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(hits.is_empty(), "canaries in the log: {hits:#?}");
    assert!(LINES.load(Ordering::Relaxed) > 0, "no log line was captured: the check is blind");
}

/// Reads each line as it is written, so that a long log costs no memory.
struct Ear;

impl io::Write for Ear {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.fetch_add(1, Ordering::Relaxed);
        if find(line).is_some() {
            HITS.lock().unwrap_or_else(PoisonError::into_inner).push(String::from_utf8_lossy(line).into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Ear {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}
