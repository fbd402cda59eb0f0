//! TDP times utilisation.
