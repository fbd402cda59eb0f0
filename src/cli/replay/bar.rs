//! The progress of a replay: bytes read, queries per second, time left.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::replay::run::Watch;

/// Between two looks at the progress.
const LOOK: Duration = Duration::from_millis(100);

/// The bar; nothing is drawn where standard error is no terminal.
pub struct Shown {
    bar: ProgressBar,
}

impl Shown {
    /// Starts to look.
    pub fn start(watch: &Arc<Watch>) -> Self {
        // Without a terminal on standard error indicatif draws nothing.
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{spinner} a first look at the log") {
            bar.set_style(style);
        }
        let (shown, watch) = (bar.clone(), Arc::clone(watch));
        std::thread::spawn(move || {
            while !shown.is_finished() && watch.size.load(Ordering::Relaxed) == 0 {
                std::thread::sleep(LOOK);
                shown.tick();
            }
            // Rate and time left are of the second pass alone.
            shown.reset_elapsed();
            shown.reset_eta();
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {bytes}/{total_bytes} {msg}, {eta} left") {
                shown.set_style(style);
            }
            let began = crate::clock::now();
            while !shown.is_finished() {
                std::thread::sleep(LOOK);
                let lines = watch.lines.load(Ordering::Relaxed);
                shown.set_length(watch.size.load(Ordering::Relaxed));
                shown.set_position(watch.bytes.load(Ordering::Relaxed));
                let own = lines.saturating_sub(watch.before.load(Ordering::Relaxed));
                let rate = own as f64 / began.elapsed().as_secs_f64().max(1e-3);
                shown.set_message(format!("{lines} queries, {rate:.0}/s"));
            }
        });
        Self { bar }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
