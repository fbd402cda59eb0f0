//! wattroute: a gateway that sends each LLM query to a local accelerator or a cloud endpoint by measured intelligence
//! per watt.
//!
//! # The straight line
//!
//! A request passes through [`path::handle`], and that function is the map of everything else:
//!
//! ```text
//! socket -> edge (limits, TLS, framing) -> path::handle:
//!     gate    who is asking, is there room            api      bytes -> query
//!     cache   an exact answer, if opted in            signals  classify (domains), predict
//!     policy  decide (pure)                           backend  ask, fall back before the first byte
//!     verify  is a local answer good enough, if the policy has a cascade
//!     relay   stream, count, end honestly             -> client
//! ```
//!
//! Beside the line, never in it: [`journal`] (a bounded queue to a writer thread), [`learn`] and [`bandit`] (fed by that writer),
//! [`meter`] (metrics), health probes, configuration reload. A client that hangs up drops the future: the upstream socket closes or the local decode stops,
//! the permits return, and the journal entry is still written, because a guard's `Drop` writes it. Away from the gateway
//! altogether, [`replay`] takes logged queries through the same decisions.
//!
//! # Words
//!
//! *Query*, *domain*, *backend* (with its *place*, local or cloud), *table*, *coverage*, *basis*, *signals*, *policy*,
//! *decision*, *journal*: one word per idea, the same in code, configuration keys, metrics, headers and text.
//!
//! # Invariants of absence
//!
//! - Prompt and answer text never reach a log line, a metric, the journal or an error. [`fault::Fault`] has no place for
//!   a peer's text, [`journal::record::Record`] has none for a prompt.
//! - A client cannot name a host. Only configuration makes a [`config::checked::Endpoint`].
//! - A private query cannot reach the cloud: an HTTP backend in the cloud demands a [`policy::types::CloudPermit`], and
//!   only [`policy`] can make one.
//! - A broken answer never looks finished: [`relay`] sends an error event and aborts, and never writes `[DONE]` itself.
//! - Unknown energy is null, never 0 ([`energy::Joules::UNKNOWN`]), and every figure carries its [`energy::Basis`].
//! - `policy`, `predict`, `tables`, `classify` and `lla` know nothing of HTTP, sockets or clocks; only `engine` knows
//!   candle; only `edge` knows hyper's server; the environment is read in [`config`] only, but for the
//!   keys of object stores ([`store`]); time comes from [`clock`].
//!
//! # Reading order
//!
//! [`path`], then [`fault`], [`api`], [`domains`], [`signals`], [`policy`], [`backend`], [`relay`], [`journal`]; then what feeds them:
//! [`classify`], [`tables`], [`predict`], [`energy`], [`engine`], [`lla`]; then [`replay`]; then the rim: [`edge`], [`gate`], [`config`],
//! [`app`], [`cli`].

pub mod api;
pub mod app;
pub mod asking;
pub mod backend;
pub mod bandit;
pub mod cache;
pub mod classify;
pub mod cli;
pub mod clock;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod columnar;
pub mod config;
pub mod domains;
pub mod edge;
pub mod energy;
pub mod engine;
pub mod entry;
pub mod fault;
pub mod feedback;
pub mod fetch;
pub mod gate;
pub mod headers;
pub mod journal;
pub mod learn;
pub mod lla;
pub mod meter;
pub mod models;
pub mod path;
pub mod picture;
pub mod policy;
pub mod predict;
pub mod profile;
pub mod relay;
pub mod replay;
pub mod report;
pub mod shadow;
pub mod signals;
pub mod state;
pub mod sticky;
pub mod store;
pub mod tables;
pub mod tee;
pub mod tier;
#[cfg(feature = "train")]
pub mod train;
pub mod tune;
pub mod verify;
