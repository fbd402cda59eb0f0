//! The journal: one durable entry per request, whatever happened to it. Never prompt or answer text.

pub mod record;
