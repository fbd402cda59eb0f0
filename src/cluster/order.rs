//! What needs the log's order, put together on the client from what the pieces tell: numbers of lines, keys seen before, the
//! clock, domains. It says what [`crate::replay::reader::Reader::admit`] says of the same lines.

use std::collections::HashSet;

use super::lines::Piece;
use super::sums::{Part, Survey};
use crate::replay::learned::Names;
use crate::replay::reader::REMEMBERED;

/// Put together so far.
pub struct Order {
    /// Lines to read, at most.
    pub limit: u64,
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
    keys: HashSet<u64>,
    first_arrival: Option<f64>,
    last_arrival: f64,
    next: u64,
}

impl Order {
    /// Before the first line.
    pub fn new(limit: u64, names: Names) -> Self {
        Self {
            limit,
            names,
            dropped: Vec::new(),
            backwards: (0, None),
            timed: true,
            forgot: false,
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
            self.arrived(line, *arrival);
        }
    }

    fn arrived(&mut self, line: u64, arrival: Option<f64>) {
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
    }
}
