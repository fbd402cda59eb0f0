//! What was worked out for a text lately: bounded, by the text's BLAKE3; a full store forgets what is asked for least.

use moka::sync::Cache as Store;

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

#[cfg(test)]
mod tests {
    use super::*;

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
