//! What needs the log's order, put together on the client from what the pieces tell: numbers of lines, keys seen before, the
//! clock, domains, and the queue at the local device. It says what [`crate::replay::reader::Reader::admit`] says of the same lines.

use std::collections::HashSet;

use super::lines::Piece;
use super::sums::{Part, Survey};
use crate::replay::learned::Names;
use crate::replay::queue::Device;
use crate::replay::reader::REMEMBERED;
use crate::replay::turn::{Turn, walk};

/// Put together so far.
pub struct Order {
    /// Lines to read, at most.
    pub limit: u64,
    /// Queries per second where arrivals are made up, and the odds' source.
    pub rate: Option<(f64, fastrand::Rng)>,
    /// Domains in the order of their first query.
    pub names: Names,
    /// Lines whose key was seen before.
    pub dropped: Vec<u64>,
    /// Queries that arrived before an earlier line, and the first of them.
    pub backwards: (u64, Option<(u64, f64)>),
    /// Every query has a time of arrival.
    pub timed: bool,
    /// More keys than are remembered came by.
    pub forgot: bool,
    /// Queries so far.
    pub queries: u64,
    /// Line and arrival of the queries whose turn at the devices has not come.
    waiting: Vec<(u64, f64)>,
    keys: HashSet<u64>,
    first_arrival: Option<f64>,
    last_arrival: f64,
    next: u64,
}

impl Order {
    /// Before the first line.
    pub fn new(limit: u64, names: Names, rate: Option<(f64, fastrand::Rng)>) -> Self {
        Self {
            limit,
            rate,
            names,
            dropped: Vec::new(),
            backwards: (0, None),
            timed: true,
            forgot: false,
            queries: 0,
            waiting: Vec::new(),
            keys: HashSet::new(),
            first_arrival: None,
            last_arrival: 0.0,
            next: 1,
        }
    }

    /// Takes pieces that follow those before, and numbers their lines.
    pub fn take(&mut self, mut survey: Survey, pieces: &mut [Piece]) {
        survey.parts.sort_by_key(|p| p.first);
        for piece in pieces {
            let index = piece.first >> 40;
            piece.first = self.next;
            for part in survey.parts.iter().filter(|p| p.first >> 40 == index) {
                self.part(part);
            }
        }
    }

    fn part(&mut self, part: &Part) {
        let base = self.next;
        self.next += part.lines;
        let mut domains = part.domains.iter().peekable();
        for (after, key, arrival) in &part.queries {
            let line = base + u64::from(*after);
            if line > self.limit {
                break;
            }
            if let Some((_, name)) = domains.next_if(|(first, _)| first == after) {
                self.names.index(name);
            }
            if self.keys.len() >= REMEMBERED {
                self.forgot = true;
            } else if !self.keys.insert(*key) {
                self.dropped.push(line);
                continue;
            }
            self.queries += 1;
            self.arrived(line, *arrival);
        }
    }

    fn arrived(&mut self, line: u64, arrival: Option<f64>) {
        if let Some((rate, random)) = &mut self.rate {
            self.last_arrival += -(1.0 - random.f64()).ln() / *rate;
            self.waiting.push((line, self.last_arrival));
            return;
        }
        let Some(at) = arrival else {
            self.timed = false;
            return;
        };
        let since = at - *self.first_arrival.get_or_insert(at);
        if since < self.last_arrival {
            self.backwards.0 += 1;
            self.backwards.1.get_or_insert((line, self.last_arrival - since));
        }
        self.last_arrival = self.last_arrival.max(since);
        self.waiting.push((line, self.last_arrival));
    }

    /// Sends the queries of the pieces taken so far to the devices, in the log's order. Those without a decision have no turn.
    pub fn queue(&mut self, devices: &mut [Device], mut turns: Vec<Turn>) {
        turns.sort_unstable_by_key(|t| t.line);
        let mut waiting = std::mem::take(&mut self.waiting).into_iter().peekable();
        for turn in &mut turns {
            while waiting.next_if(|(line, _)| *line < turn.line).is_some() {}
            if let Some((_, at)) = waiting.next_if(|(line, _)| *line == turn.line) {
                turn.at = at;
            }
        }
        walk(devices, &[turns]);
    }
}
