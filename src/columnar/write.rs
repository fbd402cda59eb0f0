//! Rows of JSON as a Parquet file: columns of fixed kinds, each of which may be null.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::{Map, Value};

/// Rows of a row group: what is held in memory.
const GROUP: usize = 8192;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text; anything that is no text is written as its JSON.
    Text,
    /// A whole number, or the text of one.
    Whole,
    /// A number.
    Real,
    /// True or false.
    Flag,
    /// A list of numbers of single precision.
    Reals,
}

impl Kind {
    fn field(self, name: &str) -> String {
        match self {
            Self::Text => format!("optional binary {name} (STRING);"),
            Self::Whole => format!("optional int64 {name};"),
            Self::Real => format!("optional double {name};"),
            Self::Flag => format!("optional boolean {name};"),
            Self::Reals => {
                format!("optional group {name} (LIST) {{ repeated group list {{ optional float element; }} }}")
            }
        }
    }
}

/// A file being written. It is no Parquet until [`Writer::close`].
pub struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    columns: Vec<(&'static str, Held)>,
    rows: usize,
}

/// Values of a column that wait for their row group, with their levels.
enum Held {
    Text(Values<ByteArray>),
    Whole(Values<i64>),
    Real(Values<f64>),
    Flag(Values<bool>),
    Reals(Values<f32>, Vec<i16>),
}

struct Values<T> {
    values: Vec<T>,
    levels: Vec<i16>,
}

impl<T> Values<T> {
    fn new() -> Self {
        Self { values: Vec::new(), levels: Vec::new() }
    }

    fn add(&mut self, value: Option<T>) {
        self.levels.push(i16::from(value.is_some()));
        self.values.extend(value);
    }

    fn write<D: DataType<T = T>>(
        &mut self,
        mut column: SerializedColumnWriter<'_>,
        repeats: Option<&[i16]>,
    ) -> Result<(), ParquetError> {
        column.typed::<D>().write_batch(&self.values, Some(&self.levels), repeats)?;
        self.values.clear();
        self.levels.clear();
        column.close()
    }
}

impl<W: Write + Send> Writer<W> {
    /// Begins a file with these columns.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(out: W, columns: &[(&'static str, Kind)]) -> Result<Self, String> {
        let fields: Vec<String> = columns.iter().map(|(name, kind)| kind.field(name)).collect();
        let schema =
            parse_message_type(&format!("message row {{ {} }}", fields.join(" "))).map_err(|e| e.to_string())?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("wattroute ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).map_err(|e| e.to_string())?;
        let held = |kind: Kind| match kind {
            Kind::Text => Held::Text(Values::new()),
            Kind::Whole => Held::Whole(Values::new()),
            Kind::Real => Held::Real(Values::new()),
            Kind::Flag => Held::Flag(Values::new()),
            Kind::Reals => Held::Reals(Values::new(), Vec::new()),
        };
        Ok(Self { file, columns: columns.iter().map(|(name, kind)| (*name, held(*kind))).collect(), rows: 0 })
    }

    /// Takes a row; what it lacks, or what is of another kind, is null.
    ///
    /// # Errors
    /// The disk.
    pub fn push(&mut self, row: &Map<String, Value>) -> Result<(), String> {
        for (name, held) in &mut self.columns {
            held.add(row.get(*name).filter(|v| !v.is_null()));
        }
        self.rows += 1;
        if self.rows >= GROUP { self.flush().map_err(|e| e.to_string()) } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        let mut group = self.file.next_row_group()?;
        for (_, held) in &mut self.columns {
            let Some(column) = group.next_column()? else { break };
            match held {
                Held::Text(values) => values.write::<ByteArrayType>(column, None)?,
                Held::Whole(values) => values.write::<Int64Type>(column, None)?,
                Held::Real(values) => values.write::<DoubleType>(column, None)?,
                Held::Flag(values) => values.write::<BoolType>(column, None)?,
                Held::Reals(values, repeats) => {
                    values.write::<FloatType>(column, Some(repeats))?;
                    repeats.clear();
                }
            }
        }
        self.rows = 0;
        group.close().map(drop)
    }

    /// Ends the file and gives what it was written to.
    ///
    /// # Errors
    /// The disk.
    pub fn close(mut self) -> Result<W, String> {
        if self.rows > 0 {
            self.flush().map_err(|e| e.to_string())?;
        }
        self.file.into_inner().map_err(|e| e.to_string())
    }
}

impl Held {
    fn add(&mut self, value: Option<&Value>) {
        match self {
            Self::Text(held) => held.add(value.map(|v| match v {
                Value::String(text) => ByteArray::from(text.as_str()),
                other => ByteArray::from(other.to_string().as_str()),
            })),
            Self::Whole(held) => {
                held.add(value.and_then(|v| v.as_i64().or_else(|| v.as_str().and_then(|s| s.parse().ok()))));
            }
            Self::Real(held) => held.add(value.and_then(Value::as_f64)),
            Self::Flag(held) => held.add(value.and_then(Value::as_bool)),
            Self::Reals(held, repeats) => list(held, repeats, value.and_then(Value::as_array)),
        }
    }
}

/// Levels of a list: 0 no list, 1 an empty one, 3 a number in it; the first of a row repeats nothing.
fn list(held: &mut Values<f32>, repeats: &mut Vec<i16>, values: Option<&Vec<Value>>) {
    let Some(values) = values.filter(|v| !v.is_empty()) else {
        held.levels.push(i16::from(values.is_some()));
        repeats.push(0);
        return;
    };
    for (i, value) in values.iter().enumerate() {
        let number = value.as_f64().map(|x| x as f32);
        held.levels.push(if number.is_some() { 3 } else { 2 });
        held.values.extend(number);
        repeats.push(i16::from(i > 0));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::columnar::read;

    const COLUMNS: [(&str, Kind); 5] =
        [("a", Kind::Text), ("b", Kind::Whole), ("c", Kind::Real), ("d", Kind::Flag), ("e", Kind::Reals)];

    /// More rows than a row group, with everything that may be missing missing somewhere.
    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let rows: Vec<Value> = (0..GROUP + 100)
            .map(|i| {
                let maybe = |n: usize, v: Value| if i % n == 0 { Value::Null } else { v };
                json!({ "a": maybe(3, json!(format!("ü \"{i}\""))), "b": maybe(5, json!(i)), "c": maybe(7, json!(i as f64 / 8.0)),
                    "d": maybe(11, json!(i % 2 == 0)), "e": maybe(13, json!(vec![0.5; i % 4])) })
            })
            .collect();
        let mut writer = Writer::new(std::fs::File::create(&path).unwrap(), &COLUMNS).unwrap();
        rows.iter().for_each(|row| writer.push(row.as_object().unwrap()).unwrap());
        writer.close().unwrap();
        let mut text = Vec::new();
        read::lines("x.parquet", &path, &mut |block, _| {
            text.extend(block);
            true
        })
        .unwrap();
        let back: Vec<Value> =
            String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(back, rows);
        // Cut off: an error, not fewer rows.
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
        let e = read::lines("x.parquet", &path, &mut |_, _| true).unwrap_err();
        assert!(e.contains("cut off or no Parquet"), "{e}");
        assert!(read::files(&folder.path().join("none")).is_err());
    }
}
