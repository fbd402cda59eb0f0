//! What a configuration comes to: backends with their tables, policies, loaded models. Replaced whole on a reload.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::backend::Backend;
use crate::config::Config;
use crate::config::checked;
use crate::domains::Domains;
use crate::fault::{Fault, Kind};
use crate::policy::cascade::pays;
use crate::policy::types::Pin;
use crate::policy::{self, Policy};

/// A configuration at work.
pub struct State {
    /// Counts reloads: what was made for another generation is stale.
    pub generation: u64,
    /// The configuration.
    pub config: Config,
    /// Backends in file order.
    pub backends: Vec<Arc<Backend>>,
    /// Text to domains.
    pub domains: Arc<Domains>,
    /// The policy of `auto`.
    policy: Arc<Policy>,
    /// Policies of the presets.
    presets: BTreeMap<String, Arc<Policy>>,
}

/// What a model name came to.
pub struct Choice {
    /// Who decides.
    pub policy: Arc<Policy>,
    /// What was pinned.
    pub pin: Pin,
    /// One of the policies named is private: the query stays on this machine.
    pub private: bool,
}

impl State {
    /// Loads tables, policies and models. Models that `before` has loaded for the same settings are kept.
    ///
    /// # Errors
    /// A policy, table or classifier that cannot be used. A model that cannot be used only switches its backend off, and a
    /// missing sentence encoder its tier.
    pub fn build(config: Config, before: Option<&Self>) -> Result<Self, String> {
        let folder = config.policy.folder.as_deref();
        let policy = load(&config.policy.default, folder)?;
        let mut presets = BTreeMap::new();
        for (preset, name) in &config.policy.presets {
            presets.insert(preset.clone(), load(name, folder)?);
        }
        let mut backends = Vec::with_capacity(config.backends.len());
        for backend in &config.backends {
            let same = before.and_then(|s| s.backends.iter().find(|b| b.config.name == backend.name));
            backends.push(Arc::new(Backend::new(backend, &config.energy, same.map(Arc::as_ref))?));
        }
        let domains = match before.filter(|s| s.config.classify == config.classify && s.domains.lacks().is_none()) {
            Some(same) => Arc::clone(&same.domains),
            None => Arc::new(Domains::load(&config.classify, config.energy.cpu_tdp_w).map_err(|p| p.to_string())?),
        };
        if let Some(problem) = domains.lacks() {
            tracing::warn!(why = %problem, "texts are classified by the fast tier alone");
        }
        for policy in std::iter::once(&policy).chain(presets.values()) {
            warn_of(policy, &backends);
        }
        let generation = before.map_or(0, |s| s.generation + 1);
        Ok(Self { generation, config, backends, domains, policy, presets })
    }

    /// What a client's model name means: `auto`, `auto:PRESET`, `local/NAME`, `cloud/NAME`, an alias. A policy asked for in
    /// header or body goes before the preset in the name, but no name makes a private one less so: the configured
    /// default and both presets tighten.
    ///
    /// # Errors
    /// No such model.
    pub fn choose(&self, model: &str, asked_policy: Option<&str>) -> Result<Choice, Fault> {
        let name = self.config.aliases.get(model).map_or(model, String::as_str);
        let asked = asked_policy.map(|preset| self.preset(preset)).transpose()?;
        let named = name.strip_prefix("auto:").map(|preset| self.preset(preset)).transpose()?;
        let private = self.policy.private || [asked, named].into_iter().flatten().any(|policy| policy.private);
        let policy = Arc::clone(asked.or(named).unwrap_or(&self.policy));
        if name == "auto" || named.is_some() {
            return Ok(Choice { policy, pin: Pin::None, private });
        }
        let Some(backend) = self.backends.iter().find(|b| &*b.config.name == name) else {
            return Err(
                Fault::new(Kind::ModelNotFound, "no such model here: GET /v1/models lists the names").param("model")
            );
        };
        Ok(Choice { policy, pin: Pin::Backend(Arc::clone(&backend.config.name)), private })
    }

    fn preset(&self, name: &str) -> Result<&Arc<Policy>, Fault> {
        self.presets.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.presets.keys().map(String::as_str).collect();
            Fault::new(Kind::ModelNotFound, format!("no such preset; there are: {}", known.join(", "))).param("model")
        })
    }

    /// Backends that could answer now or later.
    pub fn on(&self) -> usize {
        self.backends.iter().filter(|b| b.off().is_none()).count()
    }
}

/// Says once per load that a policy's cascade cannot pay.
fn warn_of(policy: &Policy, backends: &[Arc<Backend>]) {
    let candidates: Vec<_> = backends.iter().filter(|b| b.off().is_none()).map(|b| b.outlook.usual()).collect();
    if let Some(pays) = pays(policy, &candidates).filter(|pays| !pays.ok) {
        tracing::warn!(policy = %policy.name, why = pays.text, "the cascade cannot pay");
    }
}

fn load(name: &str, folder: Option<&Path>) -> Result<Arc<Policy>, String> {
    policy::load(name, folder).map_err(|problems| problems.to_string())
}

/// Settings of a loaded model that make it another model when they change.
pub fn same_model(a: &checked::Embedded, b: &checked::Embedded) -> bool {
    a.model == b.model
        && a.sha256 == b.sha256
        && a.template == b.template
        && a.context == b.context
        && a.threads == b.threads
        && a.attention == b.attention
        && a.queue == b.queue
        && a.streams == b.streams
        && a.kv_memory == b.kv_memory
        && a.stall == b.stall
}
