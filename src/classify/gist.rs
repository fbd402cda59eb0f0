//! Word vectors whose weighted mean says roughly what a text is about, in a microsecond or two.
//!
//! Distilled from the sentence encoder by `wattroute train gist`: frequent words, their vectors reduced to [`DIMS`] numbers of
//! one byte, rare words weighing more (Arora et al. 2017, smooth inverse frequency). A word is known by 32 bits of its hash.
//! Invariant: no byte of the file can change without [`Gist::parse`] refusing it. Pure after loading.

use std::sync::{Arc, LazyLock};

use super::artifact::ArtifactError;
use super::fresh::BATCH;

/// Numbers of a word and of a text.
pub const DIMS: usize = 64;

const MAGIC: &[u8; 8] = b"WRGIST01";
const HEADER_BYTES: usize = 8 + 32;
/// More words than this are a mistake.
const MOST_WORDS: usize = 1 << 20;

static SHIPPED_BYTES: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/eval/artifacts/gist.bin"));
static SHIPPED: LazyLock<Arc<Gist>> = LazyLock::new(|| {
    // The bytes are part of the program and a test loads them; without them every word is unknown.
    Arc::new(Gist::parse(SHIPPED_BYTES).unwrap_or_default())
});

/// The table.
#[derive(Clone, Debug, PartialEq)]
pub struct Gist {
    /// First bytes of the BLAKE3 of its file: heads are trained for one table.
    id: [u8; 8],
    /// Open addressing by the high bits of a key: key and number of the row, which counts from 1.
    slots: Vec<(u32, u32)>,
    shift: u32,
    rows: Vec<[i8; DIMS]>,
}

impl Default for Gist {
    fn default() -> Self {
        Self { id: [0; 8], slots: vec![(0, 0); 2], shift: 31, rows: Vec::new() }
    }
}

impl Gist {
    /// The table inside the program.
    pub fn shipped() -> Arc<Self> {
        Arc::clone(&SHIPPED)
    }

    /// Its name in artifacts of classifiers.
    pub fn id(&self) -> [u8; 8] {
        self.id
    }

    /// Words.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it knows no word.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Checks the bytes of a table and takes it apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let length = |wanted: usize| ArtifactError::Length { wanted: wanted as u64, found: bytes.len() as u64 };
        let (header, payload) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(|| length(HEADER_BYTES))?;
        let sum = header.strip_prefix(MAGIC.as_slice()).ok_or(ArtifactError::Shape("no table of word vectors"))?;
        let hash = *blake3::hash(payload).as_bytes();
        if sum != hash {
            return Err(ArtifactError::Checksum);
        }
        let words = payload.len() / (4 + DIMS);
        if words * (4 + DIMS) != payload.len() || words > MOST_WORDS {
            return Err(ArtifactError::Shape("word vectors"));
        }
        let (keys, rows) = payload.split_at(words * 4);
        let keys: Vec<u32> = keys.as_chunks::<4>().0.iter().map(|k| u32::from_le_bytes(*k)).collect();
        let rows = rows.as_chunks::<DIMS>().0.iter().map(|r| r.map(|b| i8::from_le_bytes([b]))).collect();
        let mut id = [0; 8];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self::indexed(id, &keys, rows)
    }

    fn indexed(id: [u8; 8], keys: &[u32], rows: Vec<[i8; DIMS]>) -> Result<Self, ArtifactError> {
        let size = (2 * keys.len()).next_power_of_two().max(2);
        let mut gist = Self { id, slots: vec![(0, 0); size], shift: 32 - size.trailing_zeros(), rows };
        for (key, number) in keys.iter().zip(1u32..) {
            let mut at = (key >> gist.shift) as usize;
            while let Some(slot) = gist.slots.get_mut(at & (size - 1)) {
                if slot.1 == 0 {
                    *slot = (*key, number);
                    break;
                }
                if slot.0 == *key {
                    return Err(ArtifactError::Value("a word that is there twice"));
                }
                at += 1;
            }
        }
        Ok(gist)
    }

    /// A word's place among the rows.
    #[inline]
    fn number(&self, key: u32) -> Option<usize> {
        let mut at = (key >> self.shift) as usize;
        // Half of the slots are empty, so the search ends.
        loop {
            let (found, number) = *self.slots.get(at & (self.slots.len() - 1))?;
            if number == 0 {
                return None;
            }
            if found == key {
                return Some(number as usize - 1);
            }
            at += 1;
        }
    }
}

