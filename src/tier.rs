//! The encoder tier: sentence vectors for texts of which the fast classifier is not sure.
//!
//! Invariant: a vector is worked out once and kept by the text's hash, so many at most. Encoding blocks for milliseconds; a
//! runtime's thread must not call it. Without the encoder's file nothing is fetched: the error says which command does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::recent::Recent;
use crate::engine::encoder::Encoder;
use crate::models::{self, Store, catalogue};

/// Vectors kept: 1.5 KB each.
const KEPT: u64 = 10_000;

/// The encoder with what it gave lately.
pub struct Vectors {
    encoder: Encoder,
    kept: Recent<Arc<Vec<f32>>>,
}

impl Vectors {
    /// Loads the encoder of this machine's store, or a file.
    pub fn load(file: Option<&Path>) -> Result<Self, String> {
        Ok(Self { encoder: encoder(file)?, kept: Recent::new(KEPT) })
    }

    /// A text's vector; blocks for milliseconds where it is not kept.
    pub fn of(&self, text: &str) -> Result<Arc<Vec<f32>>, String> {
        self.kept.get(text, || {
            let vector = self.encoder.encode(&[text]).map_err(|e| e.to_string())?.pop();
            vector.map(Arc::new).ok_or_else(|| "the encoder gave nothing".to_owned())
        })
    }
}

/// The encoder itself, from a file or from this machine's store.
pub fn encoder(file: Option<&Path>) -> Result<Encoder, String> {
    let path = match file {
        Some(path) => path.to_owned(),
        None => stored()?,
    };
    Encoder::load(&path, 0).map_err(|e| e.to_string())
}

fn stored() -> Result<PathBuf, String> {
    let store = Store::of_user().map_err(|e| e.to_string())?;
    let model = models::resolve(catalogue::ENCODER, None).map_err(|e| e.to_string())?;
    let found = models::locate(&store, &model).map_err(|e| e.to_string())?;
    found.ok_or_else(|| "the sentence encoder is not on this machine: run `wattroute models pull minilm`".to_owned())
}
