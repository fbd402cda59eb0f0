//! What an answer says about itself: whether it may be sent, or a better backend should be asked.
//!
//! [`trace`] collects while an answer is produced, [`evidence`] makes numbers of it, [`model`] turns those into P(the answer is
//! right), [`detect`] knows answers that are none, [`agree`] compares two, [`pair`] asks a judge. Pure: no clock, no socket. Invariant: nothing here is ever written
//! down or sent but the numbers; the text of an answer dies with its trace. Between `backend` and `relay`, and only
//! for a decision with a cascade.

pub mod agree;
pub mod detect;
pub mod evidence;
pub mod model;
pub mod pair;
pub mod trace;

pub use evidence::{Evidence, Expected};
pub use model::Model;
pub use trace::Trace;