/// The bytes of a table: keys of words in their order, and a row for each.
pub fn render(keys: &[u32], rows: &[[i8; DIMS]]) -> Vec<u8> {
    let mut payload: Vec<u8> = keys.iter().flat_map(|k| k.to_le_bytes()).collect();
    payload.extend(rows.iter().flatten().map(|x| x.to_le_bytes()[0]));
    [MAGIC.as_slice(), blake3::hash(&payload).as_bytes(), &payload].concat()
}

/// The running sum of a text's words.
pub struct Mean {
    sum: [i32; DIMS],
    words: u32,
    known: u32,
}

impl Default for Mean {
    fn default() -> Self {
        Self { sum: [0; DIMS], words: 0, known: 0 }
    }
}

impl Mean {
    /// Adds at most 256 words: as many as 16 bits hold the sum of.
    pub fn add(&mut self, gist: &Gist, keys: &[u32]) {
        let mut near = [0i16; DIMS];
        // Rows lie far apart in memory: all are asked for before the first is waited for.
        let (mut numbers, mut found, mut touched) = ([0usize; BATCH], 0, 0i8);
        for number in keys.iter().filter_map(|key| gist.number(*key)) {
            touched ^= gist.rows.get(number).map_or(0, |row| row[0]);
            if let Some(place) = numbers.get_mut(found) {
                *place = number;
                found += 1;
            }
        }
        std::hint::black_box(touched);
        for row in numbers.iter().take(found).filter_map(|number| gist.rows.get(*number)) {
            self.known += 1;
            for (sum, x) in near.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i16::from(*x));
            }
        }
        for (sum, near) in self.sum.iter_mut().zip(near) {
            *sum += i32::from(near);
        }
        self.words += keys.len() as u32;
    }

    /// The mean, scaled to unit length; zeros where no word is known.
    pub fn numbers(&self) -> [f32; DIMS] {
        let squared: f64 = self.sum.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let unit = if squared > 0.0 { 1.0 / squared.sqrt() } else { 0.0 };
        self.sum.map(|x| (f64::from(x) * unit) as f32)
    }

    /// Share of the words that the table knows.
    pub fn known(&self) -> f32 {
        self.known as f32 / self.words.max(1) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_of_the_words_that_are_known() {
        let keys = [7u32, 8, 1 << 31, u32::MAX];
        let mut rows = [[0i8; DIMS]; 4];
        (rows[0][0], rows[1][1], rows[2][2], rows[3][0]) = (3, 4, 9, -3);
        let gist = Gist::parse(&render(&keys, &rows)).unwrap();
        assert_eq!((gist.len(), gist.number(7), gist.number(9)), (4, Some(0), None));
        let mut mean = Mean::default();
        mean.add(&gist, &[7, 8, 5]);
        assert_eq!(mean.numbers()[..3], [0.6, 0.8, 0.0]);
        assert!((mean.known() - 2.0 / 3.0).abs() < 1e-6);
        let mut none = Mean::default();
        none.add(&gist, &[1, 2, 3]);
        assert_eq!(none.numbers(), [0.0; DIMS]);
    }

    #[test]
    fn a_changed_or_cut_table_is_refused() {
        let good = render(&[1, 2], &[[1; DIMS], [2; DIMS]]);
        assert!(Gist::parse(&good).is_ok());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Gist::parse(&bad).is_err(), "byte {at}");
            assert!(Gist::parse(&good[..at]).is_err(), "cut at {at}");
        }
        assert!(Gist::parse(&render(&[5, 5], &[[1; DIMS]; 2])).is_err(), "a word twice");
    }

    #[test]
    fn the_shipped_table_loads() {
        assert!(Gist::parse(SHIPPED_BYTES).unwrap().len() > 10_000);
    }
}
