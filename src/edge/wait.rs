//! A deadline that moves often and fires rarely: moving it costs no timer operation unless it moves closer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep_until};

use crate::clock::Instant;

/// One deadline of one connection.
#[derive(Debug, Default)]
pub struct Wait {
    until: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    /// Waits until `when`.
    pub fn until(&mut self, when: Instant) {
        self.until = Some(when);
    }

    /// Waits for nothing.
    pub fn clear(&mut self) {
        self.until = None;
    }

    /// Whether a deadline is set.
    pub fn is_set(&self) -> bool {
        self.until.is_some()
    }

    /// Whether the deadline has passed; else the task is woken when it has.
    pub fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(until) = self.until else { return false };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        while let Poll::Ready(()) = sleep.as_mut().poll(cx) {
            if sleep.deadline() >= until {
                return true;
            }
            sleep.as_mut().reset(until);
        }
        false
    }
}
