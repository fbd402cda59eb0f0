//! Object stores by a log's address: local files and S3-compatible stores, whose keys and endpoint are taken from the
//! environment of each process (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`).

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use object_store_013::ObjectStore;
use object_store_013::aws::AmazonS3Builder;
use url::Url;

use super::sums::failed;

/// Makes a store when it is first asked for.
#[derive(Debug, Default)]
pub struct Stores(DefaultObjectStoreRegistry);

impl ObjectStoreRegistry for Stores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.0.register_store(url, store)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        if let Ok(known) = self.0.get_store(url) {
            return Ok(known);
        }
        let Some(bucket) = url.host_str().filter(|_| matches!(url.scheme(), "s3" | "s3a")) else {
            return Err(failed(&format!("{url}: logs are read from file:// and s3://")));
        };
        let store: Arc<dyn ObjectStore> = Arc::new(AmazonS3Builder::from_env().with_bucket_name(bucket).build()?);
        self.0.register_store(url, Arc::clone(&store));
        Ok(store)
    }
}

/// A runtime that knows these stores.
///
/// # Errors
/// The engine's.
pub fn runtime(folder: Option<&std::path::Path>) -> Result<Arc<RuntimeEnv>> {
    let mut builder = RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(Stores::default()));
    if let Some(folder) = folder {
        builder = builder.with_temp_file_path(folder);
    }
    builder.build_arc()
}
