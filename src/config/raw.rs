//! The file as people write it: every key optional, nothing interpreted. `schema` lists the same keys with their types;
//! a test keeps the two equal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    /// Listeners and who may use them.
    pub server: Server,
    /// Waits and sizes.
    pub limits: Limits,
    /// Places that answer, by name.
    pub backends: BTreeMap<String, Backend>,
    /// Plain model names.
    pub aliases: BTreeMap<String, String>,
    /// Which policy decides.
    pub policy: Policy,
    /// How texts are sorted into domains.
    pub classify: Classify,
    /// The durable record.
    pub journal: Journal,
    /// Exact answers.
    pub cache: Cache,
    /// Assumptions about energy.
    pub energy: Energy,
    /// Whether tables follow the traffic.
    pub learning: Option<String>,
    /// Queries asked again for comparison.
    pub shadow: Shadow,
}

/// `[server]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    pub listen: Option<String>,
    pub admin: Option<String>,
    pub admin_open: Option<bool>,
    pub plain_http: Option<bool>,
    pub workers: Option<i64>,
    pub grace: Option<String>,
    pub tls: Tls,
    pub keys: Vec<ClientKey>,
}

/// `[server.tls]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    pub cert: Option<String>,
    pub key: Option<String>,
}

/// `[[server.keys]]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientKey {
    pub tenant: Option<String>,
    pub hash: Option<String>,
    pub key_env: Option<String>,
    pub key_file: Option<String>,
    pub private: Option<bool>,
}

/// `[limits]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub first_byte: Option<String>,
    pub head: Option<String>,
    pub idle: Option<String>,
    pub body_gap: Option<String>,
    pub body_total: Option<String>,
    pub head_bytes: Option<String>,
    pub header_fields: Option<i64>,
    pub body_bytes: Option<String>,
    pub json_depth: Option<i64>,
    pub connections: Option<i64>,
    pub in_flight: Option<i64>,
    pub tenant_in_flight: Option<i64>,
    pub write_stall: Option<String>,
}

/// `[backends.NAME]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backend {
    pub place: Option<String>,
    pub kind: Option<String>,
    pub base_url: Option<String>,
    pub model: Option<String>,
    pub key_env: Option<String>,
    pub key_file: Option<String>,
    pub ca: Option<String>,
    pub sha256: Option<String>,
    pub template: Option<String>,
    pub threads: Option<i64>,
    pub queue: Option<i64>,
    pub streams: Option<i64>,
    pub kv_memory: Option<String>,
    pub stall: Option<String>,
    pub context: Option<i64>,
    pub attention: Option<serde_json::Value>,
    pub tools: Option<bool>,
    pub images: Option<bool>,
    pub audio: Option<bool>,
    pub json: Option<bool>,
    pub many: Option<bool>,
    pub logprobs: Option<bool>,
    pub table: Option<String>,
    pub success: Option<String>,
    pub max_in_flight: Option<i64>,
    pub price: Price,
    pub energy: BackendEnergy,
    pub waits: Waits,
}

/// `[backends.NAME.price]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Price {
    pub input: Option<f64>,
    pub output: Option<f64>,
}

/// `[backends.NAME.energy]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendEnergy {
    pub model: Option<String>,
    pub points: Option<String>,
    pub gpu: Option<String>,
    pub gpus: Option<i64>,
    pub precision: Option<String>,
    pub active: Option<Vec<f64>>,
    pub total: Option<Vec<f64>>,
    pub region: Option<String>,
}

/// `[backends.NAME.waits]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Waits {
    pub connect: Option<String>,
    pub first_token: Option<String>,
    pub gap: Option<String>,
    pub total: Option<String>,
}

/// `[policy]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    pub default: Option<String>,
    pub folder: Option<String>,
    pub classify_pinned: Option<bool>,
    pub presets: BTreeMap<String, String>,
}

/// `[classify]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Classify {
    pub tier: Option<String>,
    pub taxonomy: Option<String>,
    pub budget: Option<String>,
    pub kept: Option<i64>,
}

/// `[journal]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    pub enabled: Option<bool>,
    pub path: Option<String>,
    pub keep: Option<String>,
    pub max_bytes: Option<String>,
    pub queue: Option<i64>,
}

/// `[cache]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    pub enabled: Option<bool>,
    pub sampled: Option<bool>,
    pub max_bytes: Option<String>,
    pub ttl: Option<String>,
}

/// `[shadow]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shadow {
    pub share: Option<f64>,
    pub joules_per_hour: Option<f64>,
    pub usd_per_hour: Option<f64>,
    pub judge: Option<String>,
}

/// A command: a line as in a shell, or its words.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Words {
    Line(String),
    List(Vec<String>),
}

/// `[energy]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Energy {
    pub batch: Option<Vec<f64>>,
    pub pue: Option<Vec<f64>>,
    pub cpu_tdp_w: Option<f64>,
    pub region: Option<String>,
    pub wall_file: Option<String>,
    pub wall_command: Option<Words>,
    pub sysfs: Option<String>,
    pub read_meters: Option<bool>,
}
