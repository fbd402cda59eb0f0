//! Training of classifiers: labelled texts in, artifact and provenance out; and of the check of local answers ([`verify`],
//! [`front`]). Feature `train`.
//!
//! Two sparse linear models by our own solver (linfa has no sparse multinomial one), a dense head by linfa's multinomial
//! logistic regression on scores of models that did not see the example, then temperature and threshold on the dev split.
//! Seeded: the same data and seed give the same bytes.

pub mod across;
pub mod augment;
pub mod dense;
pub mod domains;
pub mod encoder;
pub mod front;
pub mod gist;
pub mod noise;
pub mod own;
pub mod report;
pub mod solver;
pub mod topics;
pub mod vectors;
pub mod verify;

#[cfg(test)]
mod tests;
