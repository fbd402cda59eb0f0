//! What was worked out for a text lately: bounded, by the text's BLAKE3; a full store forgets what is asked for least.

use moka::sync::Cache as Store;
use uuid::Uuid;

/// Results by text.
pub struct Recent<V> {
    store: Store<[u8; 32], V>,
}

impl<V: Clone + Send + Sync + 'static> Recent<V> {
    /// Room for `most` results.
    pub fn new(most: u64) -> Self {
        Self { store: Store::new(most) }
    }

    /// The kept result, else what `make` gives, which is kept. Two callers at once may both make it.
    pub fn get<E>(&self, text: &str, make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let key = *blake3::hash(text.as_bytes()).as_bytes();
        if let Some(kept) = self.store.get(&key) {
            return Ok(kept);
        }
        let made = make()?;
        self.store.insert(key, made.clone());
        Ok(made)
    }
}

/// Where a tenant's text is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// Results by tenant and text. A tenant finds its own only: from the time that an answer takes nobody learns what others
/// have asked. The hash has a key of this process alone, so that what is in memory cannot be compared with a guess.
pub struct Kept<V> {
    key: [u8; 32],
    store: Store<Key, V>,
}

impl<V: Clone + Send + Sync + 'static> Kept<V> {
    /// Room for `most` results.
    pub fn new(most: u64) -> Self {
        let random = [Uuid::now_v7(), Uuid::now_v7()].map(Uuid::into_bytes).concat();
        Self { key: blake3::derive_key("wattroute kept posteriors", &random), store: Store::new(most) }
    }

    /// Where a tenant's text is kept; about a microsecond per KiB.
    pub fn key(&self, tenant: &str, text: &str) -> Key {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(tenant.len() as u64).to_le_bytes()).update(tenant.as_bytes()).update(text.as_bytes());
        Key(*hasher.finalize().as_bytes())
    }

    /// What is kept there.
    pub fn get(&self, key: &Key) -> Option<V> {
        self.store.get(key)
    }

    /// Keeps a result.
    pub fn put(&self, key: Key, value: V) {
        self.store.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_text_is_its_own_and_room_is_bounded() {
        let kept = Kept::new(10);
        kept.put(kept.key("a", "bc"), 1);
        assert_eq!(kept.get(&kept.key("a", "bc")), Some(1));
        assert_eq!(kept.get(&kept.key("b", "bc")), None);
        assert_eq!(kept.get(&kept.key("ab", "c")), None, "where the name ends is part of the key");
        assert_ne!(kept.key("a", "bc"), Kept::<u8>::new(1).key("a", "bc"), "each store has a key of its own");
        for i in 0..1000 {
            kept.put(kept.key("a", &i.to_string()), i);
        }
        kept.store.run_pending_tasks();
        assert!(kept.store.entry_count() <= 10);
    }

    #[test]
    fn a_result_is_made_once_and_room_is_bounded() {
        let recent = Recent::new(10);
        assert_eq!(recent.get("a", || Ok::<_, ()>(1)), Ok(1));
        assert_eq!(recent.get("a", || Err(())), Ok(1));
        assert_eq!(recent.get("b", || Err(7)), Err(7), "a failure is not kept");
        assert_eq!(recent.get("b", || Ok::<_, ()>(2)), Ok(2));
        for i in 0..1000 {
            let _ = recent.get(&i.to_string(), || Ok::<_, ()>(i));
        }
        recent.store.run_pending_tasks();
        assert!(recent.store.entry_count() <= 10);
    }
}
