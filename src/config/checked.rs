//! The checked configuration. Nothing here is optional that code would have to re-interpret.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use secrecy::SecretString;

use super::attention::Attention;
use super::classify::Classify;
pub use super::energy::EnergyModel;
use super::energy::Learn;
use super::shadow::Shadow;
use crate::policy::types::{Capabilities, Place};

/// Everything the program needs to start.
#[derive(Debug)]
pub struct Config {
    /// The file it came from; none is the built-in quickstart.
    pub file: Option<PathBuf>,
    /// Key files that were read with it.
    pub read: Vec<PathBuf>,
    /// Data-plane listener and who may use it.
    pub server: Server,
    /// Every wait and every size.
    pub limits: Limits,
    /// Backends in file order.
    pub backends: Vec<Backend>,
    /// Plain model names to `auto`, `auto:preset`, `local/NAME` or `cloud/NAME`.
    pub aliases: BTreeMap<String, String>,
    /// Policy of `auto` and of the presets.
    pub policy: Policy,
    /// How texts are sorted into domains.
    pub classify: Classify,
    /// The journal.
    pub journal: Journal,
    /// The exact-answer cache.
    pub cache: Cache,
    /// Assumptions about the cloud's energy.
    pub energy: Energy,
    /// Whether the tables' figures follow the gateway's own traffic.
    pub learning: Learn,
    /// Queries asked again for comparison.
    pub shadow: Shadow,
}

/// Listeners.
#[derive(Debug)]
pub struct Server {
    /// Data plane.
    pub listen: SocketAddr,
    /// Admin and `/metrics`.
    pub admin: SocketAddr,
    /// Threads, each with its own runtime and listener; at least 1.
    pub workers: usize,
    /// Certificate chain and key in PEM; none is plain HTTP.
    pub tls: Option<Tls>,
    /// Client keys; empty is open, which only a loopback listener may be.
    pub keys: Vec<ClientKey>,
    /// Seconds that a drain waits for running answers.
    pub grace: Duration,
}

/// PEM files.
#[derive(Debug)]
pub struct Tls {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// A client's key: only its hash is known.
#[derive(Debug)]
pub struct ClientKey {
    /// Tenant name: journal, cache and metrics label.
    pub tenant: Arc<str>,
    /// BLAKE3 of the key.
    pub hash: [u8; 32],
    /// Queries of this key never leave the machine.
    pub private: bool,
}

/// Limits. Defaults follow reference values of trusted proxies and are listed in `raw`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// First byte of a request after a connection opens.
    pub first_byte: Duration,
    /// Whole request head.
    pub head: Duration,
    /// An open connection without a request is closed after this.
    pub idle: Duration,
    /// Gap between two reads of a request body.
    pub body_gap: Duration,
    /// Whole request body.
    pub body_total: Duration,
    /// Request head bytes.
    pub head_bytes: usize,
    /// Header fields.
    pub header_fields: usize,
    /// Request body bytes.
    pub body_bytes: usize,
    /// Nesting of JSON.
    pub json_depth: usize,
    /// Open client connections.
    pub connections: usize,
    /// Requests in flight; one more is shed with 503 and retry-after.
    pub in_flight: usize,
    /// How many of these one tenant may have, so that one alone cannot shut out the others. All of them unless configured.
    pub tenant_in_flight: usize,
    /// A client that stops reading is cut after this.
    pub write_stall: Duration,
}

/// One backend.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Name: `local/NAME` or `cloud/NAME`.
    pub name: Arc<str>,
    /// Where it runs.
    pub place: Place,
    /// How it is reached.
    pub kind: Kind,
    /// What it can do.
    pub caps: Capabilities,
    /// US dollars per million tokens.
    pub price: Option<Price>,
    /// Its table: a JSON file, or the name of a shipped one; none looks for a shipped one by model, else the prior.
    pub table: Option<PathBuf>,
    /// What `train success` learned of its model: P(correct) per query instead of the table's per domain.
    pub success: Option<PathBuf>,
    /// Energy model of a cloud backend; see `energy::cloud`.
    pub energy: EnergyModel,
    /// Where it runs, if that is not where this machine stands: as `energy.region`.
    pub region: Option<String>,
    /// Waits of this backend.
    pub waits: Waits,
    /// Requests in flight to it.
    pub max_in_flight: usize,
    /// Why it is off, if it is: a missing key.
    pub off: Option<Arc<str>>,
}

