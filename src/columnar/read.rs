//! Parquet files as lines of JSON, one row a line, under the names of their columns.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use parquet::basic::Compression;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
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

/// Gives every row of a file away as lines of JSON, in blocks, with the share of it that was read; `give` says whether it wants more.
/// `name` is what errors call the file. Says whether more was wanted to the end.
///
/// # Errors
/// File and row where it is no Parquet, is cut off, damaged or packed in a way that is not read here.
pub fn lines(name: &str, path: &Path, give: &mut dyn FnMut(Vec<u8>, f64) -> bool) -> Result<bool, String> {
    let reader = open(path).map_err(|why| format!("{name}: {why}"))?;
    let rows = reader.metadata().file_metadata().num_rows().max(1) as f64;
    let mut block = Vec::with_capacity(BLOCK + 4096);
    for (n, row) in RowIter::from_file_into(Box::new(reader)).enumerate() {
        let row = row.map_err(|e| format!("{name}: row {}: {e}", n + 1))?;
        object(&mut block, &row);
        block.push(b'\n');
        if block.len() >= BLOCK && !give(std::mem::take(&mut block), n as f64 / rows) {
            return Ok(false);
        }
    }
    Ok(give(block, 1.0))
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let reader = SerializedFileReader::new(file).map_err(|e| format!("is cut off or no Parquet: {e}"))?;
    unpackable(reader.metadata())?;
    Ok(reader)
}

/// A column whose packing this program cannot undo is named before the first row.
pub(super) fn unpackable(file: &ParquetMetaData) -> Result<(), String> {
    let columns = file.row_groups().iter().flat_map(RowGroupMetaData::columns);
    let odd = columns
        .map(|c| (c.column_path(), c.compression()))
        .find(|(_, packing)| matches!(packing, Compression::BROTLI(_) | Compression::LZO));
    odd.map_or(Ok(()), |(column, packing)| {
        let name = packing.to_string();
        let name = name.split('(').next().unwrap_or_default();
        Err(format!(
            "column `{}` is packed with {name}; snappy, gzip, zstd, lz4 and none at all are read",
            column.string()
        ))
    })
}

/// A row as a line of JSON, without its end.
pub(super) fn line(row: &Row) -> Vec<u8> {
    let mut out = Vec::new();
    object(&mut out, row);
    out
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
