//! What is held to an answer's end, and who is told of it: exactly once, also by a hang-up.

use bytes::Bytes;

use super::Completion;
use crate::api::sse::Seen;
use crate::backend::lease::{Lease, Report};
use crate::backend::types::{Source, Usage};
use crate::clock;
use crate::journal::record::Outcome;

/// What is held to the end, and who is told of it.
pub struct Ending {
    /// As far as it is known.
    pub completion: Completion,
    /// Called with the completion.
    pub done: Option<Box<dyn FnOnce(Completion) + Send>>,
    /// The place at the backend.
    pub lease: Option<Lease>,
    /// Whatever the caller wants held: seat, permits.
    pub _hold: Box<dyn Send>,
}

impl Ending {
    /// A piece of a complete body was taken over by the connection.
    pub fn delivered(&mut self, piece: &Bytes, last: bool) {
        self.completion.bytes += piece.len() as u64;
        self.completion.first_byte.get_or_insert_with(clock::now);
        if last {
            self.completion.outcome = if self.completion.status.is_success() { Outcome::Ok } else { Outcome::Upstream };
        }
    }

    /// Notes what a stream has shown.
    pub fn close(&mut self, seen: &Seen, outcome: Outcome) {
        self.completion.outcome = outcome;
        self.completion.timings = seen.timings;
        let usage: &mut Usage = &mut self.completion.usage;
        usage.finish = seen.finish.clone().or(usage.finish.take());
        usage.model = seen.model.clone().or(usage.model.take());
        if let Some((input, output)) = seen.usage {
            (usage.input, usage.output) = (Some(input), Some(output));
            if usage.source != Source::Engine {
                usage.source = Source::Upstream;
            }
        } else if usage.output.is_none() {
            usage.output = Some(seen.deltas);
            usage.source = Source::Deltas;
        }
        if let Some(lease) = self.lease.as_mut().filter(|_| outcome == Outcome::Ok) {
            lease.report(Report::Good);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.completion.ended = clock::now();
        if let Some(done) = self.done.take() {
            done(self.completion.clone());
        }
    }
}
