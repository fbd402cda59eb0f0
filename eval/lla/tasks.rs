//! What the small models are trained on: recall of associations, and in-context regression on piecewise linear maps.
//!
//! A pair is one token, as a causal convolution of width two over "key, value" would make it: what differs between the
//! models is their memory, so they are spared the learning of a shift.

use crate::dense::normal;

/// Number of distinct keys, and of distinct values.
pub const VOCABULARY: usize = 256;
/// Queries at the end of a recall sequence.
pub const QUERIES: usize = 16;
/// Segment lengths of the regression task.
pub const SEGMENTS: [usize; 4] = [16, 32, 64, 128];

/// A batch: `sequences x length` tokens.
pub struct Batch {
    pub sequences: usize,
    pub length: usize,
    pub tokens: Tokens,
}

pub enum Tokens {
    /// Per position the key, and the value of a stored pair (`None` for a query); per position the answer, if asked.
    Recall { keys: Vec<usize>, values: Vec<Option<usize>>, answers: Vec<Option<usize>> },
    /// Per position `[x_t, x_(t-1), y_(t-1)]` (`3 dim` numbers) and the target `y_t`.
    Regression { dim: usize, inputs: Vec<f32>, targets: Vec<f32> },
}

/// `pairs` distinct keys with random values, then queries for [`QUERIES`] of the keys, each once.
pub fn recall(random: &mut fastrand::Rng, sequences: usize, pairs: usize) -> Batch {
    let (mut keys, mut values, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    let queries = QUERIES.min(pairs);
    for _ in 0..sequences {
        let stored: Vec<(usize, usize)> = random
            .choose_multiple(0..VOCABULARY, pairs)
            .into_iter()
            .map(|key| (key, random.usize(..VOCABULARY)))
            .collect();
        for &(key, value) in &stored {
            keys.push(key);
            values.push(Some(value));
            answers.push(None);
        }
        for (key, value) in random.choose_multiple(stored.iter().copied(), queries) {
            keys.push(key);
            values.push(None);
            answers.push(Some(value));
        }
    }
    Batch { sequences, length: pairs + queries, tokens: Tokens::Recall { keys, values, answers } }
}

/// Piecewise linear streams: each segment has a centre of norm 2 in a random direction and a matrix of `N(0, 1/dim)`
/// entries; `x = centre + N(0, I/dim)`, `y = A x`. The first position has zeros for the pair before it.
pub fn regression(random: &mut fastrand::Rng, sequences: usize, length: usize, dim: usize, segment: usize) -> Batch {
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    let spread = (dim as f32).sqrt().recip();
    let mut draw = |n: usize, sd: f32| (0..n).map(|_| sd * normal(random) as f32).collect::<Vec<f32>>();
    for _ in 0..sequences {
        let (mut centre, mut map) = (Vec::new(), Vec::new());
        let mut before = vec![0.0; 2 * dim];
        for position in 0..length {
            if position % segment == 0 {
                centre = draw(dim, 1.0);
                let norm = crate::mat::dot(&centre, &centre).sqrt();
                centre.iter_mut().for_each(|c| *c *= 2.0 / norm);
                map = draw(dim * dim, spread);
            }
            let mut x = draw(dim, spread);
            crate::mat::add(&centre, &mut x);
            let y: Vec<f32> = map.chunks_exact(dim).map(|row| crate::mat::dot(row, &x)).collect();
            inputs.extend_from_slice(&x);
            inputs.append(&mut before);
            targets.extend_from_slice(&y);
            before = [x, y].concat();
        }
    }
    Batch { sequences, length, tokens: Tokens::Regression { dim, inputs, targets } }
}
