//! Transport errors to faults: our words, the backend's configured name, never a host or a peer's text.

use std::error::Error;
use std::io::{self, ErrorKind};

use super::line::Broken;
use super::pool::NoAnswer;
use crate::fault::{Fault, Kind};

/// No response came.
pub fn transport(name: &str, error: NoAnswer) -> Fault {
    match error {
        NoAnswer::Connect(error) => {
            Fault::new(Kind::Connect, format!("backend `{name}` could not be reached: {error}")).because(error)
        }
        NoAnswer::Http(error) | NoAnswer::Stale(error) => {
            let (kind, what) = kind_of(&error);
            Fault::new(kind, format!("backend `{name}` {what} before it answered")).because(error)
        }
    }
}

/// The body broke off.
pub fn broken(name: &str, error: Broken) -> Fault {
    let (kind, what) = match &error {
        Broken::Http(error) => kind_of(error),
        Broken::Past(error) => kind_of(error),
    };
    Fault::new(kind, format!("backend `{name}` {what} in the middle of its answer")).because(error)
}

fn kind_of(error: &(dyn Error + 'static)) -> (Kind, &'static str) {
    // Decoders of bodies report bad chunk sizes as io errors of these kinds.
    let bad = [ErrorKind::InvalidData, ErrorKind::InvalidInput];
    let nonsense = find::<io::Error>(error).is_some_and(|io| bad.contains(&io.kind()));
    if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) || nonsense {
        (Kind::UpstreamProtocol, "sent something that is not HTTP")
    } else {
        (Kind::UpstreamCut, "closed the connection")
    }
}

fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
