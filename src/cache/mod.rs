//! The exact-answer cache: the same tenant asking the same thing again gets the same bytes, without a backend.
//!
//! Opt-in. What counts as the same: tenant, endpoint, model as asked, policy (by hash), privacy, generation of
//! the configuration, and every field of the body except our own `wattroute` field. Fields may come in any order; their values are compared byte for byte, and
//! `stream` is one of them, so a stream replays a stream. Only queries whose answer is meant to repeat are kept
//! (temperature 0 or a seed), unless `cache.sampled` says otherwise: who asks twice at temperature 1 expects two answers.
//!
//! Never holds a broken, partial or error answer: [`Cache::put`] is called with complete ones only, after their last byte.
//! Bounded by bytes and age; a full cache forgets what is asked for least.

pub mod recent;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use moka::sync::Cache as Store;
use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::api::query::{Endpoint, Query};
use crate::backend::types::Usage;
use crate::config::checked;
use crate::energy::Joules;
use crate::policy::types::Place;

/// No single answer may take more than this part of the cache.
const ENTRY_SHARE: u64 = 16;
/// Bookkeeping of one entry besides its bytes: key, headers of the allocations, moka's own node.
const ENTRY_BYTES: usize = 512;
/// The body field that belongs to us and is stripped before any backend sees it.
const OUR_FIELD: &str = "wattroute";

/// Identifies one question of one tenant. BLAKE3: nobody can make two questions collide.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// What besides the body makes a question.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who asks; empty on an open loopback listener.
    pub tenant: &'a str,
    /// Hash of the policy that `auto` or a preset came to.
    pub policy_hash: &'a str,
    /// The query must not leave the machine: it never sees an answer that came from elsewhere.
    pub private: bool,
    /// Of the configuration: an answer that began before a reload and ends after it is never found again.
    pub generation: u64,
}

/// A complete answer with status 200. No `Debug`: it is text for one tenant only.
#[derive(Clone)]
pub struct Hit {
    /// JSON, or the whole event stream with its `[DONE]`.
    pub body: Bytes,
    /// The body is an event stream.
    pub stream: bool,
    /// Who answered at the time.
    pub backend: Arc<str>,
    /// Where.
    pub place: Place,
    /// Its tokens.
    pub usage: Usage,
    /// What the question is about, as it was classified at the time.
    pub domain: &'static str,
    /// What the answer took at the time, thrown away attempts left out: what a repeat saves.
    pub joules: Joules,
}

/// Answers by key; off, it holds nothing and finds nothing.
#[derive(Clone)]
pub struct Cache {
    store: Option<Store<Key, Arc<Hit>>>,
    entry_bytes: u64,
    sampled: bool,
}

impl Cache {
    /// An empty cache of the configured size and age.
    pub fn new(config: &checked::Cache) -> Self {
        let store = config.enabled.then(|| {
            Store::builder()
                .max_capacity(config.max_bytes)
                .weigher(|_: &Key, hit: &Arc<Hit>| u32::try_from(weight(hit)).unwrap_or(u32::MAX))
                .time_to_live(config.ttl)
                .build()
        });
        Self { store, entry_bytes: config.max_bytes / ENTRY_SHARE, sampled: config.sampled }
    }

    /// The key of a query, or none when its answer is not to be kept.
    pub fn key(&self, asked: Asked<'_>, query: &Query) -> Option<Key> {
        let repeats = query.sampling.temperature == 0.0 || query.sampling.seed.is_some();
        if self.store.is_none() || !(repeats || self.sampled) {
            return None;
        }
        key(asked, query.endpoint, &query.model, &query.body)
    }

    /// The answer kept for a key.
    pub fn get(&self, key: &Key) -> Option<Arc<Hit>> {
        self.store.as_ref()?.get(key)
    }

    /// Keeps a complete answer, unless it is too large.
    pub fn put(&self, key: Key, hit: Hit) {
        let Some(store) = &self.store else { return };
        if weight(&hit) as u64 <= self.entry_bytes {
            store.insert(key, Arc::new(hit));
        }
    }

    /// The largest answer that [`Cache::put`] keeps, bytes; 0 when off. A relay need not collect more.
    pub fn largest(&self) -> usize {
        let most = usize::try_from(self.entry_bytes).unwrap_or(usize::MAX).saturating_sub(ENTRY_BYTES);
        if self.store.is_some() { most } else { 0 }
    }

    /// Forgets everything: after a change of configuration old answers may be wrong.
    pub fn clear(&self) {
        if let Some(store) = &self.store {
            store.invalidate_all();
        }
    }
}

fn weight(hit: &Hit) -> usize {
    hit.body.len() + hit.backend.len() + ENTRY_BYTES
}

