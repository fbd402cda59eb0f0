//! Tokens of an answer where its server does not count them, with who counted.

use std::path::Path;

use super::listen::Heard;
use super::record::Counted;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::{gguf, vocabulary};
use crate::models::{self, Store};

/// Prompt and generated tokens as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the prompt.
    pub input: Option<u32>,
    /// Of the answer, reasoning included where the server counts it.
    pub output: Option<u32>,
    /// Who counted.
    pub from: Option<Counted>,
}

/// Who counts.
pub struct Counter {
    /// The backend's own count is the engine's.
    embedded: bool,
    tokenizer: Option<Tokenizer>,
}

impl Counter {
    /// For a backend; the tokenizer stands in where a server sends no usage.
    pub fn new(embedded: bool, tokenizer: Option<Tokenizer>) -> Self {
        Self { embedded, tokenizer }
    }

    /// Counts. Without usage a tokenizer counts the bare texts (no template); without one the stream's content events are a
    /// lower bound of the answer, and the prompt is not known.
    pub fn count(&self, prompt: &str, heard: &Heard) -> Tokens {
        if let Some((input, output)) = heard.usage {
            let from = if self.embedded { Counted::Engine } else { Counted::Usage };
            return Tokens { input: Some(input), output: Some(output), from: Some(from) };
        }
        if let Some(tokenizer) = &self.tokenizer {
            let count = |text: &str| {
                let mut ids = Vec::new();
                tokenizer.encode(text, usize::MAX, &mut ids).ok()?;
                u32::try_from(ids.len()).ok()
            };
            let answer = [heard.reasoning.as_str(), heard.text.as_str()].concat();
            return Tokens { input: count(prompt), output: count(&answer), from: Some(Counted::Tokenizer) };
        }
        let output = (heard.deltas > 0).then_some(heard.deltas);
        Tokens { input: None, output, from: output.map(|_| Counted::Deltas) }
    }
}

/// The tokenizer of a GGUF file, or of a model of the catalogue that is in the store.
///
/// # Errors
/// The file is not there or has no tokenizer that is known.
pub fn tokenizer(named: &str) -> Result<Tokenizer, String> {
    let path = if Path::new(named).exists() {
        Path::new(named).to_owned()
    } else {
        let wanted = models::resolve(named, None).map_err(|e| e.to_string())?;
        let store = Store::of_user().map_err(|e| e.to_string())?;
        let found = models::locate(&store, &wanted).map_err(|e| e.to_string())?;
        found.ok_or_else(|| format!("{named} is not here: run `wattroute models pull {named}`"))?
    };
    let header = gguf::precheck(&path).map_err(|e| e.to_string())?;
    let vocabulary = vocabulary::read(&header.metadata).map_err(|e| e.to_string())?;
    Tokenizer::new(&vocabulary).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_goes_first_and_without_any_count_nothing_is_made_up() {
        let mut told = Heard::default();
        (told.usage, told.deltas) = (Some((5, 6)), 9);
        let tokens = |input, output, from| Tokens { input, output, from: Some(from) };
        assert_eq!(Counter::new(true, None).count("p", &told), tokens(Some(5), Some(6), Counted::Engine));
        assert_eq!(Counter::new(false, None).count("p", &told), tokens(Some(5), Some(6), Counted::Usage));
        let mut untold = Heard::default();
        untold.deltas = 9;
        assert_eq!(Counter::new(false, None).count("p", &untold), tokens(None, Some(9), Counted::Deltas));
        assert_eq!(Counter::new(false, None).count("p", &Heard::default()), Tokens::default());
    }
}