/// How a backend is reached.
#[derive(Debug, Clone)]
pub enum Kind {
    /// OpenAI's wire format.
    OpenAi(Endpoint),
    /// A model in this process.
    Embedded(Embedded),
}

/// An upstream. Only configuration makes one.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Scheme, host, port and path prefix, no trailing slash: `https://api.openai.com/v1`.
    pub base: Uri,
    /// Model name sent upstream.
    pub model: Arc<str>,
    /// Bearer key; none for a local server.
    pub key: Option<Arc<SecretString>>,
    /// Extra PEM roots, for an upstream behind a private CA.
    pub ca: Option<PathBuf>,
}

/// A GGUF model run by the engine.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// `smollm2-135m` from the catalogue, or a path, or `hf:OWNER/REPO/FILE`.
    pub model: String,
    /// Pinned hash, 64 hex digits; required for `hf:`.
    pub sha256: Option<String>,
    /// Chat template by name.
    pub template: Option<String>,
    /// Context window.
    pub context: u32,
    /// Kernel threads; 0 is one per core.
    pub threads: usize,
    /// How it attends.
    pub attention: Attention,
    /// Jobs that may wait.
    pub queue: usize,
    /// Jobs that run at a time.
    pub streams: usize,
    /// Bytes for keys and values of all jobs; `None` is enough for all streams, within a bound.
    pub kv_memory: Option<u64>,
    /// How long a step may take that reads a prompt beside streams that speak.
    pub stall: Duration,
}

/// US dollars per million tokens.
#[derive(Debug, Clone, Copy)]
pub struct Price {
    /// Prompt.
    pub input: f64,
    /// Answer.
    pub output: f64,
}

/// Deadlines of one backend.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// TCP and TLS.
    pub connect: Duration,
    /// First token of a stream. An answer in one piece has the total limit only.
    pub first_token: Duration,
    /// Between two chunks.
    pub gap: Duration,
    /// Whole answer.
    pub total: Duration,
}

/// Policies.
#[derive(Debug)]
pub struct Policy {
    /// Name or path of the policy of `auto`.
    pub default: String,
    /// Preset to policy: green, fast, quality, private.
    pub presets: BTreeMap<String, String>,
    /// Folder of user policies, searched before the shipped ones.
    pub folder: Option<PathBuf>,
    /// Also classify queries whose model names a backend: nothing is decided for them, but the journal then knows what
    /// could have gone elsewhere.
    pub classify_pinned: bool,
}

/// The journal.
#[derive(Debug, Clone)]
pub struct Journal {
    /// SQLite file.
    pub path: PathBuf,
    /// Entries older than this are removed.
    pub keep: Duration,
    /// The file is kept under this size by removing the oldest entries.
    pub max_bytes: u64,
    /// Entries that may wait for the writer; more are dropped and counted.
    pub queue: usize,
    /// Off writes nothing.
    pub enabled: bool,
}

/// The exact-answer cache.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Opt-in.
    pub enabled: bool,
    /// Also answers of queries with a temperature above 0 and no seed, which a client may expect to differ each time.
    pub sampled: bool,
    /// Bytes of bodies and answers.
    pub max_bytes: u64,
    /// Age.
    pub ttl: Duration,
}

/// Assumptions for cloud energy, printed with every saving, and what is known of this machine's.
#[derive(Debug, Clone)]
pub struct Energy {
    /// Server batch for low, mid, high joules: a large batch is the low figure.
    pub batch: [u32; 3],
    /// Power usage effectiveness for low, mid, high.
    pub pue: [f64; 3],
    /// TDP of this machine's CPU in watts, when the shipped table lacks it.
    pub cpu_tdp_w: Option<f64>,
    /// Where this machine stands: country, cloud region or g CO2e per kWh; see `energy::carbon`.
    pub region: Option<String>,
    /// A meter at the plug.
    pub wall: Option<Wall>,
    /// Where the kernel's device tree is seen; in a container it may be the host's under another name.
    pub sysfs: PathBuf,
    /// Whether a serving gateway reads the meters, so that the journal has what local answers took rather than what a table says.
    pub read_meters: bool,
}

/// Where a meter at the plug is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wall {
    /// A file with one number of watts.
    File(PathBuf),
    /// A program and its arguments; it prints one number of watts a line for as long as it likes, and is started again when it
    /// ends.
    Program(Vec<String>),
}
