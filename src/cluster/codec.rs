//! How the scan and the functions travel between client, scheduler and executors; everything else as Ballista has it.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use ballista_core::serde::{BallistaLogicalExtensionCodec, BallistaPhysicalExtensionCodec};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::{Result, TableReference};
use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{AggregateUDF, Extension, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::logical_plan::LogicalExtensionCodec;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::scan::{Scan, Table};
use super::sums::{Over, Share, Sum, Survey, failed};

/// Before everything of this program.
const MARK: &[u8] = b"wattroute/2 ";

/// Plans before they are cut into tasks.
#[derive(Debug, Default)]
pub struct Logical(BallistaLogicalExtensionCodec);

/// Tasks.
#[derive(Debug, Default)]
pub struct Physical(BallistaPhysicalExtensionCodec);

fn write<T: Serialize>(what: &T, out: &mut Vec<u8>) -> Result<()> {
    let bytes = postcard::to_allocvec(what).map_err(|e| failed(&e.to_string()))?;
    out.extend_from_slice(MARK);
    out.extend_from_slice(&bytes);
    Ok(())
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<Result<T>> {
    let rest = bytes.strip_prefix(MARK)?;
    Some(postcard::from_bytes(rest).map_err(|e| failed(&format!("a log of another version: {e}"))))
}

fn function(name: &str, job: &[u8]) -> Result<Arc<AggregateUDF>> {
    match name {
        Survey::NAME => Ok(Over::<Survey>::of(job)),
        Share::NAME => Ok(Over::<Share>::of(job)),
        _ => Err(failed(&format!("no aggregate function `{name}`"))),
    }
}

fn job(function: &AggregateUDF, out: &mut Vec<u8>) {
    let found = Over::<Survey>::job(function).or_else(|| Over::<Share>::job(function));
    out.extend_from_slice(found.unwrap_or_default());
}

impl LogicalExtensionCodec for Logical {
    fn try_decode(&self, buf: &[u8], inputs: &[LogicalPlan], ctx: &TaskContext) -> Result<Extension> {
        self.0.try_decode(buf, inputs, ctx)
    }

    fn try_encode(&self, node: &Extension, buf: &mut Vec<u8>) -> Result<()> {
        self.0.try_encode(node, buf)
    }

    fn try_decode_table_provider(
        &self,
        buf: &[u8],
        name: &TableReference,
        schema: SchemaRef,
        ctx: &TaskContext,
    ) -> Result<Arc<dyn TableProvider>> {
        match read(buf) {
            Some(pieces) => Ok(Arc::new(Table(pieces?))),
            None => self.0.try_decode_table_provider(buf, name, schema, ctx),
        }
    }

    fn try_encode_table_provider(
        &self,
        name: &TableReference,
        node: Arc<dyn TableProvider>,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        let inner: &dyn Any = node.as_ref();
        match inner.downcast_ref::<Table>() {
            Some(table) => write(&table.0, buf),
            None => self.0.try_encode_table_provider(name, node, buf),
        }
    }

    fn try_decode_file_format(&self, buf: &[u8], ctx: &TaskContext) -> Result<Arc<dyn FileFormatFactory>> {
        self.0.try_decode_file_format(buf, ctx)
    }

    fn try_encode_file_format(&self, buf: &mut Vec<u8>, node: Arc<dyn FileFormatFactory>) -> Result<()> {
        self.0.try_encode_file_format(buf, node)
    }

    fn try_decode_udaf(&self, name: &str, buf: &[u8]) -> Result<Arc<AggregateUDF>> {
        function(name, buf)
    }

    fn try_encode_udaf(&self, node: &AggregateUDF, buf: &mut Vec<u8>) -> Result<()> {
        job(node, buf);
        Ok(())
    }
}

impl PhysicalExtensionCodec for Physical {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        ctx: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (read(buf), inputs) {
            (Some(log), [source]) => Ok(Arc::new(Scan::over(log?, Arc::clone(source)))),
            _ => self.0.try_decode(buf, inputs, ctx, converter),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let inner: &dyn Any = node.as_ref();
        match inner.downcast_ref::<Scan>() {
            Some(scan) => write(&scan.log, buf),
            None => self.0.try_encode(node, buf, converter),
        }
    }

    fn try_decode_udaf(&self, name: &str, buf: &[u8]) -> Result<Arc<AggregateUDF>> {
        function(name, buf)
    }

    fn try_encode_udaf(&self, node: &AggregateUDF, buf: &mut Vec<u8>) -> Result<()> {
        job(node, buf);
        Ok(())
    }
}
