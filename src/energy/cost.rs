//! What sampling costs itself: time per reading and the share of a core.

use serde::Serialize;

/// What sampling costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Times all meters were read.
    pub samples: u64,
    /// Mean microseconds of one such reading, waiting for the system included.
    pub mean_us: f64,
    /// Longest one in microseconds.
    pub worst_us: f64,
    /// Processor time of the sampling thread over wall time: 0.005 is half a percent of one core. Null off Linux.
    pub core_share: Option<f64>,
}

impl Cost {
    /// Takes one reading of all meters into account: its microseconds, and the thread's processor time since the start.
    pub fn add(&mut self, us: f64, cpu_at_start_s: Option<f64>, at_s: f64) {
        #[expect(clippy::cast_precision_loss, reason = "a count of samples")]
        let n = self.samples as f64;
        self.samples += 1;
        self.mean_us = (self.mean_us * n + us) / (n + 1.0);
        self.worst_us = self.worst_us.max(us);
        // Asking costs as much as a sample, so only now and then.
        if self.samples.is_multiple_of(20) || self.samples == 2 {
            let spent = thread_cpu_seconds().zip(cpu_at_start_s).map(|(now, start)| now - start);
            self.core_share = spent.filter(|_| at_s > 0.0).map(|s| s / at_s);
        }
    }
}

/// Processor seconds of this thread; the first figure of its scheduler statistics, in nanoseconds.
pub fn thread_cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_ascii_whitespace().next()?.parse::<f64>().ok().map(|ns| ns * 1e-9)
}
