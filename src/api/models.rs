//! `GET /v1/models`: every name a client may ask for, with owner and place.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::config::Config;
use crate::config::checked::Kind as Backend;
use crate::fault::{Fault, Kind};

/// Owner of the names that this gateway makes up.
const OWNER: &str = "wattroute";

/// The whole list: `auto`, its presets, backends that are on, aliases. `created` is Unix seconds.
pub fn list(config: &Config, created: u64) -> Bytes {
    let data: Vec<Value> = entries(config).map(|(id, place)| entry(config, &id, place, created)).collect();
    Bytes::from(json!({ "object": "list", "data": data }).to_string())
}

/// One entry of the list.
pub fn one(config: &Config, id: &str, created: u64) -> Result<Bytes, Fault> {
    let found = entries(config).find(|(name, _)| name == id);
    let Some((name, place)) = found else {
        let message = "no such model here: GET /v1/models lists the names";
        return Err(Fault::new(Kind::ModelNotFound, message).param("model"));
    };
    Ok(Bytes::from(entry(config, &name, place, created).to_string()))
}

fn entries(config: &Config) -> impl Iterator<Item = (String, Option<&'static str>)> {
    let auto = std::iter::once(("auto".to_owned(), None));
    let presets = config.policy.presets.keys().map(|preset| (format!("auto:{preset}"), None));
    let backends = config.backends.iter().filter(|backend| backend.off.is_none());
    let backends = backends.map(|backend| (backend.name.to_string(), Some(backend.place.name())));
    let aliases = config.aliases.iter().map(|(name, target)| (name.clone(), place_of(config, target)));
    auto.chain(presets).chain(backends).chain(aliases)
}

fn place_of(config: &Config, target: &str) -> Option<&'static str> {
    config.backends.iter().find(|backend| &*backend.name == target).map(|backend| backend.place.name())
}

fn entry(config: &Config, id: &str, place: Option<&'static str>, created: u64) -> Value {
    let mut entry = json!({ "id": id, "object": "model", "created": created, "owned_by": OWNER, "place": place });
    let target = config.aliases.get(id).map_or(id, String::as_str);
    let backend = config.backends.iter().find(|backend| &*backend.name == target);
    if let (Some(Backend::Embedded(embedded)), Some(fields)) = (backend.map(|b| &b.kind), entry.as_object_mut()) {
        fields.insert("attention".to_owned(), embedded.attention.to_string().into());
    }
    entry
}
