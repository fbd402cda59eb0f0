//! Takes the gateway's own key and an upstream's host out of what an upstream says.

use http::HeaderValue;
use memchr::memmem;
use serde_json::Value;

/// What must not reach a client.
pub struct Scrub {
    /// The header value, so that there is one masked copy of the key.
    authorization: Option<HeaderValue>,
    host: String,
}

impl Scrub {
    /// For one upstream.
    pub fn new(authorization: Option<&HeaderValue>, host: &str) -> Self {
        Self { authorization: authorization.cloned(), host: host.to_owned() }
    }

    /// Whether the key or the host is in there.
    pub fn finds(&self, text: &[u8]) -> bool {
        let key = self.key().is_some_and(|key| memmem::find(text, key.as_bytes()).is_some());
        key || (!self.host.is_empty() && memmem::find(text, self.host.as_bytes()).is_some())
    }

    /// The text without them.
    pub fn clean(&self, text: &str) -> String {
        let text = match self.key() {
            Some(key) => text.replace(key, "[key]"),
            None => text.to_owned(),
        };
        if self.host.is_empty() { text } else { text.replace(&self.host, "[upstream]") }
    }

    /// Whether a decoded string or key of this JSON holds one of them: an escape may hide it in the bytes.
    pub fn finds_in(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.finds(text.as_bytes()),
            Value::Array(items) => items.iter().any(|item| self.finds_in(item)),
            Value::Object(members) => {
                members.iter().any(|(key, value)| self.finds(key.as_bytes()) || self.finds_in(value))
            }
            _ => false,
        }
    }

    /// Cleans all strings of a JSON value; keys that hold a secret are dropped with their values.
    pub fn clean_in(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.clean(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.clean_in(item)),
            Value::Object(members) => {
                members.retain(|key, _| !self.finds(key.as_bytes()));
                members.values_mut().for_each(|value| self.clean_in(value));
            }
            _ => {}
        }
    }

    fn key(&self) -> Option<&str> {
        let key = self.authorization.as_ref()?.to_str().ok()?.strip_prefix("Bearer ")?;
        // A key of a few letters would blank out ordinary words.
        (key.len() >= 4).then_some(key)
    }
}
