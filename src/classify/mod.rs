//! Text to a posterior over domains, in microseconds. See [`Classifier`].

pub mod domain;
