//! A log as a table of the engine: `n`, the line's number, and `line`, its bytes. One partition a piece.
//!
//! The pieces are rows of a source in memory, one a partition, and the scan is an operator over it that opens each: Ballista cuts
//! a plan into tasks by cutting the sources that it knows, and would leave one of ours whole in every task.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, AsArray, BinaryBuilder, RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures_util::{TryStreamExt, stream};
use object_store_013::path::Path;
use serde::{Deserialize, Serialize};

use super::groups::Groups;
use super::lines::{Batch, Packed, Piece, Reading};
use super::sums::failed;

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The store: scheme and authority.
    pub store: String,
    /// The places of its files in it, in their order.
    pub files: Vec<String>,
    /// How they are packed.
    pub packed: Packed,
}

/// Pieces of one log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pieces {
    /// The log.
    pub log: Log,
    /// The pieces.
    pub pieces: Vec<Piece>,
}

/// The table's columns.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::UInt64, false), Field::new("line", DataType::Binary, false)]))
}

/// The source's columns.
fn places() -> SchemaRef {
    Arc::new(Schema::new(
        ["file", "start", "end", "bytes", "first"].map(|name| Field::new(name, DataType::UInt64, false)).to_vec(),
    ))
}

/// The table.
#[derive(Debug)]
pub struct Table(pub Pieces);

#[async_trait]
impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if projection.is_some_and(|p| **p != [0, 1]) {
            return Err(failed("a log is scanned with both of its columns"));
        }
        let rows = self.0.pieces.iter().map(|piece| Ok(vec![row(piece)?])).collect::<Result<Vec<_>>>()?;
        let source = MemorySourceConfig::try_new_exec(&rows, places(), None)?;
        Ok(Arc::new(Scan::over(self.0.log.clone(), source)))
    }
}

/// A piece as a row.
fn row(piece: &Piece) -> Result<RecordBatch> {
    let column = |x: u64| -> ArrayRef { Arc::new(UInt64Array::from(vec![x])) };
    let Piece { file, start, end, bytes, first } = *piece;
    Ok(RecordBatch::try_new(places(), [file, start, end, bytes, first].map(column).to_vec())?)
}

/// Rows as pieces.
fn pieces(rows: &RecordBatch) -> Result<Vec<Piece>> {
    let columns: Vec<&UInt64Array> = rows.columns().iter().filter_map(|c| c.as_primitive_opt()).collect();
    let [file, start, end, bytes, first] = columns.as_slice() else {
        return Err(failed("pieces are of another form"));
    };
    let piece = |i| Piece {
        file: file.value(i),
        start: start.value(i),
        end: end.value(i),
        bytes: bytes.value(i),
        first: first.value(i),
    };
    Ok((0..rows.num_rows()).map(piece).collect())
}

/// The scan.
#[derive(Debug)]
pub struct Scan {
    /// What is read.
    pub log: Log,
    source: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl Scan {
    /// Over a source of pieces, a partition for each of its partitions.
    pub fn over(log: Log, source: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema()),
            Partitioning::UnknownPartitioning(source.properties().output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { log, source, properties: Arc::new(properties) }
    }
}

impl DisplayAs for Scan {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scan: {}{}", self.log.store, self.log.files.join(", "))
    }
}

impl ExecutionPlan for Scan {
    fn name(&self) -> &str {
        "wattroute log"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.source]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([source]) = <[_; 1]>::try_from(children) else { return Err(failed("a scan has one source")) };
        Ok(Arc::new(Self::over(self.log.clone(), source)))
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        #[expect(deprecated, reason = "the engine still calls both")]
        self.with_new_children(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let store = context.runtime_env().object_store(ObjectStoreUrl::parse(&self.log.store)?)?;
        let files: Result<Vec<Path>> =
            self.log.files.iter().map(|f| Path::parse(f).map_err(|e| failed(&e.to_string()))).collect();
        let files: Arc<[Path]> = files?.into();
        let packed = self.log.packed;
        let rows = self.source.execute(partition, context)?;
        let each = rows.and_then(async |rows| Ok(stream::iter(pieces(&rows)?.into_iter().map(Ok))));
        let batches = each.try_flatten().and_then(move |piece| {
            let (store, files) = (Arc::clone(&store), Arc::clone(&files));
            async move {
                let path = usize::try_from(piece.file).ok().and_then(|file| files.get(file));
                let path = path.ok_or_else(|| failed("a piece is of no file of the log"))?;
                match packed {
                    Packed::Columns => Groups::open(store.as_ref(), path, &piece).await.map(Open::Rows),
                    _ => Reading::open(store.as_ref(), path, packed, &piece).await.map(Open::Text),
                }
            }
        });
        let lines = batches.map_ok(|reading| {
            stream::try_unfold(reading, async |mut reading| {
                let batch = reading.batch().await?.map(|batch| columns(&batch)).transpose()?;
                Ok(batch.map(|batch| (batch, reading)))
            })
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema(), Box::pin(lines.try_flatten()))))
    }
}

/// A piece being read.
enum Open {
    Text(Reading),
    Rows(Groups),
}

impl Open {
    async fn batch(&mut self) -> Result<Option<Batch>> {
        match self {
            Self::Text(reading) => reading.batch().await,
            Self::Rows(groups) => groups.batch(),
        }
    }
}

fn columns(batch: &Batch) -> Result<RecordBatch> {
    let numbers = UInt64Array::from_iter_values((batch.first..).take(batch.lines.len()));
    let mut lines = BinaryBuilder::with_capacity(batch.lines.len(), batch.lines.iter().map(Vec::len).sum());
    batch.lines.iter().for_each(|line| lines.append_value(line));
    Ok(RecordBatch::try_new(schema(), vec![Arc::new(numbers), Arc::new(lines.finish())])?)
}
