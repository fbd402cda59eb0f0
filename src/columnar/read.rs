//! Parquet files as lines of JSON, one row a line, under the names of their columns.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};

/// Lines given away at once, bytes.
const BLOCK: usize = 256 << 10;
/// Folders within folders that are looked into: a partition or two.
const DEEP: u32 = 4;

/// Every `.parquet` file in a folder and its partitions, in the order of their names.
///
/// # Errors
/// A folder cannot be read, or holds none.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    gather(folder, DEEP, &mut found).map_err(|e| e.to_string())?;
    found.sort();
    if found.is_empty() { Err("is a folder without Parquet files".to_owned()) } else { Ok(found) }
}

fn gather(folder: &Path, deep: u32, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        // Names that begin so are unfinished, by the custom of those who write such folders.
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(['.', '_']));
        if path.is_dir() && deep > 0 && !hidden {
            gather(&path, deep - 1, found)?;
        } else if !hidden && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet")) {
            found.push(path);
        }
    }
    Ok(())
}

/// Gives every row of files away as lines of JSON, in blocks, with the share of all bytes that was read; `give` says whether it wants
/// more.
///
/// # Errors
/// File and row where it is no Parquet, is cut off, damaged or packed in a way that is not read here.
pub fn lines(parts: &[PathBuf], give: &mut dyn FnMut(Vec<u8>, f64) -> bool) -> Result<(), String> {
    let size = |path: &PathBuf| path.metadata().map_or(0, |m| m.len()) as f64;
    let all = parts.iter().map(size).sum::<f64>().max(1.0);
    let mut before = 0.0;
    let mut block = Vec::with_capacity(BLOCK + 4096);
    for part in parts {
        let reader = open(part)?;
        let rows = reader.metadata().file_metadata().num_rows().max(1) as f64;
        let own = size(part);
        for (n, row) in RowIter::from_file_into(Box::new(reader)).enumerate() {
            let row = row.map_err(|e| format!("{}: row {}: {e}", part.display(), n + 1))?;
            object(&mut block, &row);
            block.push(b'\n');
            if block.len() >= BLOCK && !give(std::mem::take(&mut block), (before + own * n as f64 / rows) / all) {
                return Ok(());
            }
        }
        before += own;
    }
    give(block, 1.0);
    Ok(())
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, String> {
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let file = File::open(path).map_err(|e| told(&e))?;
    SerializedFileReader::new(file).map_err(|e| told(&format!("is cut off or no Parquet: {e}")))
}

fn object(out: &mut Vec<u8>, row: &Row) {
    out.push(b'{');
    for (i, (name, field)) in row.get_column_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json(out, name);
        out.push(b':');
        value(out, field);
    }
    out.push(b'}');
}

/// Dates and times become numbers: days as seconds since 1970, times in the unit they are stored in.
fn value(out: &mut Vec<u8>, field: &Field) {
    match field {
        Field::Null => out.extend_from_slice(b"null"),
        Field::Bool(x) => json(out, x),
        Field::Byte(x) => json(out, x),
        Field::Short(x) => json(out, x),
        Field::Int(x) => json(out, x),
        Field::Long(x) | Field::TimestampMillis(x) | Field::TimestampMicros(x) => json(out, x),
        Field::UByte(x) => json(out, x),
        Field::UShort(x) => json(out, x),
        Field::UInt(x) => json(out, x),
        Field::ULong(x) => json(out, x),
        Field::Float(x) => json(out, x),
        Field::Double(x) => json(out, x),
        Field::Str(x) => json(out, x),
        Field::Bytes(x) => json(out, &String::from_utf8_lossy(x.data())),
        Field::Date(days) => json(out, &(i64::from(*days) * 86_400)),
        Field::Group(row) => object(out, row),
        Field::ListInternal(list) => {
            out.push(b'[');
            for (i, item) in list.elements().iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                value(out, item);
            }
            out.push(b']');
        }
        Field::MapInternal(map) => {
            out.push(b'{');
            for (i, (key, item)) in map.entries().iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                let name = if let Field::Str(name) = key { name.clone() } else { key.to_string() };
                json(out, &name);
                out.push(b':');
                value(out, item);
            }
            out.push(b'}');
        }
        // Decimals and half floats: their digits, as a number where they are one.
        other => number_or_text(out, &other.to_string()),
    }
}

fn number_or_text(out: &mut Vec<u8>, text: &str) {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() => json(out, &x),
        _ => json(out, text),
    }
}

/// What is no number in JSON becomes null; nothing else can fail in memory.
fn json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, x: &T) {
    let before = out.len();
    if serde_json::to_writer(&mut *out, x).and_then(|()| out.flush().map_err(serde_json::Error::io)).is_err() {
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}