/// The key of a body; none if it is not a JSON object.
fn key(asked: Asked<'_>, endpoint: Endpoint, model: &str, body: &[u8]) -> Option<Key> {
    let mut fields = serde_json::Deserializer::from_slice(body).deserialize_map(Fields).ok()?;
    // Stable: repeated names keep their order, because backends differ in which one they obey.
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hasher = blake3::Hasher::new();
    // Lengths first: no two lists of parts have the same bytes.
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(asked.tenant.as_bytes());
    part(match endpoint {
        Endpoint::Chat => b"chat",
        Endpoint::Completions => b"completions",
    });
    part(model.as_bytes());
    part(asked.policy_hash.as_bytes());
    part(&[u8::from(asked.private)]);
    part(&asked.generation.to_le_bytes());
    for (name, value) in fields.iter().filter(|(name, _)| name != OUR_FIELD) {
        part(name.as_bytes());
        part(value.get().as_bytes());
    }
    Some(Key(*hasher.finalize().as_bytes()))
}

/// The fields of an object as they stand, repeats included.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<Name<'de>>()? {
            fields.push((name.0, map.next_value()?));
        }
        Ok(fields)
    }
}

/// A name, borrowed unless it has escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BODY: &str = r#"{"model":"auto","messages":[{"role":"user","content":"hi"}],"temperature":0,"seed":7,"top_p":1,"stop":["x"],"max_tokens":9,"stream":false,"tools":[]}"#;

    fn asked(tenant: &str) -> Asked<'_> {
        Asked { tenant, policy_hash: "aa", private: false, generation: 0 }
    }

    fn of(body: &str) -> Key {
        key(asked("a"), Endpoint::Chat, "auto", body.as_bytes()).unwrap()
    }

    #[test]
    fn each_part_of_the_question_changes_the_key() {
        let base = of(BODY);
        let bytes = BODY.as_bytes();
        let other = [
            key(asked("b"), Endpoint::Chat, "auto", bytes),
            key(Asked { policy_hash: "bb", ..asked("a") }, Endpoint::Chat, "auto", bytes),
            key(Asked { private: true, ..asked("a") }, Endpoint::Chat, "auto", bytes),
            key(Asked { generation: 1, ..asked("a") }, Endpoint::Chat, "auto", bytes),
            key(asked("a"), Endpoint::Completions, "auto", bytes),
            key(asked("a"), Endpoint::Chat, "cloud/x", bytes),
            // Parts must not run into each other.
            key(Asked { tenant: "aa", policy_hash: "a", ..asked("a") }, Endpoint::Chat, "auto", bytes),
        ];
        for (i, k) in other.iter().enumerate() {
            assert!(k.unwrap() != base, "part {i}");
        }
        for (from, to) in [
            ("\"hi\"", "\"hi \""),
            ("\"temperature\":0", "\"temperature\":0.0"),
            ("\"seed\":7", "\"seed\":8"),
            ("\"top_p\":1", "\"top_p\":0.9"),
            ("[\"x\"]", "[\"y\"]"),
            ("\"max_tokens\":9", "\"max_tokens\":10"),
            ("\"stream\":false", "\"stream\":true"),
            ("\"tools\":[]", "\"tools\":[{}]"),
            ("\"tools\":[]", "\"unknown\":1"),
            (",\"tools\":[]", ""),
            ("\"tools\":[]", "\"tools\":[],\"seed\":8"),
        ] {
            assert!(BODY.contains(from));
            assert!(of(&BODY.replace(from, to)) != base, "{from} -> {to}");
        }
    }

    #[test]
    fn the_order_of_fields_and_our_own_field_do_not() {
        let base = of(BODY);
        let moved = BODY.replace("\"seed\":7,", "").replace("\"tools\":[]", "\"tools\":[],\"seed\":7");
        assert!(of(&moved) == base);
        let ours = BODY.replace("\"seed\":7", "\"wattroute\":{\"note\":1},\"seed\":7");
        assert!(of(&ours) == base);
        assert!(key(asked("a"), Endpoint::Chat, "auto", b"[1]").is_none());
    }

    fn cache(max_bytes: u64) -> Cache {
        Cache::new(&checked::Cache { enabled: true, sampled: false, max_bytes, ttl: Duration::from_secs(60) })
    }

    fn hit(len: usize) -> Hit {
        let body = Bytes::from(vec![b'x'; len]);
        Hit {
            body,
            stream: false,
            backend: Arc::from("local/m"),
            place: Place::Local,
            usage: Usage::default(),
            domain: "None",
            joules: Joules::UNKNOWN,
        }
    }

    #[test]
    fn answers_come_back_as_they_went_in_and_large_ones_are_not_kept() {
        let cache = cache(64 * 1024);
        let (small, large) = (of(BODY), of(&BODY.replace("hi", "ho")));
        cache.put(small, hit(100));
        cache.put(large, hit(5000));
        assert_eq!(cache.get(&small).unwrap().body.len(), 100);
        assert!(cache.get(&large).is_none());
        cache.clear();
        assert!(cache.get(&small).is_none());
    }

    #[test]
    fn the_bytes_stay_bounded() {
        let cache = cache(256 * 1024);
        for i in 0..1000 {
            cache.put(of(&BODY.replace("hi", &i.to_string())), hit(4000));
        }
        let store = cache.store.as_ref().unwrap();
        store.run_pending_tasks();
        assert!(store.weighted_size() <= 256 * 1024, "{}", store.weighted_size());
        assert!(store.entry_count() > 10);
    }
}
