//! What the attention kernel promises, as properties: the double-precision reference against itself first, its root
//! being weighted least squares, then the single-precision kernels against the reference, at every level this machine has.
//!
//! | promise | reference | kernels |
//! |---|---|---|
//! | equals the weighted ridge regression with an unpenalised intercept; all forms agree | [`forms`] | [`accuracy`] |
//! | an infinite ridge is softmax bit for bit, a large one approaches it as `1 / lambda` | [`limits`] | [`single`] |
//! | affine values, keys as values, constants | [`limits`] | [`single`] (constants, affine values, mean key) |
//! | no scale: ridge regression with an intercept, and not without | [`limits`] | [`single`] |
//! | one key, equal keys, a sharp scale | [`limits`] | [`single`] |
//! | signed weights sum to one; bounds on mass and correction, far queries included; adaptive ridge | [`trust`] | [`single`], [`accuracy`] |
//! | order, doubling, masked keys, rotations, scalings, affine values | [`symmetry`] | [`single`] |
//! | what softmax does not notice must change a finite ridge (catches a silent softmax) | [`symmetry`] | [`single`] |
//! | split passes merge in any order; token by token = runs = whole; windows and eviction | [`splits`] | [`streams`] |
//! | solvers agree; steps of conjugate gradients; a zero right-hand side | [`forms`] | [`accuracy`], [`single`], [`cost`] |
//! | keys may be moved by a reference; Gaussian weights are softmax where keys have one norm | [`symmetry`] | [`accuracy`] (offset of all keys) |
//! | a given correction: solved = local fit, zero = softmax, two branches = covariance form | [`probes`] | [`single`] |
//! | softmax at the Newton point agrees to second order | [`probes`] | |
//! | gradients are those of finite differences | [`training`] | [`training`] |
//! | finite in, finite out; fallbacks counted; a bad row spoils no other | | [`robust`] |
//! | recall and piecewise-linear regression as measured | [`quality`] | [`quality`] |
//! | operations, bytes and iterations as the formulas say | | [`cost`] |

mod accuracy;
mod cost;
mod forms;
mod limits;
mod probes;
mod quality;
mod robust;
mod single;
mod splits;
mod streams;
mod support;
mod symmetry;
mod training;
mod trust;
