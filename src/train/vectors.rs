//! Sentence vectors that were worked out once, in a file by the texts' hashes: training a head takes minutes the first time
//! and seconds after that.
//!
//! Layout: magic, 32 bytes that name the encoder, then records of 16 bytes of BLAKE3 and [`VECTOR`] numbers in half
//! precision, little endian. Records are only appended; a run that was stopped loses at most the one being written.
//! Invariant: a file of another encoder is refused, and one process at a time writes.

use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use half::f16;

use crate::classify::topics::VECTOR;

const MAGIC: &[u8; 8] = b"WRVECTR1";
const HEADER_BYTES: usize = 8 + 32;
const KEY_BYTES: usize = 16;
const RECORD_BYTES: usize = KEY_BYTES + 2 * VECTOR;
/// Texts that are encoded and appended together.
const AT_ONCE: usize = 128;

type Key = [u8; KEY_BYTES];

/// Texts to their vectors, in order.
pub type Encode<'a> = dyn Fn(&[&str]) -> Result<Vec<Vec<f32>>, String> + 'a;

/// The kept vectors.
pub struct Vectors {
    file: File,
    shown: String,
    places: HashMap<Key, usize>,
    numbers: Vec<f16>,
}

impl Vectors {
    /// Opens a file or begins one; `encoder` names what gives the vectors.
    pub fn open(path: &Path, encoder: &[u8; 32]) -> Result<Self, String> {
        let shown = path.display().to_string();
        let fail = |e: std::io::Error| format!("{shown}: {e}");
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(fail)?;
        }
        let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(format!("{shown}: another training writes to it")),
            Err(TryLockError::Error(e)) => return Err(fail(e)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail)?;
        let header = [MAGIC.as_slice(), encoder].concat();
        if bytes.is_empty() {
            file.write_all(&header).map_err(fail)?;
            bytes.clone_from(&header);
        }
        if !bytes.starts_with(MAGIC) {
            return Err(format!("{shown}: this is no file of sentence vectors"));
        }
        let Some(records) = bytes.strip_prefix(header.as_slice()) else {
            return Err(format!("{shown}: its vectors are of another encoder; give another file, or remove it"));
        };
        let mut all = Self { file, shown, places: HashMap::new(), numbers: Vec::new() };
        let whole = records.chunks_exact(RECORD_BYTES);
        for record in whole {
            all.take(record);
        }
        // A record that was cut is written over.
        let end = (HEADER_BYTES + all.places.len() * RECORD_BYTES) as u64;
        all.file.set_len(end).and_then(|()| all.file.seek(SeekFrom::Start(end))).map_err(|e| all.fail(&e))?;
        Ok(all)
    }

    /// Texts among these that have no vector yet, each once, short ones first: neighbours of one length share a batch.
    pub fn missing<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        let mut seen = HashSet::new();
        let mut all: Vec<&str> = texts.filter(|t| !self.places.contains_key(&key(t)) && seen.insert(key(t))).collect();
        all.sort_by_key(|t| t.len());
        all
    }

    /// Works out what is missing; `told` gets how many bytes of text were done.
    pub fn fill(&mut self, missing: &[&str], encode: &Encode, told: &dyn Fn(usize)) -> Result<(), String> {
        for part in missing.chunks(AT_ONCE) {
            let vectors = encode(part)?;
            let mut bytes = Vec::with_capacity(part.len() * RECORD_BYTES);
            for (text, vector) in part.iter().zip(&vectors) {
                if vector.len() != VECTOR {
                    return Err(format!("the encoder gave {} numbers, not {VECTOR}", vector.len()));
                }
                bytes.extend(key(text));
                bytes.extend(vector.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
            }
            self.file.write_all(&bytes).map_err(|e| self.fail(&e))?;
            for record in bytes.chunks_exact(RECORD_BYTES) {
                self.take(record);
            }
            told(part.iter().map(|t| t.len()).sum());
        }
        Ok(())
    }

    /// A text's vector, where it was worked out.
    pub fn of(&self, text: &str) -> Option<Vec<f32>> {
        let place = *self.places.get(&key(text))?;
        let numbers = self.numbers.get(place * VECTOR..(place + 1) * VECTOR)?;
        Some(numbers.iter().map(|x| x.to_f32()).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn take(&mut self, record: &[u8]) {
        let Some((key, rest)) = record.split_first_chunk::<KEY_BYTES>() else { return };
        let place = self.numbers.len() / VECTOR;
        self.places.insert(*key, place);
        self.numbers.extend(rest.as_chunks::<2>().0.iter().map(|x| f16::from_le_bytes(*x)));
    }

    fn fail(&self, e: &std::io::Error) -> String {
        format!("{}: {e}", self.shown)
    }
}

fn key(text: &str) -> Key {
    blake3::hash(text.as_bytes()).as_bytes().first_chunk().copied().unwrap_or_default()
}
