//! The two aggregate functions of the engine. A state is the sum so far as bytes; states merge in any order.

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, UInt64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::job::{Job, Ready};
use crate::replay::partial::Partial;
use crate::replay::simulate::simulate;
use crate::replay::turn::{Turn, turns};

/// Bad lines told.
const SHOWN: usize = 10;

/// Something that is added up over lines.
pub trait Sum: Serialize + DeserializeOwned + Default + Send + Sync + std::fmt::Debug + 'static {
    /// The function's name.
    const NAME: &'static str;

    /// Takes lines with their numbers.
    fn take(&mut self, ready: &Ready, lines: &[(u64, &[u8])]);

    /// Takes all of another.
    fn merge(&mut self, other: Self);
}

/// What needs the log's order, by piece.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Survey {
    /// Parts of the log, in no order; one piece may be in several.
    pub parts: Vec<Part>,
}

/// Lines that follow each other.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Part {
    /// Number of the first, in the numbering of the scan.
    pub first: u64,
    /// Lines, empty ones too.
    pub lines: u64,
    /// Key and time of arrival of each query, with its line after the first.
    pub queries: Vec<(u32, u64, Option<f64>)>,
    /// Domains and where they were first met.
    pub domains: Vec<(u32, String)>,
}

impl Sum for Survey {
    const NAME: &'static str = "wattroute_survey";

    fn take(&mut self, ready: &Ready, lines: &[(u64, &[u8])]) {
        for (n, line) in lines {
            let follows = self.parts.last().is_some_and(|p| p.first + p.lines == *n && p.lines < u64::from(u32::MAX));
            if !follows {
                self.parts.push(Part { first: *n, ..Part::default() });
            }
            let Some(part) = self.parts.last_mut() else { continue };
            let after = (*n - part.first) as u32;
            part.lines += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            if let Ok(Some(query)) = ready.form.outline(*n, line) {
                part.queries.push((after, query.key, query.at));
                let new = |name: &str| !part.domains.iter().any(|(_, known)| *known == *name);
                if let Some(name) = query.domain.filter(|name| new(name)) {
                    part.domains.push((after, name.into()));
                }
            }
        }
    }

    fn merge(&mut self, mut other: Self) {
        self.parts.append(&mut other.parts);
    }
}

/// Sums of the simulation.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Share {
    /// Lines with something in them.
    pub lines: u64,
    /// Lines without a query, not in `lines`.
    pub passed: u64,
    /// Lines that could not be used.
    pub bad: u64,
    /// The first few of them.
    pub first_bad: Vec<(u64, String)>,
    /// The sums; none of nothing.
    pub partial: Option<Partial>,
    /// Each decision, in no order, where the job asks for them.
    pub turns: Vec<Turn>,
}

impl Sum for Share {
    const NAME: &'static str = "wattroute_simulate";

    fn take(&mut self, ready: &Ready, lines: &[(u64, &[u8])]) {
        let mut cases = Vec::with_capacity(lines.len());
        for (n, line) in lines.iter().filter(|(n, line)| *n <= ready.limit && !line.trim_ascii().is_empty()) {
            match ready.form.read(*n, line) {
                Ok(None) => self.passed += 1,
                Ok(Some(mut read)) => {
                    self.lines += 1;
                    read.case.domain_index = ready.domain(&read.case.domain);
                    match ready.left_out(&read.case) {
                        Some(why) => self.bad(*n, why),
                        None => cases.push(read.case),
                    }
                }
                Err(why) => {
                    self.lines += 1;
                    self.bad(*n, why);
                }
            }
        }
        let (partial, kept) = simulate(&ready.setup, &cases);
        self.add(partial);
        if ready.walk {
            self.turns.append(&mut turns(&ready.setup, &cases, &kept));
        }
    }

    fn merge(&mut self, mut other: Self) {
        self.turns.append(&mut other.turns);
        self.lines += other.lines;
        self.passed += other.passed;
        self.bad += other.bad;
        self.first_bad.extend(other.first_bad);
        self.first_bad.sort();
        self.first_bad.truncate(SHOWN);
        if let Some(partial) = other.partial {
            self.add(partial);
        }
    }
}

