//! Text to the word pieces of BERT's uncased vocabulary, through `tokenizers`.

use std::io::Read;

use flate2::read::GzDecoder;
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    Model as _, NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _,
};

use super::MOST_TOKENS;

/// The vocabulary of BERT base uncased, one piece a line (Apache-2.0, Google).
static VOCABULARY: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/eval/artifacts/minilm-vocab.txt.gz"));
/// Bytes of a text that are looked at: far more than [`MOST_TOKENS`] tokens of any script.
const MOST_BYTES: usize = 4096;

/// The tokenizer.
pub struct Pieces {
    model: WordPiece,
    first: u32,
    last: u32,
    count: usize,
    words: Vec<String>,
}

impl Pieces {
    /// The vocabulary inside the program.
    pub fn shipped() -> Result<Self, String> {
        let mut text = String::new();
        GzDecoder::new(VOCABULARY).read_to_string(&mut text).map_err(|e| format!("the vocabulary: {e}"))?;
        let vocab: Vocab = text.lines().zip(0u32..).map(|(piece, id)| (piece.to_owned(), id)).collect();
        let plain = |piece: &&str| piece.bytes().all(|b| b.is_ascii_lowercase());
        let words = text.lines().filter(plain).map(str::to_owned).collect();
        let id = |piece: &str| vocab.get(piece).copied().ok_or_else(|| format!("the vocabulary has no {piece}"));
        let (first, last, count) = (id("[CLS]")?, id("[SEP]")?, vocab.len());
        let model = WordPiece::builder().vocab(vocab).unk_token("[UNK]".into()).build().map_err(|e| e.to_string())?;
        Ok(Self { model, first, last, count, words })
    }

    /// Pieces in the vocabulary.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Pieces that are whole words of the letters a to z, in order.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Ids with the marks at both ends, at most [`MOST_TOKENS`].
    pub fn of(&self, text: &str) -> Vec<u32> {
        let end = text.floor_char_boundary(MOST_BYTES);
        let mut ids = vec![self.first];
        ids.extend(self.inside(text.get(..end).unwrap_or("")).unwrap_or_default());
        ids.truncate(MOST_TOKENS - 1);
        ids.push(self.last);
        ids
    }

    fn inside(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let mut normalized = NormalizedString::from(text);
        BertNormalizer::new(true, true, None, true).normalize(&mut normalized)?;
        let mut words = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut words)?;
        let mut ids = Vec::new();
        for (word, _, _) in words.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            ids.extend(self.model.tokenize(word)?.into_iter().map(|token| token.id));
            if ids.len() >= MOST_TOKENS {
                break;
            }
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_the_pieces_of_the_original() {
        let pieces = Pieces::shipped().unwrap();
        assert_eq!(pieces.count(), 30_522);
        // As the tokenizer file that comes with the model gives them.
        assert_eq!(pieces.of("Hello, world!"), [101, 7592, 1010, 2088, 999, 102]);
        assert_eq!(pieces.of("unaffable naïve 2024"), [101, 14477, 20961, 3468, 15743, 16798, 2549, 102]);
        assert_eq!(pieces.of(""), [101, 102]);
        assert_eq!(pieces.of(&"x ".repeat(5_000_000)).len(), MOST_TOKENS);
        assert_eq!(pieces.of(&"水".repeat(4_000)).len(), MOST_TOKENS);
    }
}
