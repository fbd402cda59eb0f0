//! A stretch of measuring and its balance: a line of the record file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A stretch of measuring, from after the warm-up to the last answer of a level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Window {
    /// When it ended, RFC 3339.
    pub at: String,
    /// Questions asked at a time.
    pub streams: u32,
    /// Its length.
    pub seconds: f64,
    /// Answers that lie in it.
    pub answers: u32,
    /// Per rail.
    pub rails: BTreeMap<String, Balance>,
    /// Stretches in which nothing was read: begin and end, seconds from the window's begin.
    pub gaps: Vec<[f64; 2]>,
    /// Steps of the wall clock: when, seconds from the window's begin, and by how many seconds.
    pub clock_steps: Vec<[f64; 2]>,
    /// Degrees Celsius at the window's begin and end, of sensors that tell them.
    pub celsius: BTreeMap<String, [Option<f64>; 2]>,
    /// Share of a core that sampling took; null off Linux.
    pub sampler_core: Option<f64>,
    /// Mean microseconds of one reading of all meters.
    pub sampler_us: Option<f64>,
}

/// One rail's joules over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balance {
    /// What the meter counted.
    pub delta: f64,
    /// Spent while no question ran.
    pub unattributed: f64,
    /// Belongs to answers that got no figure (see [`Note`](super::Note)).
    pub withheld: f64,
}
