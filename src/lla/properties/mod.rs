//! What the attention kernel promises, as properties: the double-precision reference against itself first, its root
//! being weighted least squares, then the single-precision kernels against the reference.

mod forms;
mod limits;
mod probes;
mod splits;
mod support;
mod symmetry;
mod training;
mod trust;
