//! How a fetch shows itself: a bar on a terminal, a line now and then in a log, or nothing.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

/// Where progress goes.
pub enum Progress {
    /// Nowhere.
    Silent,
    /// A bar on standard error.
    Bar(ProgressBar),
    /// A line on standard error every tenth of the way.
    Lines(Lines),
}

/// State of [`Progress::Lines`].
#[derive(Default)]
pub struct Lines {
    total: AtomicU64,
    tenth: AtomicU64,
}

const TEMPLATE: &str = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";

impl Progress {
    /// A bar when standard error is a terminal, else lines.
    pub fn stderr() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines(Lines::default());
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self::Bar(bar)
    }

    /// A new stretch of work with its size in bytes, if known.
    pub fn start(&self, what: &str, total: Option<u64>) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => {
                bar.reset();
                bar.set_message(what.to_owned());
                bar.set_length(total.unwrap_or(0));
            }
            Self::Lines(lines) => {
                lines.total.store(total.unwrap_or(0), Ordering::Relaxed);
                lines.tenth.store(0, Ordering::Relaxed);
                match total {
                    Some(total) => eprintln!("{what} ({} MB)", total / 1_000_000),
                    None => eprintln!("{what}"),
                }
            }
        }
    }

    /// Bytes done so far in this stretch.
    pub fn at(&self, bytes: u64) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => bar.set_position(bytes),
            Self::Lines(lines) => {
                let total = lines.total.load(Ordering::Relaxed);
                let tenth = bytes.saturating_mul(10).checked_div(total).unwrap_or(0).min(10);
                if tenth > lines.tenth.fetch_max(tenth, Ordering::Relaxed) {
                    eprintln!("  {}0 % ({} MB)", tenth, bytes / 1_000_000);
                }
            }
        }
    }

    /// Something to tell besides.
    pub fn note(&self, text: &str) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => bar.println(text),
            Self::Lines(_) => eprintln!("{text}"),
        }
    }

    /// The bar goes away.
    pub fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
