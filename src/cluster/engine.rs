//! The engine's processes, and a client's way to its answers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ballista::prelude::{SessionConfigExt, SessionContextExt};
use ballista_core::ConfigProducer;
use ballista_core::utils::default_session_builder;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;
use datafusion::arrow::array::AsArray;
use datafusion::common::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext, col};

use super::codec::{Logical, Physical};
use super::scan::{Pieces, Table};
use super::stores::runtime;
use super::sums::{Over, Sum, failed};

/// Largest message between processes, bytes: a sum of many policies, or the keys and decisions of a wave of pieces.
const MESSAGE: u32 = 1 << 30;
/// Seconds between signs of life of an executor.
const BEAT_S: u64 = 2;

/// The engine's settings, the same in all processes.
fn config() -> SessionConfig {
    SessionConfig::new_with_ballista()
        .with_ballista_logical_extension_codec(Arc::new(Logical::default()))
        .with_ballista_physical_extension_codec(Arc::new(Physical::default()))
        .with_ballista_grpc_client_max_message_size(MESSAGE as usize)
        .with_ballista_adaptive_query_planner(false)
}

/// Hands out work until it is ended.
///
/// # Errors
/// The address cannot be listened on, and others of the engine's.
pub async fn scheduler(listen: SocketAddr, host: Option<String>, timeout_s: u64) -> std::result::Result<(), String> {
    let producer: ConfigProducer = Arc::new(config);
    let settings = SchedulerConfig {
        bind_host: listen.ip().to_string(),
        bind_port: listen.port(),
        external_host: host.unwrap_or_else(|| listen.ip().to_string()),
        executor_timeout_seconds: timeout_s,
        expire_dead_executor_interval_seconds: 1,
        no_executors_grace_period_seconds: timeout_s.max(60),
        grpc_server_max_decoding_message_size: MESSAGE,
        grpc_server_max_encoding_message_size: MESSAGE,
        grpc_client_max_message_size: MESSAGE,
        override_config_producer: Some(producer),
        override_session_builder: Some(Arc::new(|config| {
            let state = default_session_builder(config)?;
            Ok(SessionStateBuilder::new_from_existing(state).with_runtime_env(runtime(None)?).build())
        })),
        override_logical_codec: Some(Arc::new(Logical::default())),
        override_physical_codec: Some(Arc::new(Physical::default())),
        ..SchedulerConfig::default()
    };
    let cluster = BallistaCluster::new_from_config(&settings).await.map_err(|e| e.to_string())?;
    start_server(cluster, listen, Arc::new(settings)).await.map_err(|e| e.to_string())
}

/// What an executor is told.
pub struct Executor {
    /// Host and port of the scheduler.
    pub scheduler: (String, u16),
    /// Where it listens; the next port is its too.
    pub listen: SocketAddr,
    /// The name that others reach it by, if not by the address it calls from.
    pub host: Option<String>,
    /// Pieces that it works on at a time.
    pub cores: usize,
    /// Folder of intermediate results.
    pub folder: PathBuf,
}

/// Works until it is ended.
///
/// # Errors
/// The scheduler cannot be reached, and others of the engine's.
pub async fn executor(told: Executor) -> std::result::Result<(), String> {
    let (host, port) = told.scheduler;
    let producer: ConfigProducer = Arc::new(config);
    let folder = told.folder.clone();
    let settings = ExecutorProcessConfig {
        bind_host: told.listen.ip().to_string(),
        external_host: told.host,
        port: told.listen.port(),
        grpc_port: told.listen.port().saturating_add(1),
        scheduler_host: host,
        scheduler_port: port,
        scheduler_connect_timeout_seconds: 30,
        vcores: told.cores,
        work_dir: Some(told.folder.display().to_string()),
        executor_heartbeat_interval_seconds: BEAT_S,
        job_data_ttl_seconds: 3600,
        job_data_clean_up_interval_seconds: 600,
        grpc_max_decoding_message_size: MESSAGE,
        grpc_max_encoding_message_size: MESSAGE,
        override_config_producer: Some(producer),
        override_runtime_producer: Some(Arc::new(move |_| runtime(Some(&folder)))),
        override_logical_codec: Some(Arc::new(Logical::default())),
        override_physical_codec: Some(Arc::new(Physical::default())),
        ..ExecutorProcessConfig::default()
    };
    start_executor_process(Arc::new(settings)).await.map_err(|e| e.to_string())
}

/// A client.
pub struct Client(SessionContext);

impl Client {
    /// Of the scheduler at this host and port.
    ///
    /// # Errors
    /// The address is none.
    pub async fn new(scheduler: &str) -> Result<Self> {
        let state = SessionStateBuilder::new()
            .with_config(config())
            .with_runtime_env(runtime(None)?)
            .with_default_features()
            .build();
        Ok(Self(SessionContext::remote_with_state(&format!("df://{scheduler}"), state).await?))
    }

    /// Adds up pieces of a log.
    ///
    /// # Errors
    /// The engine's: no scheduler there, no executors, a piece that fails again and again.
    pub async fn sum<S: Sum>(&self, job: &[u8], pieces: Pieces) -> Result<S> {
        let sum = Over::<S>::of(job).call(vec![col("n"), col("line")]).alias("sum");
        let table = self.0.read_table(Arc::new(Table(pieces)))?;
        let batches = table.aggregate(Vec::new(), vec![sum])?.collect().await?;
        let mut all = S::default();
        for batch in &batches {
            let column = batch.column_by_name("sum").and_then(|c| c.as_binary_opt::<i32>());
            let column = column.ok_or_else(|| failed("the answer is of another form"))?;
            for bytes in column.iter().flatten() {
                all.merge(postcard::from_bytes(bytes).map_err(|e| failed(&format!("a sum of another version: {e}")))?);
            }
        }
        Ok(all)
    }
}
