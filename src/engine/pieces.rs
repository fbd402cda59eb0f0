//! What runs together: the parts of several sequences, cut into pieces that go through all layers at once.

use std::ops::Range;

use crate::engine::cache::KvCache;
use crate::engine::types::EngineError;

/// Tokens that go through all layers together; the activations of one piece stay in the second-level cache.
const PIECE_TOKENS: usize = 128;

/// One sequence's part in a step.
pub struct Run<'a> {
    /// Keys and values of what was run before; those of `tokens` are added.
    pub cache: &'a mut KvCache,
    /// What to run; at least one token, and room for all in the cache.
    pub tokens: &'a [u32],
    /// Where the logits of the last token go, if they are wanted: `vocab_size` values.
    pub logits: Option<&'a mut Vec<f32>>,
}

/// Tokens of one run in a piece.
pub struct Span {
    /// Index of the run.
    pub run: usize,
    /// Which of its tokens.
    pub tokens: Range<usize>,
    /// Where they are among the piece's rows.
    pub rows: Range<usize>,
    /// Position of the first.
    pub first: usize,
}

/// Cuts what can run into pieces of at most [`PIECE_TOKENS`], in each of which a run has one part.
pub fn pieces(runs: &[Run], errors: &[Option<EngineError>]) -> Vec<Vec<Span>> {
    let (mut pieces, mut piece, mut room) = (Vec::new(), Vec::new(), PIECE_TOKENS);
    for (index, (run, _)) in runs.iter().zip(errors).enumerate().filter(|(_, (_, error))| error.is_none()) {
        let mut from = 0;
        while from < run.tokens.len() {
            let to = run.tokens.len().min(from + room);
            let row = PIECE_TOKENS - room;
            piece.push(Span {
                run: index,
                tokens: from..to,
                rows: row..row + to - from,
                first: run.cache.len() + from,
            });
            room -= to - from;
            from = to;
            if room == 0 {
                pieces.push(std::mem::take(&mut piece));
                room = PIECE_TOKENS;
            }
        }
    }
    pieces.push(piece);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}