impl Share {
    fn bad(&mut self, line: u64, why: String) {
        self.bad += 1;
        if self.first_bad.len() < SHOWN || self.first_bad.last().is_some_and(|(n, _)| line < *n) {
            self.first_bad.push((line, why));
            self.first_bad.sort();
            self.first_bad.truncate(SHOWN);
        }
    }

    fn add(&mut self, partial: Partial) {
        match &mut self.partial {
            Some(own) => own.merge(&partial),
            none => *none = Some(partial),
        }
    }
}

/// An aggregate function with its job inside: arguments are a line's number and its bytes.
#[derive(Clone)]
pub struct Over<S> {
    /// The job as bytes.
    pub job: Arc<[u8]>,
    ready: Arc<OnceLock<std::result::Result<Arc<Ready>, String>>>,
    signature: Signature,
    sum: std::marker::PhantomData<fn() -> S>,
}

impl<S: Sum> Over<S> {
    /// The function for a job.
    pub fn of(job: &[u8]) -> Arc<AggregateUDF> {
        Arc::new(AggregateUDF::new_from_impl(Self {
            job: job.into(),
            ready: Arc::default(),
            signature: Signature::exact(vec![DataType::UInt64, DataType::Binary], Volatility::Immutable),
            sum: std::marker::PhantomData,
        }))
    }

    /// The job of such a function; none of another.
    pub fn job(function: &AggregateUDF) -> Option<&[u8]> {
        let inner: &dyn Any = function.inner().as_ref();
        inner.downcast_ref::<Self>().map(|own| &*own.job)
    }
}

impl<S: Sum> std::fmt::Debug for Over<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({} bytes)", S::NAME, self.job.len())
    }
}

impl<S> PartialEq for Over<S> {
    fn eq(&self, other: &Self) -> bool {
        self.job == other.job
    }
}

impl<S> Eq for Over<S> {}

impl<S> Hash for Over<S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.job.hash(state);
    }
}

impl<S: Sum> AggregateUDFImpl for Over<S> {
    fn name(&self) -> &str {
        S::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Adding { job: Arc::clone(&self.job), ready: Arc::clone(&self.ready), sum: S::default(), bytes: 0 }))
    }
}

/// A sum being made.
struct Adding<S> {
    job: Arc<[u8]>,
    ready: Arc<OnceLock<std::result::Result<Arc<Ready>, String>>>,
    sum: S,
    bytes: usize,
}

impl<S> std::fmt::Debug for Adding<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Adding")
    }
}

impl<S: Sum> Adding<S> {
    fn written(&self) -> Result<ScalarValue> {
        let bytes =
            postcard::to_allocvec(&self.sum).map_err(|e| failed(&format!("a sum cannot be written down: {e}")))?;
        Ok(ScalarValue::Binary(Some(bytes)))
    }
}

impl<S: Sum> Accumulator for Adding<S> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [numbers, lines] = values else { return Err(failed("takes a number and a line")) };
        let numbers = numbers.as_primitive_opt::<UInt64Type>().ok_or_else(|| failed("numbers are of another type"))?;
        let lines = lines.as_binary_opt::<i32>().ok_or_else(|| failed("lines are of another type"))?;
        let ready = self.ready.get_or_init(|| Job::ready(&self.job).map(Arc::new));
        let ready = ready.as_ref().map_err(|why| failed(why))?;
        let batch: Vec<(u64, &[u8])> =
            numbers.iter().zip(lines.iter()).filter_map(|(n, line)| Some((n?, line?))).collect();
        self.bytes += 24 * batch.len();
        self.sum.take(ready, &batch);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.written()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.bytes
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.written()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [states] = states else { return Err(failed("a state is one value")) };
        let states = states.as_binary_opt::<i32>().ok_or_else(|| failed("states are of another type"))?;
        for bytes in states.iter().flatten() {
            let other = postcard::from_bytes(bytes).map_err(|e| failed(&format!("a sum of another version: {e}")))?;
            self.bytes += bytes.len();
            self.sum.merge(other);
        }
        Ok(())
    }
}

/// An error of this program inside the engine.
pub fn failed(why: &str) -> DataFusionError {
    DataFusionError::Execution(why.to_owned())
}
